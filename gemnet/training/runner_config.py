"""Configs of whole trainings: found by name, read, and checked for slips.

Any mmengine config will do: classification (`gemnet.classification.model`), MMDetection's, a user's own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from gemnet.config_files import Written, config_folder, settled
from gemnet.errors import GemnetError, nearest
from gemnet.private_mmengine import plain_dict
from gemnet.training.config_variables import FURTHER_KEYS, RUNNER_KEYS, ignored_by_bases, read_with_variables


class RunnerError(GemnetError):
    """A training or test that can't be set up from what was given."""


def find_runner_config(name: str) -> Path:
    """The file of a config: a path, or the name (with or without ``.py``) of one that comes with the package.

    Args:
        name: what the user gave; of a config of ours also with its folders: ``configs/classification/finetune.py``.

    Raises:
        RunnerError: neither is there.
    """
    if Path(name).expanduser().is_file():
        return Path(name).expanduser()
    shipped = config_folder()
    others = {"_base_", "search", "comparison"}
    inside = [file for file in sorted(shipped.rglob("*.py")) if not others & set(file.relative_to(shipped).parts)]
    wanted = Path(name.removesuffix(".py"))
    for file in inside:
        if ("configs", *file.relative_to(shipped).with_suffix("").parts)[-len(wanted.parts) :] == wanted.parts:
            return file
    known = [file.stem for file in inside]
    raise RunnerError(f"There is no config {name!r}: neither a file nor one of ours.{nearest(wanted.name, known)}")


def load_runner_config(file: Path, options: Mapping[str, Any] | None = None) -> Config:
    """Reads a config and puts options over it.

    Args:
        file: the config.
        options: ``{'train_cfg.max_epochs': 3}``.

    Raises:
        RunnerError: it can't be read, a key is so near to one that exists that it must be a slip, or an option names
            nothing that anything reads.
    """
    given = dict(options or {})
    try:
        if any(isinstance(value, Written) for value in given.values()):
            given = settled(given, plain_dict(read_with_variables(file, {})[0]))
        config, options = read_with_variables(file, given)
    except GemnetError:
        raise
    except ImportError as error:
        raise RunnerError(
            f"Config {file} imports what is not installed ({error}). Detection needs: pip install 'gemnet[detection]'."
        ) from error
    except Exception as error:  # the file is a program: it may raise anything
        text = " ".join(str(error).split())
        raise RunnerError(f"Config {file} can't be read: {type(error).__name__}: {text}") from error
    _refuse_ignored(file)
    for key in config:
        _refuse_slip(str(key), RUNNER_KEYS | FURTHER_KEYS, "")
    for key in options:
        _check_option(config, key)
    config.merge_from_dict(options)
    return config


def _refuse_slip(key: str, known: Collection[str], where: str) -> None:
    """Configs may hold any name; one that is nearly a known name is a typing error that would silently do nothing."""
    if key in known or key.startswith("_"):
        return
    for name in sorted(known):
        if _one_slip_apart(key, name):
            raise RunnerError(f"There is no config key {where}{key}. Did you mean '{where}{name}'?")


def _one_slip_apart(left: str, right: str) -> bool:
    """Whether two words have the same letters in another order, or differ by one put in, left out or changed."""
    if sorted(left) == sorted(right):
        return True
    short, long = sorted((left, right), key=len)
    start = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) == len(long):
        return short[start + 1 :] == long[start + 1 :]
    return short[start:] == long[start + 1 :]


def _check_option(config: Config, path: str) -> None:
    """An option may add a key, but not one that is nearly another, nor below what isn't there, nor to a variable."""
    part: Any = plain_dict(config)
    names = path.split(".")
    if names[0] in part and names[0] not in RUNNER_KEYS | FURTHER_KEYS:
        places = [".".join((*place, *names[1:])) for place in _made_from(config, names[0])]
        if places or not isinstance(
            part[names[0]], Mapping | list | tuple
        ):  # else it may be a part for a user's own hook
            raise RunnerError(f"--cfg-options {path}: {_made_before(names[0], places)}")
    for depth, name in enumerate(names):
        if isinstance(part, list | tuple):
            if not name.isdigit() or int(name) >= len(part):
                raise RunnerError(f"--cfg-options {path}: {'.'.join(names[:depth])} is a list of {len(part)} parts.")
            part = part[int(name)]
            continue
        if not isinstance(part, Mapping):
            return
        where = ".".join(names[:depth]) + ("." if depth else "")
        if name not in part:
            known = set(part) | (RUNNER_KEYS | FURTHER_KEYS if depth == 0 else set())
            _refuse_slip(name, known, where)
            if path not in known and len(names) == 1:
                raise RunnerError(
                    f"--cfg-options {path}: the config has no variable of this name, so it would change nothing."
                    f"{nearest(path, known)} Give the whole path, such as optim_wrapper.optimizer.lr=0.1."
                )
            return
        part = part[name]


def _refuse_ignored(file: Path) -> None:
    """A config may not assign what only a base of another package would have read."""
    if file.suffix != ".py" or "::" not in file.read_text(encoding="utf-8"):
        return
    bare, ignored = ignored_by_bases(file)
    for name in ignored:
        raise RunnerError(f"{file}: {_made_before(name, ['.'.join(place) for place in _made_from(bare, name)])}")


def _made_before(name: str, places: list[str]) -> str:
    hint = f"Set {' and '.join(places)}." if places else "Set the parts of the config that were made from it."
    return f"{name} is a variable of a config, and parts were made from it before, so that this changes nothing. {hint}"


def _made_from(config: Config, variable: str) -> list[tuple[str, ...]]:
    """Where a variable's value stands in the parts that are read: by its own name, or as a fraction, list or dict."""
    value, found = _without_scope(plain_dict(config)[variable]), []
    waiting: list[tuple[tuple[str, ...], Any]] = [
        ((str(key),), part) for key, part in plain_dict(config).items() if key in RUNNER_KEYS | FURTHER_KEYS
    ]
    while waiting:
        place, part = waiting.pop(0)
        if _without_scope(part) == value and (
            place[-1] == variable or (isinstance(value, Mapping | list | float) and value)
        ):
            found.append(place)
        elif isinstance(part, Mapping):
            waiting += [((*place, str(key)), item) for key, item in part.items()]
        elif isinstance(part, list | tuple):
            waiting += [((*place, str(number)), item) for number, item in enumerate(part)]
    return found


def _without_scope(part: Any) -> Any:
    """A part of a config as plain data, without the mark that mmengine puts on what comes from another package."""
    if isinstance(part, Mapping):
        return {key: _without_scope(item) for key, item in part.items() if key != "_scope_"}
    return [_without_scope(item) for item in part] if isinstance(part, list | tuple) else part


def unknown_network(arch: str) -> str:
    """What is said where a name is none of timm's; of a path, how the network of a search is trained."""
    import timm

    if Path(arch).name != arch or Path(arch).exists():
        return (
            f"{arch!r} is a path, where the name of a network is wanted. To train the network of a search: "
            "model.arch=None model.genome=FOLDER/best.json pretrained=False; to begin with its weights as well "
            "load_from=FOLDER/best.safetensors."
        )
    known = timm.list_pretrained() if "." in arch else timm.list_models()  # a tag is meant where one is given
    return f"There is no network {arch!r}.{nearest(arch, known)}"
