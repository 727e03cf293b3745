"""The table as evaluator."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from gemnet.cell_graph import CellGraph
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.evaluation.tabular import TabularEvaluator
from nas.spaces.base import Candidate
from nas.tables.read import read_table
from nas.tables.table import Table, TableError


def cell(*ops: str) -> CellGraph:
    return CellGraph(ops, frozenset({(0, 1), (0, 2), (1, 3), (2, 3)}))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    path = tmp_path / "mine.parquet"
    columns = {
        "graph": [json.dumps(cell(*ops).to_json()) for ops in (("a", "a"), ("a", "b"), ("b", "b"))],
        "long": [90.0, 92.0, 91.0],
        "short": [60.0, 50.0, 40.0],
        "seconds": [1000.0, 2000.0, 3000.0],
        "latency": [1.5, 2.5, 3.5],
        "macs": [1e6, 2e6, 3e6],
        "gap": [1.0, float("nan"), 2.0],
    }
    pa.parquet.write_table(pa.table(columns), path)
    return read_table(path)


def ask(evaluator: TabularEvaluator, *ops: str, epochs: int = 200) -> Evaluation:
    return evaluator.evaluate(Proposal(0, Candidate(cell(*ops)), Fidelity(epochs=epochs)))


def test_answers_with_all_that_the_table_knows(table: Table) -> None:
    evaluator = TabularEvaluator(table, {200: "long", 50: "short"}, seconds="seconds", extra=("latency",))
    full = ask(evaluator, "a", "b")
    assert (full.status, full.accuracy, full.seconds, full.macs, full.params) == ("ok", 92.0, 2000.0, 2e6, None)
    assert full.metrics == {"latency": 2.5}
    cheap = ask(evaluator, "a", "b", epochs=50)
    assert (cheap.accuracy, cheap.seconds) == (50.0, 500.0)
    assert evaluator.fidelity == Fidelity(epochs=200)
    assert evaluator.best() == 92.0


def test_isomorphic_cell_is_the_same_cell(table: Table) -> None:
    assert ask(TabularEvaluator(table, {200: "long"}), "b", "a").accuracy == 92.0


def test_what_the_table_lacks_is_a_failed_evaluation(table: Table) -> None:
    evaluator = TabularEvaluator(table, {200: "long"})
    other = evaluator.evaluate(Proposal(0, Candidate(CellGraph(("a",), frozenset({(0, 1), (1, 2)}))), Fidelity(200)))
    assert (other.status, other.accuracy) == ("failed", None)
    assert "no such cell" in other.reason
    early = ask(evaluator, "a", "b", epochs=12)
    assert early.status == "failed"
    assert "after 200 epochs, not 12" in early.reason


def test_unknown_and_incomplete_metrics_are_refused(table: Table) -> None:
    with pytest.raises(TableError, match="Did you mean 'long'"):
        TabularEvaluator(table, {200: "lonk"})
    with pytest.raises(TableError, match="row 1"):
        TabularEvaluator(table, {200: "gap"})


def test_fingerprint_follows_content_and_columns(table: Table) -> None:
    prints = {
        TabularEvaluator(table, {200: "long"}).fingerprint,
        TabularEvaluator(table, {200: "short"}).fingerprint,
        TabularEvaluator(table, {100: "long"}).fingerprint,
        TabularEvaluator(
            Table(table.name, table.space, table.batch, table.metrics, "other"), {200: "long"}
        ).fingerprint,
    }
    assert len(prints) == 4
    assert TabularEvaluator(table, {200: "long"}).fingerprint in prints
