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

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, norm

from gemnet.errors import nearest
from nas.benchmark.models import MODELS
from nas.benchmark.runs import BenchmarkError, Row
from nas.benchmark.statistics import Interval, mean_interval, paired_difference
from nas.score import Budget
from nas.strategies.pool import enumerated_pool
from nas.tables.table import Table

KEY = ("table", "fingerprint", "metric", "predictor", "size", "seed")
COLUMNS = ("tau", "coverage", "nll", "cpu_seconds")
UNSEEN = 5000


@dataclass(frozen=True)
class PredictorTask:
    """One training and its test.

    Args:
        metric: column of the table that is predicted.
        predictor: a name in `MODELS`.
        size: training cells.
        seed: draws the training set and seeds the model.
    """

    metric: str
    predictor: str
    size: int
    seed: int

    def key(self, table: Table) -> dict[str, object]:
        """What names this run in a results file."""
        return {
            "table": table.name,
            "fingerprint": table.fingerprint,
            "metric": self.metric,
            "predictor": self.predictor,
            "size": self.size,
            "seed": self.seed,
        }


def split(table: Table, size: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of the training set and of the test set; the same for all predictors."""
    order = np.random.default_rng([seed, size]).permutation(len(table))
    if table.name == "nasbench201":
        return order[:size], np.arange(len(table))
    return order[:size], order[size : size + UNSEEN]


def run_predictor(table: Table, task: PredictorTask) -> dict[str, object]:
    """Trains and tests once; returns the values of `COLUMNS`.

    ``coverage`` is the share of unseen cells whose metric lies within the predicted central 90 % interval, ``nll``
    the mean negative log-likelihood, of the metric standardised over the table (both empty for models without
    uncertainty). The prediction is normal.
    """
    values = table.metric(task.metric)
    pool = enumerated_pool(table.space, Budget())
    assert pool is not None
    train, test = split(table, task.size, task.seed)
    started = time.process_time()
    mean, deviation = MODELS[task.predictor](pool.take(train), values[train], pool, test, task.seed)
    seconds = time.process_time() - started
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
    """Raises where a task can't be run: unknown metric or predictor, more training cells than there are."""
    for task in tasks:
        table.metric(task.metric)
        if task.predictor not in MODELS:
            raise BenchmarkError(f"Unknown predictor {task.predictor!r}.{nearest(task.predictor, MODELS)}")
        most = len(table) if table.name == "nasbench201" else len(table) - 2
        if not 2 <= task.size <= most:
            raise BenchmarkError(
                f"Table {table.name!r} with {len(table)} cells allows training sizes from 2 to {most}, got {task.size}."
            )


def summarise_predictors(rows: Sequence[Row], column: str) -> dict[str, dict[int, Interval]]:
    """Mean with interval of a column for each predictor and size; what has no values is left out."""
    groups: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row[column]:
            groups.setdefault((row["predictor"], int(row["size"])), []).append(float(row[column]))
    result: dict[str, dict[int, Interval]] = {}
    for (predictor, size), values in groups.items():
        result.setdefault(predictor, {})[size] = mean_interval(values)
    return result


def compare_predictors(rows: Sequence[Row], reference: str) -> dict[str, dict[int, Interval]]:
    """Paired difference in tau, "predictor - reference", for each other predictor and size."""
    values = {(row["predictor"], int(row["size"]), int(row["seed"])): float(row["tau"]) for row in rows}
    result: dict[str, dict[int, Interval]] = {}
    for predictor, size in dict.fromkeys((predictor, size) for predictor, size, _ in values):
        seeds = [s for p, k, s in values if (p, k) == (predictor, size) and (reference, size, s) in values]
        if predictor != reference and seeds:
            own = [values[predictor, size, s] for s in seeds]
            result.setdefault(predictor, {})[size] = paired_difference(own, [values[reference, size, s] for s in seeds])
    return result
