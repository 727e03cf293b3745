"""The Pareto front of what has a cost and a value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pareto_front(costs: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices of the points that no other beats in both, by rising cost.

    Args:
        costs: the less the better, (n,).
        values: the more the better, (n,).
    """
    order = np.lexsort((-values, costs))
    best = np.maximum.accumulate(values[order])
    first = np.ones(len(order), dtype=bool)
    first[1:] = values[order][1:] > best[:-1]
    return order[first]
