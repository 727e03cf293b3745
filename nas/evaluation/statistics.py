"""Means with intervals, and paired comparisons."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean and its interval.

    Args:
        mean: the sample's mean.
        low, high: ends of the interval; NaN for a single value, which says nothing of its spread.
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

    def text(self, form: str) -> str:
        """``+1.35 [+0.13, +2.57]`` for the format ``+.2f``; without ends where there are none."""
        ends = "" if math.isnan(self.low) else f" [{self.low:{form}}, {self.high:{form}}]"
        return f"{self.mean:{form}}{ends}"

    def __str__(self) -> str:
        return self.text(".3f")


def interval_columns(name: str, value: Interval | None) -> dict[str, str]:
    """A mean and its ends as three columns of a table of results; empty where there is none."""
    names = (name, f"{name}_low", f"{name}_high")
    if value is None:
        return dict.fromkeys(names, "")
    return {key: f"{figure:.4f}" for key, figure in zip(names, (value.mean, value.low, value.high), strict=True)}


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean with Student's interval (t of n - 1 degrees of freedom), which holds its coverage down to a few values.

    Args:
        values: the sample, (n,), at least one.
        confidence: coverage of the interval.
    """
    sample: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    mean, n = float(sample.mean()), len(sample)
    if n < 2:
        return Interval(mean, math.nan, math.nan, n)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * sample.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of ``first - second``, pair by pair, with its interval.

    Args:
        first, second: values of the same seeds in the same order, (n,).
        confidence: coverage of the interval.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"Pairs need samples of equal length, got {len(a)} and {len(b)}.")
    return mean_interval(a - b, confidence)
