"""Parts of one's own and memories that change between a search and its resumption."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import nas
from nas.executors.monitor import Monitor


class Listener(Monitor):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, text: str) -> None:
        self.heard.append(text)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [f'"{", ".join(f"k{n}={v}" for n, v in enumerate(row))}",{sum(row)}' for row in product((1, 2, 5), repeat=4)]
    (tmp_path / "mine.csv").write_text("\n".join(["choices,accuracy", *rows]))
    return tmp_path / "mine.csv"


def config(table: Path, **strategy: Any) -> dict[str, Any]:
    return {
        "space": {"type": "table"},
        "evaluator": {"type": "tabular", "path": str(table), "accuracy": "accuracy"},
        "strategy": strategy,
        "fidelity": {"epochs": 1},
        "search": {"evaluations": 12, "batch": 4, "ahead": 0},
        "workers": {"count": 0},
        "confirm": {"top": 0},
    }


def told(settings: dict[str, Any], folder: Path) -> list[str]:
    monitor = Listener()
    nas.search(settings, folder, resume=True, monitor=monitor)
    return [text for text in monitor.heard if text.startswith("Changed since")]


def test_a_changed_file_of_a_part_of_ones_own_is_told(table, tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "changing_part.py"
    module.write_text("from nas.strategies.random import RandomSearch\n\n\nclass Mine(RandomSearch):\n    pass\n")
    settings = config(table, type="changing_part.Mine")
    assert not told(settings, tmp_path / "work")
    assert not told(settings, tmp_path / "work")
    module.write_text(module.read_text() + "\n# better now\n")
    monkeypatch.delitem(sys.modules, "changing_part")
    assert str(module) in told(settings, tmp_path / "work")[0]
    assert not told(settings, tmp_path / "work")  # once


def test_a_memory_that_has_grown_is_told(table, tmp_path) -> None:
    other = {**config(table, type="random"), "search": {"evaluations": 12, "batch": 4, "ahead": 0}}
    nas.search(other, tmp_path / "other")
    settings = config(table, type="nasgem", initial=4, memory=[{"work_dir": str(tmp_path / "other")}])
    assert not told(settings, tmp_path / "work")
    other["search"]["evaluations"] = 16
    nas.search(other, tmp_path / "other", resume=True)
    assert "what is remembered (strategy.memory)" in told(settings, tmp_path / "work")[0]


def test_a_search_of_ours_keeps_no_digests(table, tmp_path) -> None:
    assert not told(config(table, type="random"), tmp_path / "work")
    assert not (tmp_path / "work" / "outside.json").exists()
