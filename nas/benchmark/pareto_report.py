"""Accuracy against latency: its table, CSV and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as TextTable

from nas.benchmark.pareto import COLUMNS, EVERY, KEY, ParetoTask, curves, run_pareto
from nas.benchmark.plots import plot_hypervolume
from nas.benchmark.runs import BenchmarkError, RunsFile, run_all
from nas.benchmark.sources import CHECKPOINTS, open_hardware_table, write_csv
from nas.benchmark.statistics import mean_interval

PARETO_STRATEGIES = ("nasgem", "evolution", "random")


def report_pareto(
    console: Console,
    path: str | None,
    devices: Sequence[str],
    metric: str,
    strategies: Sequence[str],
    queries: int,
    seeds: int,
    workers: int | None,
    folder: Path,
) -> None:
    """Accuracy against latency on NAS-Bench-201: prints, writes ``pareto.csv``, its summary and a plot for each device.

    Args:
        console: where progress and tables go.
        path: the table; None takes NAS-Bench-201's.
        devices: of HW-NAS-Bench.
        metric: accuracy column.
        strategies: names; ``evolution`` is NSGA-II here.
        queries, seeds: of each run.
        workers: processes; None takes all cores.
        folder: where the files go.
    """
    table = open_hardware_table(path)
    data = metric.partition("_")[0]
    costs = [f"{data}_{device}_latency" for device in devices]
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
    rows = run_all(
        console,
        RunsFile(folder / "pareto.csv", KEY, COLUMNS),
        table,
        tasks,
        run_pareto,
        workers,
        open_hardware_table,
        (path,),
        lambda task: f"{task.strategy}, {task.cost}, seed {task.seed}",
    )
    checkpoints = [k for k in CHECKPOINTS if k < queries] + [queries]
    text = TextTable(
        title=f"{metric} against latency: share of the true front's hypervolume [95 % interval]", title_justify="left"
    )
    for heading in ("latency", "strategy", *(f"@{k}" for k in checkpoints)):
        text.add_column(heading)
    summary = []
    for cost in costs:
        found = curves([row for row in rows if row["cost"] == cost])
        for strategy, values in found.items():
            intervals = {k: mean_interval(values[:, k // EVERY - 1]) for k in checkpoints}
            text.add_row(cost, strategy, *(str(interval) for interval in intervals.values()))
            for k, interval in intervals.items():
                summary.append(
                    {
                        "metric": metric,
                        "cost": cost,
                        "strategy": strategy,
                        "seeds": interval.n,
                        "queries": k,
                        "share": f"{interval.mean:.4f}",
                        "share_low": f"{interval.low:.4f}",
                        "share_high": f"{interval.high:.4f}",
                    }
                )
        plot_hypervolume(found, EVERY, folder / f"pareto_{cost}.png", f"{metric} against {cost}")
    console.print(text)
    write_csv(folder / "pareto_summary.csv", summary)
    console.print(f"{folder}/pareto.csv (runs), pareto_summary.csv, pareto_*.png")
