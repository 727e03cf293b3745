"""A search on digits that takes seconds, and its command line."""

from __future__ import annotations

import hashlib
from pathlib import Path

from nas.commands import search as search_command

TINY = [
    "data.source=digits",
    "strategy.type=random",
    "space.max_nodes=4",
    "space.stage_widths=[16,16,16]",
    # Wide enough that the hand-made blocks fit under the found network, whichever it is.
    "space.choices.width=[1.0,1.25]",
    "space.choices.inner_ratio=[4,6]",
    "score.weight=0.0",
    "limits.max_macs=1e6",
    "fidelity.epochs=1",
    "fidelity.subset=0.2",
    "search.batch=4",
    "search.ahead=2",
    "confirm.top=2",
    "confirm.seeds=1",
    "final.epochs=2",
    "comparison.random_cells=2",
    "comparison.seeds=1",
    "workers.count=0",
]


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = search_command.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file."""
    return {
        item.name: hashlib.sha256(item.read_bytes()).hexdigest()
        for item in folder.iterdir()
        if item.is_file() and not item.name.startswith(".") and not item.name.endswith(("-wal", "-shm"))
    }
