"""Runs a benchmark with a progress bar and leaves its table, CSV and plot."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as TextTable

from nas.benchmark.fidelity import COLUMNS as FIDELITY_COLUMNS
from nas.benchmark.fidelity import KEY as FIDELITY_KEY
from nas.benchmark.fidelity import fidelity_tasks, run_fidelity
from nas.benchmark.pareto import COLUMNS as PARETO_COLUMNS
from nas.benchmark.pareto import EVERY, ParetoTask, curves, run_pareto
from nas.benchmark.pareto import KEY as PARETO_KEY
from nas.benchmark.plots import plot_hypervolume, plot_regret, plot_tau
from nas.benchmark.predictors import COLUMNS as PREDICTOR_COLUMNS
from nas.benchmark.predictors import KEY as PREDICTOR_KEY
from nas.benchmark.predictors import (
    PredictorTask,
    check_predictor_tasks,
    compare_predictors,
    run_predictor,
    summarise_predictors,
)
from nas.benchmark.runs import RunsFile, finish
from nas.benchmark.search import (
    COLUMNS,
    KEY,
    BenchmarkError,
    StrategySummary,
    Task,
    check_tasks,
    run_search,
    summarise,
    text_to_steps,
)
from nas.benchmark.statistics import Interval, mean_interval, paired_difference
from nas.strategies import check_options
from nas.tables.read import HW_FILE, find_table, read_table
from nas.tables.table import Table

CHECKPOINTS = (50, 100, 150, 200)
DEFAULT_METRICS = {
    "nasbench201": ("c10_valid_200ep_1seed", "c100_valid_200ep_1seed", "in16_valid_200ep_1seed"),
    "nasbench101": ("108ep_valid",),
}
# Points that equal cells differ by on this metric (one standard deviation): within it, the best is a matter of luck.
DEVIATION = {"in16_valid_200ep_1seed": 0.6}
DEFAULT_SIZES = {"nasbench201": (50, 78, 156, 469, 781, 1563), "nasbench101": (100, 172, 424, 2000)}
DEFAULT_TARGET = {"nasbench201": "c10_test_200ep_mean", "nasbench101": "108ep_valid"}
PARETO_STRATEGIES = ("nasgem", "evolution", "random")


def open_table(space: str | None, path: str | None) -> Table:
    """The table of a space, or a user's own.

    Raises:
        TableError: it is missing or not right.
    """
    return read_table(find_table(space or "own", path), space if path is None else None)


def metrics_of(table: Table, space: str | None, asked: Sequence[str] | None) -> tuple[str, ...]:
    """The metrics asked for, or the usual ones of the space, or the only one of a user's own table.

    Raises:
        BenchmarkError: a table with several metrics, and none was named.
        TableError: unknown metric, or one with gaps.
    """
    if asked:
        names = tuple(asked)
    elif space in DEFAULT_METRICS and all(name in table.metrics for name in DEFAULT_METRICS[space]):
        names = DEFAULT_METRICS[space]
    elif len(table.metrics) == 1:
        names = tuple(table.metrics)
    else:
        raise BenchmarkError(f"Name what is to be maximised with --metrics: {', '.join(table.metrics)}.")
    for name in names:
        table.metric(name)
    return names


def workers_of(asked: int | None) -> int:
    """Worker processes: as asked, or one a core."""
    if asked is not None and asked < 1:
        raise BenchmarkError(f"--workers is at least 1, got {asked}.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return asked or cores


def progress_bar(console: Console) -> Progress:
    """A bar with done/total and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def report_search(
    console: Console,
    space: str | None,
    path: str | None,
    metrics: Sequence[str] | None,
    tasks_of: list[tuple[str, int, dict[str, object]]],
    queries: int,
    initial: int,
    batch: int,
    workers: int | None,
    folder: Path,
    whole: bool = False,
) -> list[StrategySummary]:
    """The search benchmark: runs, prints, writes ``search.csv``, ``search_summary.csv`` and ``search.png``.

    Args:
        console: where progress and tables go.
        space, path, metrics: see `open_table` and `metrics_of`.
        tasks_of: (strategy, number of seeds, options) of each strategy.
        queries, initial, batch: the protocol.
        workers: processes; None takes all cores.
        folder: where the files go.
        whole: see `Task`.
    """
    for strategy, _, options in tasks_of:
        check_options(strategy, options)
    table = open_table(space, path)
    names = metrics_of(table, space, metrics)
    seeds = max(count for _, count, _ in tasks_of)
    tasks = [
        Task(metric, strategy, seed, queries, initial, batch, DEVIATION.get(metric, 0.0), options, whole)
        for seed in range(seeds)  # seed by seed, so that what is there when a run is cut short is comparable
        for metric in names
        for strategy, count, options in tasks_of
        if seed < count
    ]
    check_tasks(table, tasks)
    with progress_bar(console) as progress:
        bar = progress.add_task("runs", total=len(tasks))
        rows = finish(
            RunsFile(folder / "search.csv", KEY, COLUMNS),
            table,
            tasks,
            run_search,
            workers_of(workers),
            open_table,
            (space, path),
            lambda task: progress.update(
                bar, advance=1, description=f"{task.strategy} on {task.metric}, seed {task.seed}"
            ),
        )
    checkpoints = [k for k in CHECKPOINTS if k < queries] + [queries]
    summaries = summarise(rows, queries, checkpoints)
    for metric in names:
        console.print(_search_table(metric, [s for s in summaries if s.metric == metric], checkpoints))
    write_csv(folder / "search_summary.csv", list(_search_rows(summaries)))
    plot_regret(summaries, folder / "search.png", f"{table.name}: mean regret, quartiles of the seeds shaded")
    console.print(f"{folder}/search.csv (runs), search_summary.csv, search.png")
    return summaries


def _search_table(metric: str, summaries: Sequence[StrategySummary], checkpoints: Sequence[int]) -> TextTable:
    near = DEVIATION.get(metric)
    text = TextTable(
        title=f"{metric}: mean regret in points [95 % interval]; ± against nasgem, pair by pair", title_justify="left"
    )
    text.add_column("strategy")
    for k in checkpoints:
        text.add_column(f"@{k}")
    text.add_column("best found in")
    text.add_column("queries until found: median, 90 %")
    if near is not None:
        text.add_column(f"within {near:g}: median, 90 %")
    text.add_column("CPU s/run")
    for summary in summaries:
        cells = []
        for k in checkpoints:
            cell = str(summary.regret[k])
            if k in summary.difference:
                difference = summary.difference[k]
                cell += f"\n  {difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
            cells.append(cell)
        found = np.isfinite(summary.found_best)
        row = [summary.strategy, *cells, f"{found.sum()}/{len(found)}", _quantiles(summary.found_best)]
        if near is not None:
            row.append(_quantiles(summary.found_near))
        text.add_row(*row, f"{summary.seconds:.1f}")
    return text


def _quantiles(queries: np.ndarray) -> str:
    """Median and 90 % quantile; "-" where that many runs did not get there."""
    ordered = np.sort(queries)
    picked = [ordered[int(np.ceil(share * len(ordered))) - 1] for share in (0.5, 0.9)]
    return ", ".join("-" if np.isinf(value) else f"{value:.0f}" for value in picked)


def _search_rows(summaries: Iterable[StrategySummary]) -> Iterable[dict[str, object]]:
    for summary in summaries:
        for k, regret in summary.regret.items():
            difference = summary.difference.get(k)
            ordered = np.sort(summary.found_best)
            yield {
                "metric": summary.metric,
                "strategy": summary.strategy,
                "seeds": regret.n,
                "queries": k,
                "regret": f"{regret.mean:.4f}",
                "regret_low": f"{regret.low:.4f}",
                "regret_high": f"{regret.high:.4f}",
                "difference": "" if difference is None else f"{difference.mean:.4f}",
                "difference_low": "" if difference is None else f"{difference.low:.4f}",
                "difference_high": "" if difference is None else f"{difference.high:.4f}",
                "best_found_share": f"{(ordered <= k).mean():.3f}",
                "near_found_share": f"{(summary.found_near <= k).mean():.3f}",
                "cpu_seconds": f"{summary.seconds:.2f}",
            }


def write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Writes rows with their keys as header, in one piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    with half.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    half.replace(path)


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
    with progress_bar(console) as progress:
        bar = progress.add_task("runs", total=len(tasks))
        rows = finish(
            RunsFile(folder / "predictors.csv", PREDICTOR_KEY, PREDICTOR_COLUMNS),
            table,
            tasks,
            run_predictor,
            workers_of(workers),
            open_table,
            (space, path),
            lambda task: progress.update(
                bar, advance=1, description=f"{task.predictor}, {task.size} cells, seed {task.seed}"
            ),
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
    return f"{value}\n  {difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


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
    with progress_bar(console) as progress:
        bar = progress.add_task("runs", total=len(tasks))
        rows = finish(
            RunsFile(folder / "pareto.csv", PARETO_KEY, PARETO_COLUMNS),
            table,
            tasks,
            run_pareto,
            workers_of(workers),
            open_hardware_table,
            (path,),
            lambda task: progress.update(bar, advance=1, description=f"{task.strategy}, {task.cost}, seed {task.seed}"),
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


def open_hardware_table(path: str | None) -> Table:
    """NAS-Bench-201 with HW-NAS-Bench's measurements."""
    place = find_table("nasbench201", path)
    return read_table(place, "nasbench201").joined(read_table(find_table("hw-nas-bench", place.parent / HW_FILE)))


def report_fidelity(
    console: Console,
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
    tasks = fidelity_tasks(space, metric or DEFAULT_METRICS[space][0], epochs, cheap, seeds, queries)
    for column in {column for task in tasks for column in (task.metric, task.cheap_metric) if column}:
        table.metric(column)
    with progress_bar(console) as progress:
        bar = progress.add_task("runs", total=len(tasks))
        rows = finish(
            RunsFile(folder / "fidelity.csv", FIDELITY_KEY, FIDELITY_COLUMNS),
            table,
            tasks,
            run_fidelity,
            workers_of(workers),
            open_table,
            (space, path),
            lambda task: progress.update(bar, advance=1, description=f"{task.cheap} cheap, seed {task.seed}"),
        )
    checkpoints = [k for k in (10, 20, 30, 40, 50, 100, 150) if k < queries] + [queries]
    values = {
        wanted: {
            int(row["seed"]): text_to_steps(row["regrets"], 10 * queries) for row in rows if int(row["cheap"]) == wanted
        }
        for wanted in (cheap, 0)
    }
    text = TextTable(title=f"{tasks[0].metric}: mean regret after so many full trainings' cost", title_justify="left")
    for heading in ("", *(f"@{k}" for k in checkpoints)):
        text.add_column(heading)
    summary = []
    names = {cheap: f"{cheap} trainings of {epochs} epochs first", 0: "full trainings only"}
    for wanted, found in values.items():
        intervals = {k: mean_interval([curve[10 * k - 1] for curve in found.values()]) for k in checkpoints}
        text.add_row(names[wanted], *(str(interval) for interval in intervals.values()))
        summary += [
            {"metric": tasks[0].metric, "cheap": wanted, "cost": k, "seeds": i.n}
            | {"regret": f"{i.mean:.4f}", "regret_low": f"{i.low:.4f}", "regret_high": f"{i.high:.4f}"}
            for k, i in intervals.items()
        ]
    saved = {
        k: paired_difference(
            [values[0][seed][10 * k - 1] for seed in values[0]], [values[cheap][seed][10 * k - 1] for seed in values[0]]
        )
        for k in checkpoints
    }
    text.add_row("regret saved, pair by pair", *(str(interval) for interval in saved.values()))
    console.print(text)
    write_csv(folder / "fidelity_summary.csv", summary)
    console.print(f"{folder}/fidelity.csv (runs), fidelity_summary.csv")
