"""The predictor benchmark: how well models trained on few cells rank the others.

Protocol: for each seed and size, that many cells drawn at random are the training set. Kendall's tau (tau-b) of
    prediction and metric is
measured on all cells (NAS-Bench-201, as in the literature) or on 5,000 unseen ones (other tables). Models see the
graphs and what follows from them, never another metric.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import kendalltau, norm

from gemnet.errors import nearest
from nas.evaluation.remembered import MemorySource
from nas.evaluation.statistics import Interval, interval_columns, mean_interval, paired_difference
from nas.predictors.pool import enumerated_pool
from nas.spaces import is_own
from nas.spaces.limits import Limits
from nas.studies.tabular.memories import NASGEM, check_memories, memories_of
from nas.studies.tabular.models import MODELS, find_model, nasgem
from nas.studies.tabular.plots import plot_tau
from nas.studies.tabular.runs import BenchmarkError, RunRow, Study, run_key, text_table
from nas.studies.tabular.sources import DEFAULT_SIZES, DEFAULT_TARGET, metrics_of, open_table
from nas.tables.table import Table

KEY = ("table", "fingerprint", "metric", "predictor", "size", "seed")
COLUMNS = ("tau", "coverage", "nll", "cpu_seconds")
UNSEEN = 5000
WHOLE = 15_625  # cells of NAS-Bench-201


@dataclass(frozen=True)
class PredictorTask:
    """One training and its test.

    Args:
        metric: column of the table that is predicted.
        predictor: a name in `MODELS`.
        size: training cells.
        seed: draws the training set and seeds the model.
        memory: columns that it remembers; `nasgem` alone has a memory.
    """

    metric: str
    predictor: str
    size: int
    seed: int
    memory: tuple[MemorySource, ...] = ()

    @property
    def name(self) -> str:
        """The predictor with what it remembers, for tables and files."""
        return " ".join([self.predictor, *(f"remembering {source}" for source in self.memory)])

    def key(self, table: Table) -> dict[str, object]:
        """What names this run in a results file."""
        return run_key(self, table, KEY) | {"predictor": self.name}


def split(table: Table, size: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of the training set and of the test set; the same for all predictors."""
    order = np.random.default_rng([seed, size]).permutation(len(table))
    if table.name == "nasbench201" and len(table) == WHOLE:  # as in the papers that list it
        return order[:size], np.arange(len(table))
    return order[:size], order[size : size + UNSEEN]


def run_predictor(table: Table, task: PredictorTask) -> dict[str, object]:
    """Trains and tests once; returns the values of `COLUMNS`.

    ``coverage`` is the share of unseen cells whose metric lies within the predicted central 90 % interval, ``nll``
    the mean negative log-likelihood, of the metric standardised over the table (both empty for models without
    uncertainty). The prediction is normal. ``tau`` is nan where the model predicts the same of every cell.

    Raises:
        BenchmarkError: it does not predict a number of every cell.
    """
    values = table.metric(task.metric)
    pool = enumerated_pool(table.space, Limits())
    assert pool is not None
    train, test = split(table, task.size, task.seed)
    started = time.process_time()
    model = partial(nasgem, memory=task.memory) if task.memory else find_model(task.predictor)
    mean, deviation = model(pool.take(train), values[train], pool, test, task.seed)
    seconds = time.process_time() - started
    if mean.shape != test.shape:
        raise BenchmarkError(f"it predicted an array of shape {mean.shape} for {len(test)} cells")
    if not np.isfinite(mean).all():
        raise BenchmarkError(f"it predicted NaN or infinity of {np.sum(~np.isfinite(mean))} of {len(test)} cells")
    tau = float(kendalltau(mean, values[test]).statistic)
    coverage = nll = ""
    if deviation is not None:
        unseen = ~np.isin(test, train)
        z = (values[test] - mean)[unseen] / deviation[unseen]
        coverage = f"{(np.abs(z) <= norm.ppf(0.95)).mean():.4f}"
        scale = values.std()
        nll = f"{(0.5 * z**2 + np.log(deviation[unseen] / scale) + 0.5 * np.log(2 * np.pi)).mean():.4f}"
    return {"tau": f"{tau:.5f}", "coverage": coverage, "nll": nll, "cpu_seconds": f"{seconds:.2f}"}


def check_predictor_tasks(table: Table, tasks: Sequence[PredictorTask]) -> None:
    """Raises where a task can't be run: unknown or constant metric, unknown predictor, more cells than there are."""
    for task in tasks:
        if np.ptp(table.metric(task.metric)) == 0:
            raise BenchmarkError(f"{task.metric!r} is the same in all cells: there is nothing to rank. Name another.")
        if task.predictor not in MODELS and not is_own(task.predictor):
            raise BenchmarkError(f"Unknown predictor {task.predictor!r}.{nearest(task.predictor, MODELS)}")
        find_model(task.predictor)
        most = len(table) if table.name == "nasbench201" else len(table) - 2
        if not 2 <= task.size <= most:
            raise BenchmarkError(
                f"Table {table.name!r} with {len(table)} cells allows training sizes from 2 to {most}, got {task.size}."
            )


def summarise_predictors(rows: Sequence[RunRow], column: str) -> dict[str, dict[int, Interval]]:
    """Mean with interval of a column for each predictor and size; what has no values, or nan, is left out."""
    groups: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row[column] and not np.isnan(float(row[column])):
            groups.setdefault((row["predictor"], int(row["size"])), []).append(float(row[column]))
    result: dict[str, dict[int, Interval]] = {}
    for (predictor, size), values in groups.items():
        result.setdefault(predictor, {})[size] = mean_interval(values)
    return result


def count_constant(rows: Sequence[RunRow]) -> dict[tuple[str, int], tuple[int, int]]:
    """In how many runs of a predictor and size every cell was predicted alike, and of how many."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for row in rows:
        constant, runs = found.get((row["predictor"], int(row["size"])), (0, 0))
        found[row["predictor"], int(row["size"])] = constant + bool(np.isnan(float(row["tau"]))), runs + 1
    return found


def compare_predictors(rows: Sequence[RunRow], reference: str) -> dict[str, dict[int, Interval]]:
    """Paired difference in tau, "predictor - reference", for each other predictor and size."""
    values = {(row["predictor"], int(row["size"]), int(row["seed"])): float(row["tau"]) for row in rows}
    values = {run: tau for run, tau in values.items() if not np.isnan(tau)}
    result: dict[str, dict[int, Interval]] = {}
    for predictor, size in dict.fromkeys((predictor, size) for predictor, size, _ in values):
        seeds = [s for p, k, s in values if (p, k) == (predictor, size) and (reference, size, s) in values]
        if predictor != reference and seeds:
            own = [values[predictor, size, s] for s in seeds]
            result.setdefault(predictor, {})[size] = paired_difference(own, [values[reference, size, s] for s in seeds])
    return result


def report_predictors(
    console: Console,
    *,
    space: str | None,
    path: str | None,
    metric: str | None,
    predictors: Sequence[str],
    sizes: Sequence[int] | None,
    seeds: int,
    workers: int | None,
    folder: Path,
    memory: Sequence[str] = (),
    control: bool = False,
) -> None:
    """The predictor benchmark: runs, prints, writes ``predictors.csv``, ``predictors_summary.csv`` and a plot.

    Args:
        console: where progress and tables go.
        space, path: see `open_table`.
        metric: what is predicted; None takes the space's usual target.
        predictors: names in `nas.studies.tabular.models.MODELS`.
        sizes: numbers of training cells; None takes the space's usual ones.
        seeds: training sets of each size.
        workers: processes; None takes all cores.
        folder: where the files go.
        memory: columns that `nasgem` remembers, beside `nasgem` without.
        control: whether to try it with shuffled ones, too.
    """
    table = open_table(space, path)
    study = Study(console, table, partial(open_table, space, path), workers, folder)
    usual = metric or DEFAULT_TARGET.get(space or "")
    target = metrics_of(table, None, None if usual is None else [usual])[0]
    if not sizes and space not in DEFAULT_SIZES:
        raise BenchmarkError("Name the numbers of training cells with --train-sizes.")
    chosen = tuple(sizes or DEFAULT_SIZES[space or ""])
    memories = memories_of(table, space, path, memory, control)
    check_memories(memories, [target], NASGEM in predictors)
    tasks = [
        PredictorTask(target, predictor, size, seed, remembering)
        for seed in range(seeds)
        for size in chosen
        for predictor in predictors
        for remembering in ((), *(memories if predictor == NASGEM else ()))
    ]
    check_predictor_tasks(table, tasks)
    rows = study.run(
        "predictors.csv",
        KEY,
        COLUMNS,
        tasks,
        run_predictor,
        lambda task: f"{task.name}, {task.size} cells, seed {task.seed}",
    )
    tau = summarise_predictors(rows, "tau")
    constant = count_constant(rows)
    reference = next(iter(constant))[0]
    paired = compare_predictors(rows, reference)
    below = f"; below it, less {reference}, pair by pair" * any(paired.values())
    headings = ("predictor", *map(str, chosen))
    text = text_table(f"{table.name}, {target}: Kendall's tau [95 % interval]{below}", headings)
    for predictor in dict.fromkeys(predictor for predictor, _ in constant):
        text.add_row(
            predictor,
            *(
                _cell(
                    tau.get(predictor, {}).get(size),
                    paired.get(predictor, {}).get(size),
                    *constant.get((predictor, size), (0, 0)),
                )
                for size in chosen
            ),
        )
    console.print(text)
    if any(count for count, _ in constant.values()):
        console.print("constant: it predicted the same of every cell, which ranks none, so there is no tau.")
    coverage, nll = summarise_predictors(rows, "coverage"), summarise_predictors(rows, "nll")
    if coverage:
        title = "calibration: share of unseen cells inside the predicted 90 % interval / negative log-likelihood"
        text = text_table(title, headings)
        for predictor in coverage:
            text.add_row(
                predictor,
                *(f"{coverage[predictor][size].mean:.3f} / {nll[predictor][size].mean:.2f}" for size in chosen),
            )
        console.print(text)
    summary = []
    for (predictor, size), (count, runs) in constant.items():
        summary.append(
            {
                "metric": target,
                "predictor": predictor,
                "size": size,
                "seeds": runs,
                "constant": count,
                **interval_columns("tau", tau.get(predictor, {}).get(size)),
                **interval_columns("difference", paired.get(predictor, {}).get(size)),
                "coverage": f"{coverage[predictor][size].mean:.3f}" if size in coverage.get(predictor, {}) else "",
                "nll": f"{nll[predictor][size].mean:.3f}" if size in nll.get(predictor, {}) else "",
            }
        )
    study.write("predictors_summary.csv", summary)
    plot_tau(tau, folder / "predictors.png", f"{table.name}, {target}")
    console.print(f"{folder}/predictors.csv (runs), predictors_summary.csv, predictors.png")


def _cell(value: Interval | None, difference: Interval | None, constant: int, runs: int) -> str:
    """Tau and its difference to the reference, and a word where a predictor was constant."""
    if value is None:
        return "constant" if constant else ""
    shown = f"{value}" if difference is None else f"{value}\n  {difference.text('+.3f')}"
    return f"{shown}\n  constant in {constant} of {runs}" if constant else shown
