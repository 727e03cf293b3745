"""Where a memory comes from: tables, work folders, ledgers as tables; and what is no memory."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemnet.errors import GemnetError
from nas.evaluation.csv_table import read_evaluations, write_evaluations
from nas.evaluation.ledger import Ledger
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.evaluation.remembered import MemorySource, RecallError, remembered
from nas.spaces.choices import ChoiceSpace
from nas.tables.read import read_table

SPACE = ChoiceSpace({"depth": [1, 2, 3, 4], "width": [8, 16, 32]})
EVERYTHING = [SPACE.unpack(SPACE.all(), row) for row in range(12)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["choices", "accuracy", "other", "gaps"])
        for row, each in enumerate(EVERYTHING):
            choices = ", ".join(f"{name}={value}" for name, value in each.macro)
            writer.writerow([choices, 70 + row, 90 - row, "" if row == 3 else row])
    return path


def evaluations(fidelities: tuple[int, ...] = (5,)) -> list[tuple[Evaluation, str]]:
    found = []
    for epochs in fidelities:
        for row, candidate in enumerate(EVERYTHING):
            proposal = Proposal(len(found), candidate, Fidelity(epochs))
            failed = Evaluation(proposal, "failed", None, reason="NaN loss")
            done = Evaluation(proposal, "ok", 50.0 + row, metrics={"latency": 9.0 - row / 2})
            found.append((failed if row == 7 else done, "an evaluator"))
    return found


def test_costs_are_read_as_they_were_written(tmp_path: Path) -> None:
    proposal = Proposal(0, EVERYTHING[0], Fidelity(5))
    costs = [(5.74, 0.19), (5e6, None), (1 / 3, 12345678.0)]
    write_evaluations(tmp_path / "e.csv", ((Evaluation(proposal, "ok", 90.0, *each), "x") for each in costs))
    assert [(each.macs, each.params) for each, _ in read_evaluations(tmp_path / "e.csv")] == costs
    assert ",5000000,," in (tmp_path / "e.csv").read_text()


def test_a_tables_column_is_a_task(table: Path) -> None:
    task = remembered([MemorySource(table=str(table), metric="other")], SPACE)[0]
    assert [SPACE.unpack(task.batch, row) for row in range(12)] == EVERYTHING
    assert task.scores.tolist() == [90 - row for row in range(12)]


def test_a_gap_in_a_column_is_left_out(table: Path) -> None:
    task = remembered([MemorySource(table=str(table), metric="gaps")], SPACE)[0]
    assert len(task.batch) == len(task.scores) == 11


def test_what_is_searched_may_be_a_table_without_what_is_remembered(table: Path) -> None:
    lines = table.read_text().splitlines()
    small = table.with_name("small.csv")
    small.write_text("\n".join([lines[0], *lines[1::2]]))
    searched = read_table(small, base=SPACE).space
    assert len(remembered([MemorySource(table=str(table), metric="other")], searched)[0].batch) == 12


def test_ledgers_are_read_from_work_folders_and_tables(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        for each, evaluator in evaluations():
            ledger.record(each, evaluator)
    write_evaluations(tmp_path / "first.csv", evaluations())
    sources = [MemorySource(work_dir=str(tmp_path)), MemorySource(ledger=str(tmp_path / "first.csv"))]
    folder, file = remembered(sources, SPACE)
    assert folder.scores.tolist() == file.scores.tolist() == [50 + row for row in range(12) if row != 7]
    (latency,) = remembered([MemorySource(work_dir=str(tmp_path), metric="latency")], SPACE)
    assert latency.scores[0] == 9


def test_fidelities_of_a_ledger_are_tasks_each(tmp_path: Path) -> None:
    write_evaluations(tmp_path / "first.csv", evaluations((5, 20)))
    assert [len(task.scores) for task in remembered([MemorySource(ledger=str(tmp_path / "first.csv"))], SPACE)] == [
        11,
        11,
    ]


def test_a_control_has_the_same_values_elsewhere_by_the_searchs_seed(table: Path) -> None:
    source = MemorySource(table=str(table), metric="other", shuffled=True)
    first, again, other = (remembered([source], SPACE, seed)[0].scores for seed in (1, 1, 2))
    assert sorted(first) == sorted(other) == [79 + row for row in range(12)]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "a table, a work_dir or a ledger"),
        ({"table": "mine.csv", "work_dir": "."}, "got table and work_dir"),
        ({"table": "mine.csv"}, "needs metric"),
        ({"table": "mine.csv", "metric": "othr"}, "'other'"),
        ({"table": "none.csv", "metric": "other"}, "no table at none.csv"),
        ({"work_dir": "."}, "no ledger.db"),
        ({"ledger": "first.csv", "metric": "latncy"}, "'latency'"),
        ({"ledger": "few.csv"}, "4 evaluations that went well; a memory takes at least 10"),
    ],
)
def test_what_is_no_memory_is_said(
    given: dict[str, Any], words: str, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    write_evaluations(Path("first.csv"), evaluations())
    write_evaluations(Path("few.csv"), evaluations()[:4])
    with pytest.raises(GemnetError, match=words):
        remembered([MemorySource(**given)], SPACE)


@pytest.mark.parametrize("space", [ChoiceSpace({"depth": [1, 2], "width": [8, 16, 32]}), ChoiceSpace({"kernel": [3]})])
def test_candidates_of_another_space_are_no_memory(space: ChoiceSpace, table: Path) -> None:
    with pytest.raises(RecallError, match="of another space than 'choices'"):
        remembered([MemorySource(table=str(table), metric="other")], space)
