"""The ledger: what is recorded stays, under a key that isomorphic candidates share."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace

import pytest

from gemnet.cell_graph import CellGraph
from nas.evaluation.ledger import Ledger, LedgerError
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.spaces.base import Candidate

# 0 -> {1: a, 2: b} -> 3, and the same with the two branches numbered the other way round.
CELL = CellGraph(("a", "b"), frozenset({(0, 1), (0, 2), (1, 3), (2, 3)}))
TWIN = CellGraph(("b", "a"), frozenset({(0, 1), (0, 2), (1, 3), (2, 3)}))
MACRO = (("width", 0.5), ("act", "relu"), ("bias", None), ("wide", True))


def proposal(number: int = 0, cell: CellGraph = CELL, **changes) -> Proposal:
    return replace(Proposal(number, Candidate(cell, MACRO), Fidelity(3, 32, 0.5), 7), **changes)


def result(of: Proposal, accuracy: float = 91.25) -> Evaluation:
    return Evaluation(of, "ok", accuracy, 1e6, 2e4, 12.5, metrics={"loss": 0.25})


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as made:
        yield made


def test_what_is_recorded_is_found_again_by_another_process(tmp_path) -> None:
    with Ledger(tmp_path / "ledger.db") as first:
        first.record(result(proposal()), "evaluator")
        first.record(Evaluation(proposal(1, training_seed=8), "failed", None, reason="NaN loss"), "evaluator")
    with Ledger(tmp_path / "ledger.db") as second:
        assert second.find(proposal(), "evaluator") == result(proposal())
        failed = second.find(proposal(5, training_seed=8), "evaluator")
        assert failed is not None
        assert (failed.status, failed.reason, failed.accuracy) == ("failed", "NaN loss", None)
        assert [each.accuracy for each in second.evaluations()] == [91.25, None]
        assert second.evaluations("another") == []


def test_isomorphic_candidates_share_a_key_and_order_of_macro_choices_does_not_matter(ledger) -> None:
    ledger.record(result(proposal()), "evaluator")
    twin = proposal(9, candidate=Candidate(TWIN, tuple(reversed(MACRO))))
    found = ledger.find(twin, "evaluator")
    assert found == replace(result(proposal()), proposal=twin)


@pytest.mark.parametrize(
    "other",
    [
        proposal(candidate=Candidate(CellGraph(("a", "a"), CELL.edges), MACRO)),
        proposal(candidate=Candidate(CELL, (("width", 0.75), *MACRO[1:]))),
        proposal(fidelity=Fidelity(4, 32, 0.5)),
        proposal(fidelity=Fidelity(3, None, 0.5)),
        proposal(fidelity=Fidelity(3, 32, 1.0)),
        proposal(training_seed=8),
    ],
)
def test_each_part_of_the_key_counts(ledger, other) -> None:
    ledger.record(result(proposal()), "evaluator")
    assert ledger.find(other, "evaluator") is None
    assert ledger.find(proposal(), "another evaluator") is None


def test_first_result_under_a_key_stays(ledger) -> None:
    assert ledger.record(result(proposal(), 90.0), "evaluator").accuracy == 90.0
    again = ledger.record(result(proposal(3), 95.0), "evaluator")
    assert (again.accuracy, again.proposal.number) == (90.0, 3)
    assert len(ledger.evaluations()) == 1


def test_proposals_come_back_by_number_and_numbers_are_taken_once(ledger) -> None:
    made = [proposal(n, training_seed=n) for n in range(3)]
    ledger.propose("search", made[2:])
    ledger.propose("search", made[:2])
    ledger.propose("other search", [proposal(0)])
    ledger.propose("search", [])
    assert ledger.proposals("search") == made
    with pytest.raises(LedgerError, match="Is another process driving the same search"):
        ledger.propose("search", [proposal(3), proposal(1)])
    assert ledger.proposals("search") == made  # all or none


def test_sqlite_syncs_at_every_commit_and_can_be_read_while_written(ledger, tmp_path) -> None:
    with ledger._connection.begin():
        assert ledger._connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert ledger._connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    reader = sqlite3.connect(tmp_path / "ledger.db")
    ledger.record(result(proposal()), "evaluator")
    assert reader.execute("SELECT accuracy FROM evaluations").fetchall() == [(91.25,)]
    reader.close()


def test_what_is_no_ledger_is_refused(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but long enough to look like one " * 100)
    with pytest.raises(LedgerError, match="Cannot open the ledger"):
        Ledger(tmp_path / "notes.txt")
    with pytest.raises(LedgerError, match="Cannot open the ledger"):
        Ledger(tmp_path / "absent" / "ledger.db")
    with pytest.raises(LedgerError, match="Cannot open the ledger"):
        Ledger("nosuchdialect://host/database")
    for url in ("postgresql://me@host:port/database", "://x"):
        with pytest.raises(LedgerError, match="Cannot open the ledger"):
            Ledger(url)


@pytest.mark.parametrize("table", ["birds", "evaluations"])
def test_a_database_of_something_else_is_left_alone(table, tmp_path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute(f"CREATE TABLE {table} (name TEXT, wings INTEGER)")
    with pytest.raises(LedgerError, match="is no ledger"):
        Ledger(path)
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [(table,)]


@pytest.mark.parametrize(
    "url", ["postgresql+nosuchdriver://me:secret@host/base", "postgresql://me:secret@host:port/base"]
)
def test_password_of_a_url_is_not_shown(url) -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger(url)
    assert "host" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(
    "GEMNET_TEST_POSTGRES" not in os.environ,
    reason="set GEMNET_TEST_POSTGRES=postgresql+psycopg2://user@host/database to test against a server",
)
def test_postgresql_keeps_the_same_promises() -> None:
    url = os.environ["GEMNET_TEST_POSTGRES"]
    evaluator = f"test {os.getpid()}"
    with Ledger(url) as ledger:
        assert ledger.record(result(proposal(), 90.0), evaluator).accuracy == 90.0
        assert ledger.record(result(proposal(), 95.0), evaluator).accuracy == 90.0
        ledger.propose(evaluator, [proposal(0), proposal(1)])
        assert ledger.proposals(evaluator) == [proposal(0), proposal(1)]
        with pytest.raises(LedgerError):
            ledger.propose(evaluator, [proposal(1)])
        assert ledger.proposals(evaluator) == [proposal(0), proposal(1)]
