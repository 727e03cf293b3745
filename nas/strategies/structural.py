"""Search by extremely randomised trees on structural features; see `nas.predictors.forest`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.predictors.forest import StructuralForest
from nas.predictors.pool import Pool
from nas.spaces.base import SearchSpace
from nas.strategies.acquisition import upper_confidence
from nas.strategies.history import check_least
from nas.strategies.model import ModelStrategy, best_first


class StructuralSearch(ModelStrategy):
    """Proposes what a forest's mean plus ``beta`` standard deviations between its trees puts first.

    Args:
        space, seed, options: see `ModelStrategy`.
        trees: size of the forest.
        beta: weight of the deviation between trees.
    """

    def __init__(self, space: SearchSpace, seed: int, *, trees: int = 100, beta: float = 0.5, **options: Any) -> None:
        super().__init__(space, seed, **options)
        self.trees = trees
        self.beta = beta
        check_least(self, trees=1)

    def rank(
        self,
        observed: Pool,
        scores: NDArray[np.float64],
        pool: Pool,
        free: NDArray[np.bool_],
        n: int,
        rng: np.random.Generator,
    ) -> NDArray[np.intp]:
        forest = StructuralForest(self.trees, int(rng.integers(2**31))).fit(observed, scores)
        values = upper_confidence(*forest.predict(pool), self.beta)
        return best_first(values, free, rng)
