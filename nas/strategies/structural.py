"""Search by extremely randomised trees on structural features; see `nas.predictors.forest`."""

from __future__ import annotations

from typing import Any

import numpy as np

from nas.predictors.forest import StructuralForest
from nas.predictors.pool import Pool
from nas.spaces.base import SearchSpace
from nas.strategies.history import check_least
from nas.strategies.model import Lesson, ModelStrategy, Prediction


class StructuralSearch(ModelStrategy):
    """Proposes what a forest's mean plus ``beta`` standard deviations between its trees puts first.

    Args:
        space, seed, options: see `ModelStrategy`.
        trees: size of the forest.
    """

    def __init__(self, space: SearchSpace, seed: int, *, trees: int = 100, **options: Any) -> None:
        super().__init__(space, seed, **options)
        self.trees = trees
        check_least(self, trees=1)

    def predict(self, lesson: Lesson, pool: Pool, rng: np.random.Generator) -> Prediction:
        forest = StructuralForest(self.trees, int(rng.integers(2**31))).fit(lesson.pool, lesson.scores)
        return Prediction(*forest.predict(pool), float(forest.targets_.max()))
