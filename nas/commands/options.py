"""What the command lines have in common."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class _Parser(argparse.ArgumentParser):
    """A parser that says which option was probably meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The options; ends the program where one is unknown, with the usage of the subcommand that was given it."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{self._probably_meant(unknown)}")
        return found, unknown

    def _probably_meant(self, unknown: Sequence[str]) -> str:
        known = sorted(set(re.findall(r"(?<![\w-])--[a-z][\w-]*", self.format_usage())))
        said = ""
        for name in (text.partition("=")[0] for text in unknown if text.startswith("--")):
            for close in difflib.get_close_matches(name.replace("_", "-"), known, n=1):
                said += f" Did you mean {close} for {name}?"
        return said


def command_parser(program: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A command's parser; ``{program}`` in the examples stands for what was typed."""
    return _Parser(
        prog=program,
        description=description,
        epilog=examples.replace("{program}", program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def positive(text: str) -> int:
    """Argument type: a whole number from 1."""
    value = int(text)
    most = 2**48  # gemnet.strict.MOST, which takes seconds to import
    if not 1 <= value <= most:
        raise argparse.ArgumentTypeError(f"at {'least 1' if value < 1 else f'most {most:,}'}, got {value}")
    return value


class DistinctAction(argparse.Action):
    """A list without what is given twice, which would count twice."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Reads what follows the option."""
        setattr(namespace, self.dest, list(dict.fromkeys(values)))


@dataclass(frozen=True)
class Typed:
    """What reads as a number, and is a text where the config has one.

    It is what `gemnet.config_files.settled` takes; to import that here would take seconds.

    Args:
        text: what was typed.
        value: what it is elsewhere.
    """

    text: str
    value: Any

    def instead_of(self, own: Any) -> Any:
        """The value, where the config has ``own``."""
        return self.text if isinstance(own, str) else self.value


class OptionsAction(argparse.Action):
    """``a.b=1 c=[1,2]`` as mmengine reads it, but texts keep their blanks, and stay texts in the place of a text.

    An argument without ``=`` is an error of the arguments, not a crash. Where the option is given again, its keys come
    to those of before.
    """

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Reads what follows the option."""
        found = dict(getattr(namespace, self.dest) or {})
        for text in values:
            key, equals, value = text.partition("=")
            if not equals or not key:
                parser.error(f"--cfg-options takes KEY=VALUE, such as a.b=1; got {text!r}.")
            try:
                found[key] = _container(value)
            except ValueError:
                try:
                    found[key] = _typed(value)
                except (ValueError, RecursionError):
                    parser.error(f"--cfg-options {key}: its value can't be read: {value[:80]!r}.")
        setattr(namespace, self.dest, found)


def _container(text: str) -> Any:
    """A list, tuple or dict as Python writes it, ``dict(a=1)`` included.

    Raises:
        ValueError: something else; mmengine has a looser way to write lists.
    """
    if not text.startswith(("[", "(", "{", "dict(")):
        raise ValueError("no container")
    from gemnet.checkpoint import plain_config

    found = plain_config(f"value = {text}")
    if found is None or set(found) != {"value"}:
        raise ValueError("no plain data")
    return found["value"]


def _typed(text: str) -> Any:
    """What `_loose` reads; a number is `Typed`, as it might be a text as well. Commas make a list, as mmengine has it.

    Raises:
        ValueError: brackets that don't match.
    """
    value = _loose(text)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Typed(text.strip(), value) if is_number else value


def _is_bracketed(text: str) -> bool:
    return text.strip()[:1] + text.strip()[-1:] in ("[]", "()")


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] in "'\"" and text[0] == text[-1] and text[0] not in text[1:-1]


def _loose(text: str) -> Any:
    """A number, True, False, None, else the text; or several with commas between, in brackets or without.

    Raises:
        ValueError: brackets that don't match.
    """
    text = text.strip()
    bracketed = _is_bracketed(text)
    if _is_quoted(text) or (not bracketed and "," not in text):
        return _scalar(text)
    parts = _elements(text[1:-1] if bracketed else text)
    found = [_loose(part) for part in (parts if parts[-1].strip() else parts[:-1])]  # a last comma, or nothing at all
    return tuple(found) if text[0] == "(" and bracketed else found


def _elements(text: str) -> list[str]:
    """The parts between commas that are in no brackets."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter in "[(") - (letter in ")]")
        if depth < 0:
            raise ValueError("a bracket is closed that was not opened")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    if depth:
        raise ValueError("a bracket is not closed")
    return found


def _scalar(text: str) -> Any:
    if text[:1] in ("'", '"') and text[:1] == text[-1:] and len(text) > 1:
        return text[1:-1]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), None if text == "None" else text)


def check_output(file: str | Path) -> None:
    """Tries whether a file can be written later, after much work; leaves nothing behind.

    Raises:
        GemnetError: it can't, and why.
    """
    from gemnet.errors import GemnetError

    path = Path(file)
    try:
        if path.is_dir():
            raise GemnetError(f"{path} can't be written: it is a folder. Give the name of a file.")
        place = path if path.exists() else path.absolute().parent
        while not place.exists() and place != place.parent:
            place = place.parent
        if not path.exists() and not place.is_dir():
            raise GemnetError(f"{path} can't be written: {place} is a file.")
        if not os.access(place, os.W_OK):
            raise GemnetError(f"{path} can't be written: check the permissions of {place}.")
        if not path.exists() or path.is_file():
            _try_draft(Path(os.path.realpath(path)))
    except OSError as error:
        where = "" if error.filename is None else f" ({Path(os.fsdecode(error.filename)).parent})"
        raise GemnetError(
            f"{path} can't be written: {error.strerror or error}{where}. Choose another place or name."
        ) from error


def _try_draft(path: Path) -> None:
    """Makes and removes the draft by which `gemnet.files.replacing` writes a file, and the folders that are missing."""
    made: list[Path] = []
    try:
        for folder in reversed([place for place in path.parents if not place.exists()]):
            folder.mkdir()
            made.append(folder)
        draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
        draft.touch()
        draft.unlink()
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # somebody else put something there
                folder.rmdir()


def check_device(name: str) -> None:
    """Tries whether this machine has a device.

    Raises:
        GemnetError: it hasn't, and why.
    """
    import torch

    from gemnet.errors import GemnetError

    try:
        torch.zeros(1, device=name).item()
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise GemnetError(
            f"--device {name!r} can't be used on this machine: {reason}. Without --device the CPU is taken."
        ) from None
