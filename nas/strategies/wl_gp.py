"""Search by a Gaussian process on the Weisfeiler-Lehman kernel; see `nas.predictors.wl_process`."""

from __future__ import annotations

from typing import Any

import numpy as np

from nas.predictors.pool import Pool
from nas.predictors.wl_process import WLProcess, WLSettings
from nas.spaces.base import SearchSpace
from nas.strategies.model import Lesson, ModelStrategy, Prediction

REFIT_GROWTH = 1.2  # the marginal likelihood is maximised anew when a fifth more is known


class WLGaussianProcess(ModelStrategy):
    """Proposes by expected improvement; the marginal likelihood picks the number h of WL iterations.

    Args:
        space, seed, acquisition, options: see `ModelStrategy`.
        iterations: values of h to choose from.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        *,
        iterations: tuple[int, ...] = (0, 1, 2, 3),
        acquisition: str = "ei",
        **options: Any,
    ) -> None:
        super().__init__(space, seed, acquisition=acquisition, **options)
        self.process = WLProcess(iterations)
        self._settings: dict[int, WLSettings] = {}

    def predict(self, lesson: Lesson, pool: Pool, rng: np.random.Generator) -> Prediction:
        process = self.process.fit(lesson.pool, lesson.scores, pool, self._settled(lesson))
        return Prediction(*process.predict_latent(np.arange(len(pool))), float(process.targets_.max()))

    def _settled(self, lesson: Lesson) -> WLSettings:
        """Hyper-parameters from the first so many evaluations, a number that grows by fifths, later by doubling.

        They follow from the history alone, so that a resumed search has the same, and cost little.
        """
        if self.is_long:
            size = self.plan.settled(len(self.candidates))
        else:
            size = _settled(len(lesson.rows), self.initial)
        if size not in self._settings:
            early = self.lesson(size, self.plan.hyper)
            self._settings = {size: self.process.settle(early.pool, early.scores)}
        return self._settings[size]


def _settled(observed: int, initial: int) -> int:
    size = min(initial, observed)
    while max(int(size * REFIT_GROWTH), size + 1) <= observed:
        size = max(int(size * REFIT_GROWTH), size + 1)
    return size
