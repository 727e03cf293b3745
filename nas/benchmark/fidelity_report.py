"""Cheap queries: their table and CSV."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table as TextTable

from nas.benchmark.fidelity import COLUMNS, KEY, fidelity_tasks, run_fidelity
from nas.benchmark.runs import RunsFile, run_all
from nas.benchmark.search import text_to_steps
from nas.benchmark.sources import DEFAULT_METRICS, open_table, write_csv
from nas.benchmark.statistics import mean_interval, paired_difference


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
    rows = run_all(
        console,
        RunsFile(folder / "fidelity.csv", KEY, COLUMNS),
        table,
        tasks,
        run_fidelity,
        workers,
        open_table,
        (space, path),
        lambda task: f"{task.cheap} cheap, seed {task.seed}",
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
