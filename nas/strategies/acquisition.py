"""Acquisition functions: from a prediction and its uncertainty to what is worth evaluating next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]


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
