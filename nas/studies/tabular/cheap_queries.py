"""Cheap queries: the same budget with and without short trainings, whose cost counts.

A query costs its share of a full training's epochs: 12 of 200 epochs cost 0.06 queries. Regret is that of the best
candidate with a *full* training so far, against what has been spent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from nas.evaluation.statistics import interval_columns, mean_interval, paired_difference
from nas.evaluation.tabular import TabularEvaluator
from nas.strategies import make_strategy
from nas.studies.tabular.runs import BenchmarkError, Study, run_key, text_table
from nas.studies.tabular.search import steps_to_text, text_to_steps
from nas.studies.tabular.sources import DEFAULT_METRICS, open_table
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
class CheapQueriesTask:
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
        return run_key(self, table, KEY)


def cheap_query_tasks(
    space: str, metric: str, epochs: int, cheap: int, seeds: int, queries: int
) -> list[CheapQueriesTask]:
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
            CheapQueriesTask(metric, columns[epochs], epochs, cheap, full, seed, queries),
            CheapQueriesTask(metric, "", 0, 0, full, seed, queries),
        )
    ]


def run_cheap_queries(table: Table, task: CheapQueriesTask) -> dict[str, object]:
    """One search; returns the values of `COLUMNS`. ``regrets`` is a step curve over tenths of a full query spent."""
    started = time.process_time()
    columns = {task.epochs: task.metric} | ({task.cheap_epochs: task.cheap_metric} if task.cheap else {})
    evaluator = TabularEvaluator(table, columns)
    options: dict[str, Any] = {"cheap_epochs": task.cheap_epochs, "cheap": task.cheap} if task.cheap else {}
    strategy = make_strategy(
        "nasgem", table.space, task.seed, fidelity=evaluator.fidelity, initial=task.initial, **options
    )
    strategy.prepare()
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


def report_cheap_queries(
    console: Console,
    *,
    space: str,
    path: str | None,
    metric: str | None,
    epochs: int,
    cheap: int,
    queries: int,
    seeds: int,
    workers: int | None,
    folder: Path,
) -> None:
    """nasgem with and without short trainings at equal cost: prints, writes ``fidelity.csv`` and its summary.

    Args:
        console: where progress and tables go.
        space, path: see `open_table`.
        metric: of full trainings; None takes the space's first.
        epochs, cheap: of short trainings, and how many come first.
        queries: budget in full trainings.
        seeds: runs of each.
        workers: processes; None takes all cores.
        folder: where the files go.
    """
    table = open_table(space, path)
    study = Study(console, table, partial(open_table, space, path), workers, folder)
    tasks = cheap_query_tasks(space, metric or DEFAULT_METRICS[space][0], epochs, cheap, seeds, queries)
    for column in {column for task in tasks for column in (task.metric, task.cheap_metric) if column}:
        table.metric(column)
    rows = study.run(
        "fidelity.csv",
        KEY,
        COLUMNS,
        tasks,
        run_cheap_queries,
        lambda task: f"{task.cheap} cheap, seed {task.seed}",
    )
    checkpoints = [k for k in (10, 20, 30, 40, 50, 100, 150) if k < queries] + [queries]
    values = {
        wanted: {
            int(row["seed"]): text_to_steps(row["regrets"], 10 * queries) for row in rows if int(row["cheap"]) == wanted
        }
        for wanted in (cheap, 0)
    }
    title = f"{tasks[0].metric}: mean regret after so many full trainings' cost"
    text = text_table(title, ("", *(f"@{k}" for k in checkpoints)))
    summary: list[dict[str, object]] = []
    names = {cheap: f"{cheap} trainings of {epochs} epochs first", 0: "full trainings only"}
    for wanted, found in values.items():
        intervals = {k: mean_interval([curve[10 * k - 1] for curve in found.values()]) for k in checkpoints}
        text.add_row(names[wanted], *(str(interval) for interval in intervals.values()))
        summary += [
            {
                "metric": tasks[0].metric,
                "cheap": wanted,
                "cost": k,
                "seeds": interval.n,
                **interval_columns("regret", interval),
            }
            for k, interval in intervals.items()
        ]
    saved = {
        k: paired_difference(
            [values[0][seed][10 * k - 1] for seed in values[0]], [values[cheap][seed][10 * k - 1] for seed in values[0]]
        )
        for k in checkpoints
    }
    text.add_row("regret saved, pair by pair", *(str(interval) for interval in saved.values()))
    console.print(text)
    study.write("fidelity_summary.csv", summary)
    console.print(f"{folder}/fidelity.csv (runs), fidelity_summary.csv")
