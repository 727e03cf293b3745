"""Cheap queries: the same budget with and without short trainings, whose cost counts.

A query costs its share of a full training's epochs: 12 of 200 epochs cost 0.06 queries. Regret is that of the best
candidate with a *full* training so far, against what has been spent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.benchmark.runs import BenchmarkError
from nas.benchmark.search import steps_to_text
from nas.evaluators.tabular import TabularEvaluator
from nas.strategies import make_strategy
from nas.tables.table import Table

KEY = ("table", "fingerprint", "metric", "cheap_metric", "cheap_epochs", "cheap", "queries", "initial", "batch", "seed")
COLUMNS = ("cpu_seconds", "regrets")
# Full training's epochs, and the columns of shorter ones by their epochs.
LADDERS: dict[str, tuple[int, dict[str, dict[int, str]]]] = {
    "nasbench201": (
        200,
        {f"{data}_valid_200ep_1seed": {12: f"{data}_valid_12ep"} for data in ("c10", "c100", "in16")},
    ),
    "nasbench101": (108, {"108ep_valid": {4: "4ep_valid", 12: "12ep_valid", 36: "36ep_valid"}}),
}


@dataclass(frozen=True)
class FidelityTask:
    """One run of nasgem.

    Args:
        metric: column of full trainings.
        cheap_metric: column of short ones; "" searches without any.
        cheap_epochs: their epochs.
        cheap: how many short ones come first; 0 without any.
        epochs: of full trainings.
        seed: of the search.
        queries: budget, in full trainings.
        initial, batch: the protocol.
    """

    metric: str
    cheap_metric: str
    cheap_epochs: int
    cheap: int
    epochs: int
    seed: int
    queries: int = 60
    initial: int = 10
    batch: int = 5

    def key(self, table: Table) -> dict[str, object]:
        """What names this run in a results file."""
        own = {name: getattr(self, name) for name in KEY if hasattr(self, name)}
        return {"table": table.name, "fingerprint": table.fingerprint, **own}


def fidelity_tasks(space: str, metric: str, epochs: int, cheap: int, seeds: int, queries: int) -> list[FidelityTask]:
    """Runs with and without short trainings of so many epochs.

    Raises:
        BenchmarkError: the table has no such short trainings.
    """
    full, ladders = LADDERS.get(space, (0, {}))
    columns = ladders.get(metric, {})
    if epochs not in columns:
        known = ", ".join(f"{m} after {', '.join(str(e) for e in c)} epochs" for m, c in ladders.items()) or "none"
        raise BenchmarkError(f"There are no results of {metric!r} after {epochs} epochs. Known: {known}.")
    return [
        task
        for seed in range(seeds)
        for task in (
            FidelityTask(metric, columns[epochs], epochs, cheap, full, seed, queries),
            FidelityTask(metric, "", 0, 0, full, seed, queries),
        )
    ]


def run_fidelity(table: Table, task: FidelityTask) -> dict[str, object]:
    """One search; returns the values of `COLUMNS`. ``regrets`` is a step curve over tenths of a full query spent."""
    started = time.process_time()
    columns = {task.epochs: task.metric} | ({task.cheap_epochs: task.cheap_metric} if task.cheap else {})
    evaluator = TabularEvaluator(table, columns)
    options: dict[str, Any] = {"cheap_epochs": task.cheap_epochs, "cheap": task.cheap} if task.cheap else {}
    strategy = make_strategy(
        "nasgem", table.space, task.seed, fidelity=evaluator.fidelity, initial=task.initial, **options
    )
    # Before the first full training, what is in hand is no better than the worst cell.
    curve = np.full(10 * task.queries, evaluator.best() - table.metric(task.metric).min())
    spent, best = 0.0, -np.inf
    first = True
    while spent < task.queries and best < evaluator.best():
        evaluations = [evaluator.evaluate(p) for p in strategy.ask(task.initial if first else task.batch)]
        first = False
        strategy.tell(evaluations)
        for evaluation in evaluations:
            epochs = evaluation.proposal.fidelity.epochs
            spent += epochs / task.epochs
            if epochs == task.epochs and evaluation.accuracy is not None:
                best = max(best, evaluation.accuracy)
                curve[int(np.ceil(10 * spent - 1e-9)) - 1 :] = evaluator.best() - best
    return {"cpu_seconds": f"{time.process_time() - started:.2f}", "regrets": steps_to_text(curve)}
