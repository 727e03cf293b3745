"""The predictor benchmark: its tables, CSV and plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as TextTable

from nas.benchmark.plots import plot_tau
from nas.benchmark.predictors import (
    COLUMNS,
    KEY,
    PredictorTask,
    check_predictor_tasks,
    compare_predictors,
    run_predictor,
    summarise_predictors,
)
from nas.benchmark.runs import BenchmarkError, RunsFile, run_all
from nas.benchmark.sources import DEFAULT_SIZES, DEFAULT_TARGET, metrics_of, open_table, write_csv
from nas.benchmark.statistics import Interval


def report_predictors(
    console: Console,
    space: str | None,
    path: str | None,
    metric: str | None,
    predictors: Sequence[str],
    sizes: Sequence[int] | None,
    seeds: int,
    workers: int | None,
    folder: Path,
) -> None:
    """The predictor benchmark: runs, prints, writes ``predictors.csv``, ``predictors_summary.csv`` and a plot.

    Args:
        console: where progress and tables go.
        space, path: see `open_table`.
        metric: what is predicted; None takes the space's usual target.
        predictors: names in `nas.benchmark.models.MODELS`.
        sizes: numbers of training cells; None takes the space's usual ones.
        seeds: training sets of each size.
        workers: processes; None takes all cores.
        folder: where the files go.
    """
    table = open_table(space, path)
    usual = metric or DEFAULT_TARGET.get(space or "")
    target = metrics_of(table, None, None if usual is None else [usual])[0]
    if not sizes and space not in DEFAULT_SIZES:
        raise BenchmarkError("Name the numbers of training cells with --train-sizes.")
    chosen = tuple(sizes or DEFAULT_SIZES[space or ""])
    tasks = [
        PredictorTask(target, predictor, size, seed)
        for seed in range(seeds)
        for size in chosen
        for predictor in predictors
    ]
    check_predictor_tasks(table, tasks)
    rows = run_all(
        console,
        RunsFile(folder / "predictors.csv", KEY, COLUMNS),
        table,
        tasks,
        run_predictor,
        workers,
        open_table,
        (space, path),
        lambda task: f"{task.predictor}, {task.size} cells, seed {task.seed}",
    )
    tau = summarise_predictors(rows, "tau")
    reference = next(iter(tau))
    paired = compare_predictors(rows, reference)
    text = TextTable(
        title=f"{table.name}, {target}: Kendall's tau [95 % interval]; below it, less {reference}, pair by pair",
        title_justify="left",
    )
    text.add_column("predictor")
    for size in chosen:
        text.add_column(str(size))
    for predictor, points in tau.items():
        text.add_row(
            predictor, *(_with_difference(points[size], paired.get(predictor, {}).get(size)) for size in chosen)
        )
    console.print(text)
    coverage, nll = summarise_predictors(rows, "coverage"), summarise_predictors(rows, "nll")
    if coverage:
        text = TextTable(
            title="calibration: share of unseen cells inside the predicted 90 % interval / negative log-likelihood",
            title_justify="left",
        )
        text.add_column("predictor")
        for size in chosen:
            text.add_column(str(size))
        for predictor in coverage:
            text.add_row(
                predictor,
                *(f"{coverage[predictor][size].mean:.3f} / {nll[predictor][size].mean:.2f}" for size in chosen),
            )
        console.print(text)
    summary = []
    for predictor, points in tau.items():
        for size, interval in points.items():
            difference = paired.get(predictor, {}).get(size)
            summary.append(
                {
                    "metric": target,
                    "predictor": predictor,
                    "size": size,
                    "seeds": interval.n,
                    "tau": f"{interval.mean:.4f}",
                    "tau_low": f"{interval.low:.4f}",
                    "tau_high": f"{interval.high:.4f}",
                    "difference": "" if difference is None else f"{difference.mean:.4f}",
                    "difference_low": "" if difference is None else f"{difference.low:.4f}",
                    "difference_high": "" if difference is None else f"{difference.high:.4f}",
                    "coverage": f"{coverage[predictor][size].mean:.3f}" if predictor in coverage else "",
                    "nll": f"{nll[predictor][size].mean:.3f}" if predictor in nll else "",
                }
            )
    write_csv(folder / "predictors_summary.csv", summary)
    plot_tau(tau, folder / "predictors.png", f"{table.name}, {target}")
    console.print(f"{folder}/predictors.csv (runs), predictors_summary.csv, predictors.png")


def _with_difference(value: Interval, difference: Interval | None) -> str:
    if difference is None:
        return str(value)
    return f"{value}\n  {difference.text('+.3f')}"
