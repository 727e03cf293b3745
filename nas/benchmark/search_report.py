"""The search benchmark: its table, CSV and plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table as TextTable

from nas.benchmark.plots import plot_regret
from nas.benchmark.runs import RunsFile, run_all
from nas.benchmark.search import COLUMNS, KEY, StrategySummary, Task, check_tasks, run_search, summarise
from nas.benchmark.sources import CHECKPOINTS, DEVIATION, metrics_of, open_table, write_csv
from nas.strategies import check_options


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
    rows = run_all(
        console,
        RunsFile(folder / "search.csv", KEY, COLUMNS),
        table,
        tasks,
        run_search,
        workers,
        open_table,
        (space, path),
        lambda task: f"{task.strategy} on {task.metric}, seed {task.seed}",
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
                cell += f"\n  {summary.difference[k].text('+.3f')}"
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
