"""Files are written and replaced in one step: a crash leaves the old one or the new one."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gemnet.errors import GemnetError
from gemnet.strict_json import parse_json

DIGITS = 8
"""Hex digits of its sha256 in the name of a published file."""


def stored_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; an empty dict where there is nothing, or nothing that can be read."""
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft that becomes a file when the block ends: a crash leaves the old file or the new one.

    What a link points to is replaced, not the link. A device or a pipe, such as ``/dev/null``, is written to: in its
    place a file would break the machine.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            draft = Path(scratch) / path.name
            yield draft
            with open(path, "wb") as target:
                target.write(draft.read_bytes())
        return
    path = Path(os.path.realpath(path))
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        yield draft
        with open(draft, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_named(folder: Path, name: str, write: Callable[[Path], object]) -> tuple[Path, str]:
    """Writes a safetensors file named by its own digest, readable by everybody, in one step.

    Args:
        folder: where to.
        name: how its name begins; `DIGITS` hex digits follow.
        write: writes it to the path it is given.

    Returns:
        The file and the sha256 of its contents.
    """
    draft = folder / f".{name}.{os.getpid()}.draft"
    try:
        write(draft)
        digest = hashlib.sha256(draft.read_bytes()).hexdigest()
        path = folder / f"{name}-{digest[:DIGITS]}.safetensors"
        with replacing(path) as target:
            os.rename(draft, target)
            os.chmod(target, 0o644)
    finally:
        draft.unlink(missing_ok=True)
    return path, digest


def verify_sha256(path: Path, expected: str, remedy: str, digits: int = 64) -> None:
    """Checks a file against its sha256.

    Args:
        path: the file.
        expected: hex digits.
        remedy: last sentence of the message where it doesn't agree.
        digits: how many of them are known.

    Raises:
        GemnetError: the file is missing, truncated or altered.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()  # a few megabytes at most
    except OSError as error:
        raise GemnetError(f"{path}: can't be read ({error.strerror}). {remedy}") from None
    if found[:digits] != expected:
        raise GemnetError(
            f"{path}: sha256 is {found[:8]}..., expected {expected[:8]}...; the file is damaged or was altered. "
            f"{remedy}"
        )


def write_json(path: Path, data: Any) -> None:
    """Writes JSON in one step."""
    write_text(path, json.dumps(data, indent=2) + "\n")


@contextmanager
def taken_back(folder: Path) -> Iterator[None]:
    """Takes away what was made in a folder, and the folder itself where it is new, if the block fails."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    before = set() if missing else set(folder.iterdir())
    try:
        yield
    except BaseException:
        if missing:
            shutil.rmtree(missing[-1], ignore_errors=True)
        elif folder.is_dir():
            for item in set(folder.iterdir()) - before:
                shutil.rmtree(item, ignore_errors=True) if item.is_dir() else item.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text in one step."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Writes rows with their keys as header, in one step; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft, draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
