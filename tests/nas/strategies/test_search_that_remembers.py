"""A search that remembers: it begins near the best, goes on alike when resumed, and loses nothing by false memories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemnet.strict import ConfigError
from nas.evaluation.records import Fidelity
from nas.evaluation.tabular import TabularEvaluator
from nas.spaces.gemnet import GEMNetSpace
from nas.strategies import HistoryStrategy, make_strategy
from nas.tables.read import read_table
from nas.tables.table import Table


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """243 networks of five layers and their accuracies on two data sets, which agree but for noise."""
    rng = np.random.default_rng(0)
    worth = rng.normal(size=(5, 3))
    rows = [[int(digit) for digit in np.base_repr(k, 3).zfill(5)] for k in range(243)]
    lines = ["choices,here,elsewhere"]
    for row in rows:
        true = sum(worth[k, value] for k, value in enumerate(row))
        choices = ", ".join(f"layer{k}=op{value}" for k, value in enumerate(row))
        lines.append(f'"{choices}",{70 + true + rng.normal(0, 0.2):.4f},{true + rng.normal(0, 0.2):.4f}')
    path = tmp_path_factory.mktemp("memory") / "mine.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def table(path: Path) -> Table:
    return read_table(path)


def build(table: Table, seed: int = 0, **options: Any) -> tuple[HistoryStrategy, TabularEvaluator]:
    evaluator = TabularEvaluator(table, {1: "here"})
    return make_strategy("nasgem", table.space, seed, fidelity=evaluator.fidelity, **options), evaluator


def searched(table: Table, queries: int, seed: int = 0, **options: Any) -> list[float]:
    strategy, evaluator = build(table, seed, **options)
    found: list[float] = []
    while len(found) < queries:
        evaluations = [evaluator.evaluate(proposal) for proposal in strategy.ask(5)]
        strategy.tell(evaluations)
        found += [each.accuracy for each in evaluations if each.accuracy is not None]
    return found


def test_half_of_the_start_is_what_the_memory_holds_best(table: Table, path: Path) -> None:
    strategy, evaluator = build(table, memory=[{"table": str(path), "metric": "elsewhere"}])
    start = [evaluator.evaluate(proposal).accuracy or 0.0 for proposal in strategy.ask(10)]
    good = np.quantile(table.metric("here"), 0.95)
    assert min(start[:5]) > good > min(start[5:])


def test_it_finds_good_ones_sooner(table: Table, path: Path) -> None:
    memory = [{"table": str(path), "metric": "elsewhere"}]
    cold, warm = (
        [max(searched(table, 15, seed, **options)) for seed in range(4)] for options in ({}, {"memory": memory})
    )
    assert np.mean(warm) > np.mean(cold)
    assert np.mean(warm) > np.sort(table.metric("here"))[-4]


def test_shuffled_memories_end_where_none_do(table: Table, path: Path) -> None:
    memory = [{"table": str(path), "metric": "elsewhere", "shuffled": True}]
    for seed in range(3):
        assert max(searched(table, 40, seed, memory=memory)) >= np.sort(table.metric("here"))[-3]


def test_a_search_told_again_goes_on_alike(table: Table, path: Path) -> None:
    memory = [{"table": str(path), "metric": "elsewhere"}]
    whole, evaluator = build(table, memory=memory)
    told = []
    for _ in range(3):
        told += [evaluator.evaluate(proposal) for proposal in whole.ask(5)]
        whole.tell(told[-5:])
    again, _ = build(table, memory=memory)
    again.tell(told)
    assert again.ask(5) == whole.ask(5)


def test_memory_and_doubt_take_turns_in_a_batch(table: Table, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, _ = build(table, memory=[{"table": str(path), "metric": "elsewhere"}])
    orders = iter([np.array([0, 1, 2, 3]), np.array([3, 2, 1, 0])])  # with what is remembered, and without
    monkeypatch.setattr(strategy, "_ranked", lambda *_: next(orders))
    nothing: Any = None  # of what is ranked: the orders are given
    assert strategy.rank(nothing, nothing, nothing, 4, np.random.default_rng(0)).tolist() == [0, 3, 1, 2]


def test_a_space_that_can_not_be_listed_remembers_too(tmp_path: Path) -> None:
    space = GEMNetSpace(form="cifar", size="a", max_nodes=6)
    batch = space.sample(40, np.random.default_rng(0))
    rows = ["number,training_seed,epochs,resolution,subset,status,dev_accuracy,macs,params,seconds,evaluator,candidate"]
    for row in range(40):
        candidate = space.unpack(batch, row)
        data = json.dumps(candidate.to_json()).replace('"', '""')
        rows.append(f'{row},0,5,,1.0,ok,{len(candidate.cell.edges)},,,1,x,"{data}"')
    (tmp_path / "first.csv").write_text("\n".join(rows))
    memory = [{"ledger": str(tmp_path / "first.csv")}]
    strategy = make_strategy(
        "nasgem", space, 0, fidelity=Fidelity(epochs=5), encoder=None, pool_size=300, memory=memory, signals=0
    )
    edges = [len(proposal.candidate.cell.edges) for proposal in strategy.ask(10)]
    assert np.mean(edges[:5]) > np.mean(edges[5:])


@pytest.mark.parametrize("memory", [{"table": "mine.csv"}, [{"tabel": "mine.csv"}], [{"table": "mine.csv"}]])
def test_a_memory_that_makes_no_sense_is_a_config_error(table: Table, memory: object) -> None:
    with pytest.raises(ConfigError, match=r"nasgem\.memory"):
        build(table, memory=memory)
