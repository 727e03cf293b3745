"""Files written through a neighbouring one, so that a crash leaves the old file or the new one."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gemnet.strict_json import parse_json


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; an empty dict where there is nothing, or nothing that can be read."""
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_json(path: Path, data: Any) -> None:
    """Writes JSON through a neighbouring file, so that a crash leaves the old file or the new one."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


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
    """Writes a file through a neighbour, so that a crash leaves no half of it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Writes rows with their keys as header, in one piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    with half.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    half.replace(path)
