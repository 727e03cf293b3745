"""Batch rules: from what each candidate is worth to the few that are evaluated together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gemnet.pareto import pareto_front
from nas.strategies.acquisition import expected_hypervolume_gain

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


def best_first(values: Floats, free: NDArray[np.bool_], rng: np.random.Generator) -> Rows:
    """Free rows by falling value; ties, such as functionally equal candidates, in random order."""
    rows = rng.permutation(np.flatnonzero(free))
    return rows[np.argsort(-values[rows], kind="stable")]


def greedy_batch(
    mean: Floats, covariance: Floats, noise: float, worth: Callable[[Floats, Floats], Floats], n: int
) -> Rows:
    """Places of ``n`` candidates that together are worth evaluating, best first.

    The candidate that is worth most is taken; then the deviations are what they would be had it been evaluated, since
    its value is not needed for that, and the next is taken (Desautels, Krause and Burdick, "Parallelizing
    Exploration-Exploitation Tradeoffs with Gaussian Process Bandits", JMLR 2014). So near twins don't fill a batch
    unless they are likely to be the best.

    Args:
        mean: predicted values (m,).
        covariance: covariance of their errors (m, m).
        noise: variance of an evaluation's own noise.
        worth: (mean, deviation) to the acquisition value, (m,) each.
        n: candidates wanted, at most m.
    """
    covariance = covariance.copy()
    free = np.ones(len(mean), dtype=np.bool_)
    chosen = []
    for _ in range(n):
        values = np.where(free, worth(mean, np.sqrt(np.maximum(np.diag(covariance), 0.0))), -np.inf)
        pick = int(np.argmax(values))
        free[pick] = False
        chosen.append(pick)
        column = covariance[:, pick].copy()
        covariance -= np.outer(column, column) / max(column[pick] + noise, 1e-12)
    return np.array(chosen, dtype=np.intp)


def front_of(points: Floats) -> Floats:
    """The points that no other dominates, each once; two objectives, both maximised; (n, 2) to (k, 2)."""
    return points[pareto_front(-points[:, 0], points[:, 1])]


def hypervolume_batch(
    mean: Floats, deviation: Floats, front: Floats, free: NDArray[np.bool_], n: int, rng: np.random.Generator
) -> Rows:
    """Free rows by what they are expected to add to the area that a front dominates; two objectives, both maximised.

    The first ``n`` are taken one by one, each counted in at its expected values, so that the next one goes elsewhere
    on the front; the rest follow by what they would add then.

    Args:
        mean, deviation: predicted objectives (m, 2) and their standard deviations.
        front: what dominates so far, (k, 2).
        free: which rows may be taken, (m,).
        n: how many are taken one by one.
        rng: breaks ties.
    """
    # What lies below the worst of the present front is no compromise anyone asked for.
    span = np.ptp(front, axis=0)
    reference = front.min(axis=0) - np.where(span > 0, 0.1 * span, 1.0)
    chosen: list[int] = []
    free = free.copy()
    for _ in range(min(n, int(free.sum()))):
        gains = np.where(free, expected_hypervolume_gain(mean, deviation, front, reference), -1.0)
        pick = int(best_first(gains, free, rng)[0])
        chosen.append(pick)
        free[pick] = False
        front = np.concatenate([front, mean[[pick]]])
    rest = best_first(expected_hypervolume_gain(mean, deviation, front, reference), free, rng)
    return np.concatenate([np.array(chosen, dtype=np.intp), rest])
