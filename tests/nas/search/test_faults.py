"""What a search survives: a full disk, a database that is stopped and started again."""

from __future__ import annotations

import csv
import json
import os
import resource
import sys
import threading
from pathlib import Path

import pytest
from fork_server import fork_server

from nas.commands.search import main
from nas.evaluation.ledger import Ledger
from nas.evaluation.tabular import TabularEvaluator
from nas.search.status import statuses_of_ledger

CONFIG = """
space = dict(type='own')
strategy = dict(type='evolution', initial=4)
evaluator = dict(type='tabular', path='own.csv', accuracy='accuracy')
fidelity = dict(epochs=1)
search = dict(evaluations=40, batch=4, ahead=0)
confirm = dict(top=0)
"""


@pytest.fixture(autouse=True)
def _table(tmp_path, monkeypatch) -> None:
    """A table of 56 cells and a config that searches in it."""
    monkeypatch.chdir(tmp_path)
    sizes = [(n, m) for n in range(1, 8) for m in range(8)]
    cells = [{"ops": ["a"] * n + ["b"] * m, "edges": [[k, k + 1] for k in range(n + m + 1)]} for n, m in sizes]
    with open("own.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["graph", "accuracy"])
        writer.writerows([json.dumps(cell), 50 + k % 7 + k / 10] for k, cell in enumerate(cells))
    Path("own.py").write_text(CONFIG)


def chosen(folder: str) -> dict:
    return json.loads(Path(folder, "summary.json").read_text())["chosen"]


def _search_on_a_full_disk(folder: Path) -> None:
    """No file may grow beyond 80 KiB: the ledger's log of writes does so in the middle of the search."""
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (80 * 1024, 80 * 1024))
    with open("said.txt", "w") as said:
        os.dup2(said.fileno(), 2)
        sys.exit(main(["own.py", "--work-dir", "work"]))


def test_a_full_disk_is_one_message_and_the_search_goes_on_when_there_is_room(tmp_path) -> None:
    assert main(["own.py", "--work-dir", "whole"]) == 0
    process = fork_server().Process(target=_search_on_a_full_disk, args=(tmp_path,))
    process.start()
    process.join()
    said = (tmp_path / "said.txt").read_text()
    assert process.exitcode == 2, said
    last = said.strip().splitlines()[-1]
    assert "error: The ledger" in last
    assert "--resume" in last
    assert "Traceback" not in said
    with Ledger("work/ledger.db", read_only=True) as ledger:
        before = len(ledger.evaluations())
    assert 0 < before < 40
    assert main(["own.py", "--work-dir", "work", "--resume"]) == 0
    assert chosen("work") == chosen("whole")


def test_a_search_goes_on_when_its_database_was_stopped_and_started_again(postgres, monkeypatch, capsys) -> None:
    assert main(["own.py", "--work-dir", "whole"]) == 0
    real, stopped = TabularEvaluator.evaluate, []

    def evaluate(self, proposal):
        if proposal.number == 6 and not stopped:
            postgres.stop()
            stopped.append(threading.Timer(1.0, postgres.start))
            stopped[0].start()
        return real(self, proposal)

    monkeypatch.setattr(TabularEvaluator, "evaluate", evaluate)
    url = postgres.database()
    assert main(["own.py", "--work-dir", "work", "--storage", url]) == 0
    stopped[0].join()
    printed = capsys.readouterr().out
    assert "Trying again" in printed
    assert "answers again" in printed
    assert [each.evaluated for each in statuses_of_ledger(url)] == [40]
    assert chosen("work") == chosen("whole")
    assert url not in "".join(item.read_text(errors="replace") for item in Path("work").iterdir() if item.is_file())
