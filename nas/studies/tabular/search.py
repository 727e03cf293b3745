"""The search benchmark: strategies against a table, query by query.

Protocol: the first ``initial`` queries are random and the same for all strategies of a seed; then batches of ``batch``.
Regret is the best value of all cells less the best found so far, in points. Runs of different strategies are paired by
seed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as TextTable

from gemnet.strict import make
from gemnet.strict_json import parse_json
from nas.evaluation.remembered import MemorySource
from nas.evaluation.statistics import interval_columns, mean_interval, paired_difference
from nas.evaluation.tabular import TabularEvaluator
from nas.strategies import make_strategy, typed_options
from nas.studies.tabular.memories import NASGEM, check_memories, memories_of
from nas.studies.tabular.plots import StrategySummary, plot_regret
from nas.studies.tabular.runs import REMARK, BenchmarkError, RunRow, Study, run_key, text_table
from nas.studies.tabular.sources import CHECKPOINTS, DEVIATION, metrics_of, open_table
from nas.tables.table import Table

KEY = ("table", "fingerprint", "metric", "strategy", "options", "queries", "initial", "batch", "whole", "seed")
COLUMNS = ("found_best", "found_near", "cpu_seconds", "slowest_ask", "regrets")


@dataclass(frozen=True)
class SearchTask:
    """One run.

    Args:
        metric: column of the table that is maximised.
        strategy: its name.
        seed: its seed.
        queries: evaluations in all.
        initial: random ones at the start.
        batch: evaluations between two lessons.
        near: values no further from the best than this count as near it, in points.
        options: of the strategy.
        whole: go on when the best of all cells is found, which changes no result, only the times.
    """

    metric: str
    strategy: str
    seed: int
    queries: int = 200
    initial: int = 10
    batch: int = 5
    near: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False

    def key(self, table: Table) -> dict[str, object]:
        """What names this run in a results file."""
        return {**run_key(self, table, KEY), "options": json.dumps(dict(self.options), sort_keys=True)}


def run_task(table: Table, task: SearchTask) -> dict[str, object]:
    """One search; returns the values of `COLUMNS`, and a remark where the strategy left much to chance.

    ``found_best`` and ``found_near`` are the number of the query that found the best of all cells, or one within
    ``near`` of it; empty where none did. ``regrets`` is the step curve "query:regret;..." of the best so far. Times
    are CPU seconds, of the whole run and of the slowest `ask`.
    """
    started = time.process_time()
    evaluator = TabularEvaluator(table, {1: task.metric})
    strategy = make_strategy(
        task.strategy, table.space, task.seed, fidelity=evaluator.fidelity, initial=task.initial, **task.options
    )
    strategy.prepare()
    values: list[float] = []
    slowest = 0.0
    while len(values) < task.queries:
        wanted = min(
            task.initial - len(values) if len(values) < task.initial else task.batch, task.queries - len(values)
        )
        asked = time.process_time()
        proposals = strategy.ask(wanted)
        slowest = max(slowest, time.process_time() - asked)
        if not proposals:
            break
        evaluations = [evaluator.evaluate(proposal) for proposal in proposals]
        strategy.tell(evaluations)
        values += [e.accuracy for e in evaluations if e.accuracy is not None]
        if max(values) >= evaluator.best() and not task.whole:
            break  # nothing is left to regret
    regret = evaluator.best() - np.maximum.accumulate(values)
    return {
        "found_best": _first(regret <= 0),
        "found_near": _first(regret <= task.near),
        "cpu_seconds": f"{time.process_time() - started:.2f}",
        "slowest_ask": f"{slowest:.3f}",
        "regrets": steps_to_text(regret),
        REMARK: _remark(strategy.drawn, len(values) - len(strategy.candidates), len(values) - task.initial),
    }


def _remark(drawn: int, known: int, asked: int) -> str:
    """Says where a strategy is little more than chance: most candidates were drawn in its place, or some came twice."""
    said = []
    if 2 * drawn > asked:
        said.append(f"{drawn} of {asked} proposals after the start were drawn at random: the strategy gave too few")
    if known > 0:
        said.append(f"{known} of {asked} proposals after the start were known: the strategy gave them again")
    return "; ".join(said)


def check_tasks(table: Table, tasks: Iterable[SearchTask]) -> None:
    """Raises where a task can't be run: unknown metric, strategy or option, more queries than cells."""
    for task in tasks:
        table.metric(task.metric)
        typed_options(task.strategy, task.options)
        if task.queries > len(table):
            raise BenchmarkError(
                f"{task.queries} queries were asked for, but table {table.name!r} has {len(table)} cells. "
                "Lower --queries."
            )
        if task.queries < 1 or task.batch < 1 or not 1 <= task.initial <= task.queries:
            raise BenchmarkError(
                "queries and batch are at least 1, and initial lies between 1 and queries; got "
                f"queries={task.queries}, batch={task.batch}, initial={task.initial}."
            )


def _first(found: NDArray[np.bool_]) -> str:
    return str(int(np.argmax(found)) + 1) if found.any() else ""


def steps_to_text(regret: NDArray[np.float64]) -> str:
    """A falling step curve as "query:value;...", one entry for each step."""
    steps = np.flatnonzero(np.diff(regret, prepend=np.inf))
    return ";".join(f"{k + 1}:{regret[k]:.6g}" for k in steps)


def text_to_steps(text: str, queries: int) -> NDArray[np.float64]:
    """What `steps_to_text` wrote, as one value for each query, (queries,)."""
    curve = np.empty(queries)
    for step in text.split(";"):
        query, value = step.split(":")
        curve[int(query) - 1 :] = float(value)
    return curve


def summarise(
    rows: Sequence[RunRow], queries: int, checkpoints: Sequence[int], reference: str = NASGEM
) -> list[StrategySummary]:
    """Statistics of each (metric, strategy), in the order of their first rows.

    Args:
        rows: finished runs, as `run_tasks` returns them.
        queries: evaluations of each run.
        checkpoints: queries at which regret is reported.
        reference: see `reference_of`; differences are "other - reference", so positive means the reference is better.
    """
    groups: dict[tuple[str, str], list[RunRow]] = {}
    for row in rows:
        groups.setdefault((row["metric"], label(row)), []).append(row)
    curves = {
        group: {int(row["seed"]): text_to_steps(row["regrets"], queries) for row in members}
        for group, members in groups.items()
    }
    reference = reference_of(rows, reference)
    result = []
    for (metric, strategy), members in groups.items():
        own = curves[metric, strategy]
        rival = curves.get((metric, reference), {}) if strategy != reference else {}
        shared = sorted(own.keys() & rival.keys())
        result.append(
            StrategySummary(
                metric,
                strategy,
                np.array(list(own.values())),
                tuple(own),
                {k: mean_interval([curve[k - 1] for curve in own.values()]) for k in checkpoints},
                np.array([float(row["found_best"] or np.inf) for row in members]),
                np.array([float(row["found_near"] or np.inf) for row in members]),
                {
                    k: paired_difference([own[s][k - 1] for s in shared], [rival[s][k - 1] for s in shared])
                    for k in checkpoints
                    if shared
                },
                float(np.mean([float(row["cpu_seconds"]) for row in members])),
            )
        )
    return result


def reference_of(rows: Sequence[RunRow], strategy: str = NASGEM) -> str:
    """What others are compared with: a strategy with the options of its first row, or else the first of all."""
    return next((label(row) for row in rows if row["strategy"] == strategy), label(rows[0]) if rows else strategy)


def label(row: RunRow) -> str:
    """Name of a strategy with its options, for tables and plots."""
    options = parse_json(row["options"])
    shown = {
        k: ",".join(str(make(MemorySource, each, k)) for each in v) if k == "memory" else v for k, v in options.items()
    }
    return " ".join([row["strategy"], *(f"{k}={v}" for k, v in shown.items())])


def report_search(
    console: Console,
    *,
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
    memory: Sequence[str] = (),
    control: bool = False,
) -> list[StrategySummary]:
    """The search benchmark: runs, prints, writes ``search.csv``, ``search_summary.csv`` and ``search.png``.

    Args:
        console: where progress and tables go.
        space, path, metrics: see `open_table` and `metrics_of`.
        tasks_of: (strategy, number of seeds, options) of each strategy.
        queries, initial, batch: the protocol.
        workers: processes; None takes all cores.
        folder: where the files go.
        whole: see `SearchTask`.
        memory: columns that nasgem remembers, beside nasgem without.
        control: whether to run it with shuffled ones, too.
    """
    for strategy, _, options in tasks_of:
        typed_options(strategy, options)
    table = open_table(space, path)
    study = Study(console, table, partial(open_table, space, path), workers, folder)
    names = metrics_of(table, space, metrics)
    memories = memories_of(table, space, path, memory, control)
    check_memories(memories, names, any(strategy == NASGEM for strategy, _, _ in tasks_of))
    tasks_of = [
        (strategy, count, {**options, "memory": [source.to_dict() for source in sources]} if sources else options)
        for strategy, count, options in tasks_of
        for sources in ((), *(memories if strategy == NASGEM else ()))
    ]
    seeds = max(count for _, count, _ in tasks_of)
    tasks = [
        SearchTask(metric, strategy, seed, queries, initial, batch, DEVIATION.get(metric, 0.0), options, whole)
        for seed in range(seeds)  # seed by seed, so that what is there when a run is cut short is comparable
        for metric in names
        for strategy, count, options in tasks_of
        if seed < count
    ]
    check_tasks(table, tasks)
    rows = study.run(
        "search.csv",
        KEY,
        COLUMNS,
        tasks,
        run_task,
        lambda task: f"{task.strategy} on {task.metric}, seed {task.seed}",
    )
    checkpoints = [k for k in CHECKPOINTS if k < queries] + [queries]
    summaries = summarise(rows, queries, checkpoints)
    for metric in names:
        about = [s for s in summaries if s.metric == metric]
        console.print(_search_table(metric, about, checkpoints, reference_of(rows)))
    study.write("search_summary.csv", list(_search_rows(summaries)))
    plot_regret(summaries, folder / "search.png", f"{table.name}: mean regret, quartiles of the seeds shaded")
    console.print(f"{folder}/search.csv (runs), search_summary.csv, search.png")
    return summaries


def _search_table(
    metric: str, summaries: Sequence[StrategySummary], checkpoints: Sequence[int], reference: str
) -> TextTable:
    near = DEVIATION.get(metric)
    paired = f"; ± against {reference}, pair by pair" * any(summary.difference for summary in summaries)
    title = f"{metric}: mean regret in points [95 % interval]{paired}"
    headings = ["strategy", *(f"@{k}" for k in checkpoints), "best found in", "queries until found: median, 90 %"]
    if near is not None:
        headings.append(f"within {near:g}: median, 90 %")
    text = text_table(title, [*headings, "CPU s/run"])
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


def _quantiles(queries: NDArray[np.float64]) -> str:
    """Median and 90 % quantile; "-" where that many runs did not get there."""
    ordered = np.sort(queries)
    picked = [ordered[int(np.ceil(share * len(ordered))) - 1] for share in (0.5, 0.9)]
    return ", ".join("-" if np.isinf(value) else f"{value:.0f}" for value in picked)


def _search_rows(summaries: Iterable[StrategySummary]) -> Iterable[dict[str, object]]:
    for summary in summaries:
        for k, regret in summary.regret.items():
            ordered = np.sort(summary.found_best)
            yield {
                "metric": summary.metric,
                "strategy": summary.strategy,
                "seeds": regret.n,
                "queries": k,
                **interval_columns("regret", regret),
                **interval_columns("difference", summary.difference.get(k)),
                "best_found_share": f"{(ordered <= k).mean():.3f}",
                "near_found_share": f"{(summary.found_near <= k).mean():.3f}",
                "cpu_seconds": f"{summary.seconds:.2f}",
            }
