"""Two objectives at once: accuracy against a measured cost, judged by hypervolume.

Both objectives are scaled by the true front of the table: 0 is its worst value, 1 its best. The hypervolume of what a
search has found, over the corner at -0.1 in both, is given as a share of the true front's (Zitzler and Thiele, 1999;
computed by pymoo).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.indicators.hv import HV
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting
from rich.console import Console

from nas.evaluation.statistics import Interval, interval_columns, mean_interval, paired_difference
from nas.evaluation.tabular import TabularEvaluator
from nas.strategies import make_strategy
from nas.studies.tabular.plots import plot_hypervolume
from nas.studies.tabular.runs import BenchmarkError, RunRow, Study, run_key, text_table
from nas.studies.tabular.sources import CHECKPOINTS, DEVICES, find_time, metrics_of, open_hardware_table
from nas.tables.table import Table

KEY = ("table", "fingerprint", "metric", "cost", "strategy", "queries", "initial", "batch", "seed")
COLUMNS = ("cpu_seconds", "shares")
CORNER = 0.1
EVERY = 5  # queries between two points of the curve


@dataclass(frozen=True)
class ParetoTask:
    """One run; arguments as in `nas.studies.tabular.search.SearchTask`, ``cost`` is the column to be minimised."""

    metric: str
    cost: str
    strategy: str
    seed: int
    queries: int = 200
    initial: int = 10
    batch: int = 5

    def key(self, table: Table) -> dict[str, object]:
        """What names this run in a results file."""
        return run_key(self, table, KEY)


class FrontScale:
    """Hypervolumes as shares of a table's true front.

    Args:
        accuracy: of all cells (n,).
        cost: of all cells (n,).
    """

    def __init__(self, accuracy: NDArray[np.float64], cost: NDArray[np.float64]) -> None:
        objectives = np.stack([-accuracy, cost], axis=1)
        front = objectives[NonDominatedSorting().do(objectives, only_non_dominated_front=True)]
        self.best = front.min(axis=0)
        span = front.max(axis=0) - self.best
        self._span = np.where(span > 0, span, 1.0)  # of a front of one point
        self._volume = HV(ref_point=np.full(2, 1.0 + CORNER))
        self.whole = 1.0
        self.whole = self.share(-front[:, 0], front[:, 1])

    def share(self, accuracy: NDArray[np.float64], cost: NDArray[np.float64]) -> float:
        """The share that these cells reach."""
        objectives = np.stack([-accuracy, cost], axis=1)
        return float(self._volume((objectives - self.best) / self._span)) / self.whole


def run_pareto(table: Table, task: ParetoTask) -> dict[str, object]:
    """One search; returns the values of `COLUMNS`: CPU seconds, and the share after each `EVERY` queries, "s;s;..."."""
    started = time.process_time()
    evaluator = TabularEvaluator(table, {1: task.metric}, extra=(task.cost,))
    options: Mapping[str, Any] = {} if task.strategy == "random" else {"cost": task.cost}
    strategy = make_strategy(
        task.strategy, table.space, task.seed, fidelity=evaluator.fidelity, initial=task.initial, **options
    )
    strategy.prepare()
    accuracy: list[float] = []
    cost: list[float] = []
    while len(accuracy) < task.queries:
        wanted = task.initial if not accuracy else min(task.batch, task.queries - len(accuracy))
        evaluations = [evaluator.evaluate(proposal) for proposal in strategy.ask(wanted)]
        strategy.tell(evaluations)
        accuracy += [e.accuracy for e in evaluations if e.accuracy is not None]
        cost += [e.metrics[task.cost] for e in evaluations]
    scale = FrontScale(table.metric(task.metric), table.metric(task.cost))
    seen = [np.array(values) for values in (accuracy, cost)]
    shares = [scale.share(seen[0][:k], seen[1][:k]) for k in range(EVERY, task.queries + 1, EVERY)]
    return {"cpu_seconds": f"{time.process_time() - started:.2f}", "shares": ";".join(f"{s:.5f}" for s in shares)}


def curves(rows: Sequence[RunRow]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Shares of each strategy by seed, (points,) each."""
    groups: dict[str, dict[str, NDArray[np.float64]]] = {}
    for row in rows:
        shares = np.array([float(share) for share in row["shares"].split(";")])
        groups.setdefault(row["strategy"], {})[row["seed"]] = shares
    return groups


PARETO_STRATEGIES = ("nasgem", "evolution", "random")


def report_pareto(
    console: Console,
    *,
    space: str | None,
    path: str | None,
    devices: Sequence[str] | None,
    metric: str | None,
    strategies: Sequence[str],
    queries: int,
    seeds: int,
    workers: int | None,
    folder: Path,
) -> None:
    """Accuracy against time on a device: prints, writes ``pareto.csv``, its summary and a plot for each device.

    Args:
        console: where progress and tables go.
        space, path: see `open_hardware_table`.
        devices: of the space, or columns of the table that are to be small; None takes the space's first device.
        metric: accuracy column; None takes the space's first, or the only one of a table of one's own.
        strategies: names; ``evolution`` is NSGA-II here.
        queries, seeds: of each run.
        workers: processes; None takes all cores.
        folder: where the files go.

    Raises:
        BenchmarkError: no device is named and the space has none; neither a device that was measured nor a column; a
            strategy for one objective; or a number out of range.
        TableError: a table or metric that is not there.
    """
    table = open_hardware_table(space, path)
    study = Study(console, table, partial(open_hardware_table, space, path), workers, folder)
    metric = metrics_of(table, space, None if metric is None else [metric])[0]
    devices = devices or DEVICES.get(space or "", ())[:1]
    if not devices:
        raise BenchmarkError(f"Name what is to be small with --devices: {', '.join(table.metrics)}.")
    costs = list(dict.fromkeys(find_time(table, space, metric, device) for device in devices))
    for column in (metric, *costs):
        table.metric(column)
    for strategy in strategies:
        if strategy not in PARETO_STRATEGIES:
            raise BenchmarkError(f"Two objectives are known to {', '.join(PARETO_STRATEGIES)}, not to {strategy!r}.")
    if queries % EVERY or not EVERY <= queries <= len(table):
        raise BenchmarkError(f"--queries is a multiple of {EVERY} and at most {len(table)}, got {queries}.")
    tasks = [
        ParetoTask(metric, cost, strategy, seed, queries)
        for seed in range(seeds)
        for cost in costs
        for strategy in strategies
    ]
    rows = study.run(
        "pareto.csv",
        KEY,
        COLUMNS,
        tasks,
        run_pareto,
        lambda task: f"{task.strategy}, {task.cost}, seed {task.seed}",
    )
    checkpoints = [k for k in CHECKPOINTS if k < queries] + [queries]
    less = "; ± less nasgem's, by seed" * ("nasgem" in strategies and len(set(strategies)) > 1)
    title = f"{metric} against time: share of the true front's hypervolume [95 % interval]{less}"
    text = text_table(title, ("time", "strategy", *(f"@{k}" for k in checkpoints)))
    summary: list[dict[str, object]] = []
    for cost in costs:
        found = curves([row for row in rows if row["cost"] == cost])
        for strategy, by_seed in found.items():
            cells = []
            for k in checkpoints:
                interval, difference = _compared(by_seed, {} if strategy == "nasgem" else found.get("nasgem", {}), k)
                cells.append(str(interval) + (f"\n  {difference.text('+.3f')}" if difference else ""))
                summary.append(
                    {
                        "metric": metric,
                        "cost": cost,
                        "strategy": strategy,
                        "seeds": interval.n,
                        "queries": k,
                        **interval_columns("share", interval),
                        **interval_columns("difference", difference),
                    }
                )
            text.add_row(cost, strategy, *cells)
        plot_hypervolume(
            {strategy: np.array(list(by_seed.values())) for strategy, by_seed in found.items()},
            EVERY,
            folder / f"pareto_{cost.replace('/', '_')}.png",
            f"{metric} against {cost}",
        )
    console.print(text)
    study.write("pareto_summary.csv", summary)
    console.print(f"{folder}/pareto.csv (runs), pareto_summary.csv, pareto_*.png")


def _compared(
    own: Mapping[str, NDArray[np.float64]], nasgem: Mapping[str, NDArray[np.float64]], queries: int
) -> tuple[Interval, Interval | None]:
    """A strategy's share after so many queries, and what it has more than nasgem, paired by seed."""
    at = queries // EVERY - 1
    both = [seed for seed in own if seed in nasgem]
    difference = paired_difference([own[s][at] for s in both], [nasgem[s][at] for s in both]) if both else None
    return mean_interval([shares[at] for shares in own.values()]), difference
