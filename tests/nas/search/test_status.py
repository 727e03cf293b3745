"""How far searches are, told while they run and after, from their folders and from a shared ledger."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from gemnet.folder_lock import FolderLock
from nas.commands.search import main
from nas.evaluation.ledger import Ledger
from nas.evaluation.records import Evaluation
from nas.evaluation.tabular import TabularEvaluator
from nas.search import explore as explore_module
from nas.search.status import status_of_folder, statuses_of_ledger

CONFIG = """
space = dict(type='own')
strategy = dict(type='evolution', initial=4)
evaluator = dict(type='tabular', path='own.csv', accuracy='accuracy')
fidelity = dict(epochs=1)
search = dict(evaluations=10, batch=4, ahead=0)
confirm = dict(top=0)
"""


@pytest.fixture(autouse=True)
def _table(tmp_path, monkeypatch) -> None:
    """A table of 30 cells and a config that searches in it."""
    monkeypatch.chdir(tmp_path)
    sizes = [(n, m) for n in range(1, 6) for m in range(6)]
    cells = [{"ops": ["a"] * n + ["b"] * m, "edges": [[k, k + 1] for k in range(n + m + 1)]} for n, m in sizes]
    with open("own.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["graph", "accuracy"])
        writer.writerows([json.dumps(cell), 50 + k % 7 + k / 10] for k, cell in enumerate(cells))
    Path("own.py").write_text(CONFIG)


def test_a_finished_search_says_so_and_asking_writes_nothing(capsys) -> None:
    assert main(["own.py", "--work-dir", "work"]) == 0
    found = status_of_folder(Path("work"))
    assert (found.evaluated, found.wanted, found.finished, found.driver) == (10, 10, True, None)
    assert found.best is not None
    capsys.readouterr()
    before = {item: item.read_bytes() for item in Path("work").iterdir()}
    assert main(["--status", "work"]) == 0
    printed = capsys.readouterr().out
    assert "work: 10 of 10 evaluated" in printed
    assert "finished" in printed
    assert {item: item.read_bytes() for item in Path("work").iterdir()} == before
    lock = FolderLock(Path("work"))
    lock.acquire()
    assert status_of_folder(Path("work")).driven
    lock.release()


def test_a_folder_that_is_not_there_is_named_as_one(capsys) -> None:
    assert main(["--status", "work_dirs/first"]) == 2
    assert "There is no work folder and no ledger work_dirs/first" in capsys.readouterr().err


def test_failures_are_counted_by_reason_and_tried_again_only_when_asked(monkeypatch) -> None:
    real = TabularEvaluator.evaluate

    def fail(self, proposal):
        if proposal.number % 3 == 0:
            return Evaluation(proposal, "failed", None, reason="over the time limit of 5 s")
        return real(self, proposal)

    with monkeypatch.context() as patched:
        patched.setattr(TabularEvaluator, "evaluate", fail)
        assert main(["own.py", "--work-dir", "work"]) == 0
    failed = status_of_folder(Path("work")).failures.total()
    assert status_of_folder(Path("work")).failures == {"over the time limit of 5 s": failed}
    assert failed >= 3
    assert main(["own.py", "--work-dir", "work", "--resume"]) == 0
    assert status_of_folder(Path("work")).failures.total() == failed  # what is recorded stays
    assert main(["own.py", "--work-dir", "work", "--resume", "--retry-failed"]) == 0
    assert not status_of_folder(Path("work")).failures
    with Ledger("work/ledger.db", read_only=True) as ledger:
        keys = [each.proposal.candidate.key() for each in ledger.evaluations()]
    assert len(keys) == len(set(keys))


def test_searches_that_share_a_ledger_are_listed_and_exported(capsys) -> None:
    for name, seed in (("one", "1"), ("two", "2")):
        assert main(["own.py", "--work-dir", name, "--seed", seed, "--storage", "shared.db"]) == 0
        assert not Path(name, "ledger.db").exists()
    assert [each.evaluated for each in statuses_of_ledger("shared.db")] == [10, 10]
    capsys.readouterr()
    assert main(["--list", "shared.db"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert sorted(line.split(" (")[0] for line in lines) == ["one", "two"]
    assert main(["--status", "shared.db"]) == 0
    assert main(["--work-dir", "one", "--export-csv", "one.csv"]) == 0
    assert main(["--storage", "shared.db", "--export-csv", "all.csv"]) == 0
    with open("one.csv") as one, open("all.csv") as everything:
        assert len(list(csv.DictReader(one))) == 10
        assert len(list(csv.DictReader(everything))) > 10


def test_a_searchs_name_is_a_name_whatever_it_says(capsys) -> None:
    """SQL stays text in the ledger, escape sequences don't reach the terminal, markup doesn't reach the page."""
    name = "'); drop table evaluations; --\x1b[2J<script>document.title=1<"
    assert main(["own.py", "--work-dir", name, "--storage", "shared.db"]) == 0
    assert main(["--list", "shared.db"]) == 0
    printed = capsys.readouterr()
    assert "drop table evaluations" in printed.out
    assert "\x1b[2J" not in printed.out + printed.err
    assert "<script>document.title" not in Path(name, "report.html").read_text()
    with Ledger("shared.db", read_only=True) as ledger:
        assert [each.name for each in ledger.searches()] == [name]
        assert len(ledger.evaluations()) == 10


def test_nothing_is_exported_from_nothing(capsys) -> None:
    Path("empty.db").touch()
    Ledger("new.db").close()
    for arguments in (
        ["--storage", "empty.db", "--export-csv", "out.csv"],
        ["--storage", "new.db", "--export-csv", "out.csv"],
        ["--storage", "absent.db", "--export-csv", "out.csv"],
        ["--work-dir", "absent", "--export-csv", "out.csv"],
        ["--export-csv", "out.csv"],
        ["--status", "absent"],
        ["--list", "absent.db"],
    ):
        assert main(arguments) == 2, arguments
        assert len(capsys.readouterr().err.strip().splitlines()) == 1, arguments
    assert not Path("out.csv").exists()
    assert not Path("absent.db").exists()


def test_a_search_whose_ledger_was_lost_trains_nothing_again(capsys) -> None:
    assert main(["own.py", "--work-dir", "work"]) == 0
    before = Path("work/summary.json").read_bytes()
    Path("work/ledger.db").unlink()
    assert main(["own.py", "--work-dir", "work", "--resume"]) == 2
    assert "holds 0 evaluations, but this search had 10" in capsys.readouterr().err
    assert Path("work/summary.json").read_bytes() == before


def test_a_budget_below_the_first_random_ones_is_said_and_trains_no_encoder(capsys, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an encoder is trained")

    monkeypatch.setattr(explore_module, "prepare_strategy", refuse)
    assert main(["own.py", "--work-dir", "work", "--budget", "4", "--cfg-options", "strategy.initial=4"]) == 0
    assert "All 4 candidates will be random" in capsys.readouterr().out
