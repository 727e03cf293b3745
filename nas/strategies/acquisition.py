"""Acquisition functions: from a prediction and its uncertainty to what is worth evaluating next."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from gemnet.errors import nearest
from nas.strategies.history import StrategyError

Floats = NDArray[np.float64]
Acquisition = Callable[[Floats, Floats, float], Floats]
"""``(mean, deviation, best)``, (n,) each and the best value so far, to what each candidate is worth, (n,)."""


def find_acquisition(name: str, beta: float) -> Acquisition:
    """An acquisition function by the name that a config gives it.

    Args:
        name: ``ucb`` for `upper_confidence`, ``ei`` for `expected_improvement`.
        beta: weight of the deviation; expected improvement has none.

    Raises:
        StrategyError: there is none of this name.
    """
    known: dict[str, Acquisition] = {
        "ucb": partial(_beside_best, beta),
        "ei": expected_improvement,
    }
    if name not in known:
        raise StrategyError(f"Unknown acquisition {name!r}: it is one of {', '.join(known)}.{nearest(name, known)}")
    return known[name]


def _beside_best(beta: float, mean: Floats, deviation: Floats, best: float) -> Floats:
    return upper_confidence(mean, deviation, beta)


def upper_confidence(mean: Floats, deviation: Floats, beta: float) -> Floats:
    """``mean + beta * deviation`` (Srinivas et al., ICML 2010); shapes broadcast."""
    return mean + beta * deviation


def expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """The expectation of ``max(0, value - best)`` under a normal prediction (Mockus, 1975).

    Args:
        mean: predicted values (n,).
        deviation: their standard deviations (n,).
        best: the best value so far.
    """
    deviation = np.maximum(deviation, 1e-12)
    z = (mean - best) / deviation
    return deviation * (z * norm.cdf(z) + norm.pdf(z))


def independent_thompson(mean: Floats, deviation: Floats, rng: np.random.Generator) -> Floats:
    """One draw from each candidate's own normal prediction (ITS; White et al., AAAI 2021), (n,)."""
    return rng.normal(mean, np.maximum(deviation, 1e-12))


def expected_hypervolume_gain(mean: Floats, deviation: Floats, front: Floats, reference: Floats) -> Floats:
    """The expected area that each point, on its own, adds to what a front dominates; two objectives, both maximised.

    The predictions of the two objectives are normal and independent. The area is a sum over the front's steps of a
    width, which depends on the first objective alone, times a height, which depends on the second; so its expectation
    is the sum of products of two expected improvements (Emmerich et al., IEEE CEC 2011).

    Args:
        mean: predicted objectives of the points (m, 2).
        deviation: their standard deviations (m, 2); 0 where a point is known.
        front: points already there (k, 2); dominated ones do no harm.
        reference: the corner below which nothing counts (2,).

    Returns:
        (m,), 0 for known points that are dominated or below the reference.
    """
    kept = front[np.all(front > reference, axis=1)]
    kept = kept[np.argsort(-kept[:, 0], kind="stable")]
    # A staircase: falling in the first objective, rising in the second.
    higher = np.maximum.accumulate(kept[:, 1])
    steps = np.diff(higher, prepend=-np.inf) > 0
    # Between two edges, from right to left, the front has one height; right of its first point it has the reference's.
    edges = np.concatenate([kept[steps, 0], [reference[0]]])
    heights = np.concatenate([[reference[1]], kept[steps, 1]])
    beyond = np.array([expected_improvement(mean[:, 0], deviation[:, 0], edge) for edge in edges])
    width = np.diff(beyond, axis=0, prepend=0.0)
    above = np.array([expected_improvement(mean[:, 1], deviation[:, 1], height) for height in heights])
    return (width * above).sum(axis=0)
