"""A work folder and a ledger that version 0.1.0 wrote, before its modules were moved, go on working.

`written_before/` holds a search of 20 evaluations in a table (`ledger.sql` is SQLite's dump of its ledger.db), and the
evaluations of the same search left alone until 35 (`whole.csv`).
"""

from __future__ import annotations

import csv
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nas.commands import export as export_command
from nas.commands import search as search_command

BEFORE = Path(__file__).with_name("written_before")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folder as it was left, beside its table and config; the current folder is the one around it."""
    monkeypatch.chdir(tmp_path)
    for name in ("table.csv", "search.py"):
        shutil.copy(BEFORE / name, tmp_path)
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(BEFORE / "search.json", folder)
    with closing(sqlite3.connect(folder / "ledger.db")) as database:
        database.executescript((BEFORE / "ledger.sql").read_text(encoding="utf-8"))
    return folder


def rows(table: Path) -> list[dict[str, str]]:
    """What the old version wrote; columns that came later are empty here."""
    with open(table, encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert all(row.pop(later, "") == "" for row in found for later in ("latency_ms", "metrics"))
    return found


def test_a_resumed_search_goes_on_as_the_old_version_would_have(work: Path) -> None:
    command = ["search.py", "--work-dir", "work", "--resume", "--evaluations", "35"]
    assert search_command.main(command) == 0
    assert export_command.main(["work", "--ledger", "again.csv"]) == 0
    assert rows(Path("again.csv")) == rows(BEFORE / "whole.csv")


def test_what_was_evaluated_is_read_and_not_evaluated_again(work: Path) -> None:
    assert search_command.main(["search.py", "--work-dir", "work", "--resume"]) == 0
    assert export_command.main(["work", "--ledger", "again.csv"]) == 0
    assert rows(Path("again.csv")) == rows(BEFORE / "whole.csv")[:20]
    with closing(sqlite3.connect(work / "ledger.db")) as database:
        assert database.execute("SELECT COUNT(*) FROM evaluations").fetchone() == (20,)


def test_another_search_begins_with_its_evaluations(work: Path) -> None:
    command = ["search.py", "--work-dir", "next", "--cfg-options", "search.start_from=work"]
    assert search_command.main(command) == 0
    assert export_command.main(["next", "--ledger", "next.csv"]) == 0
    assert rows(Path("next.csv")) == rows(BEFORE / "whole.csv")[:20]
