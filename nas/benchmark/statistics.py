"""Means with intervals, and paired comparisons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap

RESAMPLES = 9999


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval.

    Args:
        mean: the sample's mean.
        low, high: ends of the interval.
        n: size of the sample.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def clear_of_zero(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean with a percentile bootstrap interval (Efron, 1979); deterministic.

    Args:
        values: the sample, (n,).
        confidence: coverage of the interval.
    """
    sample: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) < 2 or np.ptp(sample) == 0:
        return Interval(mean, mean, mean, len(sample))
    result = bootstrap(
        (sample,),
        np.mean,
        confidence_level=confidence,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(mean, float(result.low), float(result.high), len(sample))


def paired_difference(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of ``first - second``, pair by pair, with its bootstrap interval.

    Args:
        first, second: values of the same seeds in the same order, (n,).
        confidence: coverage of the interval.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"Pairs need samples of equal length, got {len(a)} and {len(b)}.")
    return mean_interval(a - b, confidence)
