"""Extremely randomised trees on structural features.

Kadlecova et al., "Surprisingly Strong Performance Prediction with Neural Graph Features", ICML 2024 (GRAF): counts,
degrees and path lengths of operation subsets, and a forest on top.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor

from nas.predictors.features import FeatureTable, macro_table, structural_table
from nas.predictors.forest import tree_predictions
from nas.predictors.pool import Pool
from nas.spaces.base import SearchSpace
from nas.strategies.acquisition import upper_confidence
from nas.strategies.history import check_least
from nas.strategies.model import ModelStrategy, best_first, normal_scores


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
        forest = ExtraTreesRegressor(self.trees, max_features=0.5, random_state=int(rng.integers(2**31)))
        forest.fit(self._features(observed), normal_scores(scores))
        predictions = tree_predictions(forest, self._features(pool))
        values = upper_confidence(predictions.mean(axis=0), predictions.std(axis=0), self.beta)
        return best_first(values, free, rng)

    def _features(self, pool: Pool) -> NDArray[np.float32]:
        space = pool.space
        tables = [
            pool.table("structure", lambda batch: structural_table(space, batch)),
            pool.table("macro", lambda batch: macro_table(space, batch)),
        ]
        return FeatureTable.join(tables).values
