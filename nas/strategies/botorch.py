"""BoTorch's mixed Gaussian process and log expected improvement, in spaces that can be written as choices.

Balandat et al., "BoTorch: A Framework for Efficient Monte-Carlo Bayesian Optimization", NeurIPS 2020; Ament et al.,
"Unexpected Improvements to Expected Improvement for Bayesian Optimization", NeurIPS 2023.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gemnet.runtimes.packages import require
from nas.predictors.pool import Pool
from nas.spaces.as_choices import AsChoices
from nas.spaces.base import SearchSpace
from nas.strategies.batch import best_first
from nas.strategies.model import Lesson, ModelStrategy, Prediction

SHORTLIST = 200  # candidates among which a batch is put together
SAMPLES = 64  # of the posterior, for the improvement that a batch brings
CHUNK = 2048  # candidates predicted at a time


class BoTorchMixed(ModelStrategy):
    """`MixedSingleTaskGP` (Hamming kernel on names, the usual one on values in order), fitted anew for each batch.

    The candidates of the largest log expected improvement are a shortlist; of these a batch is put together one by one
    by `qLogExpectedImprovement`.

    Args:
        space, seed, options: see `ModelStrategy`; ``acquisition`` and ``beta`` have no effect.

    Raises:
        MissingPackageError: BoTorch is not installed.
        SpaceError: the space can't be written as choices.
    """

    def __init__(self, space: SearchSpace, seed: int, **options: Any) -> None:
        super().__init__(space, seed, **options)
        require("botorch")  # said here, not when the first batch is asked for
        self._choices = AsChoices.of(space, None if self.pool is None else self.pool.batch)

    def rank(
        self, lesson: Lesson, pool: Pool, free: NDArray[np.bool_], n: int, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        seed = int(rng.integers(2**31))
        with require("botorch.utils.sampling").manual_seed(seed):
            model = self._fitted(lesson)
            best = torch.tensor(lesson.scores.max(), dtype=torch.float64)
            table = self._table(pool)
            gain = require("botorch.acquisition.analytic").LogExpectedImprovement(model, best)
            with torch.no_grad():
                values = torch.cat([gain(part[:, None]) for part in table.split(CHUNK)]).numpy()
            ranked = best_first(values, free, rng)
            rows = ranked[:SHORTLIST]
            if len(rows) <= 1:
                return ranked
            sampler = require("botorch.sampling").SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=seed)
            together = require("botorch.acquisition.logei").qLogExpectedImprovement(model, best, sampler)
            near = table[torch.from_numpy(rows)]
            first: list[int] = []
            for _ in range(min(2 * n, len(rows))):
                if first:
                    together.set_X_pending(near[torch.tensor(first)])
                with torch.no_grad():
                    worth = together(near[:, None]).numpy()
                worth[first] = -np.inf
                first.append(int(np.argmax(worth)))
        chosen = rows[first]
        return np.concatenate([chosen, ranked[~np.isin(ranked, chosen)]])

    def predict(self, lesson: Lesson, pool: Pool, rng: np.random.Generator) -> Prediction:
        model = self._fitted(lesson)
        with torch.no_grad():
            parts = [model.posterior(part) for part in self._table(pool).split(CHUNK)]
        mean, variance = (
            torch.cat([getattr(part, name)[:, 0] for part in parts]).numpy() for name in ("mean", "variance")
        )
        return Prediction(mean, np.sqrt(variance), float(lesson.scores.max()))

    def _fitted(self, lesson: Lesson) -> Any:
        models = require("botorch.models")
        x, y = self._table(lesson.pool), torch.tensor(lesson.scores, dtype=torch.float64)[:, None]
        names = np.flatnonzero(~self._choices.ordinal).tolist()
        model = models.MixedSingleTaskGP(x, y, names) if names else models.SingleTaskGP(x, y)
        likelihood = require("gpytorch.mlls").ExactMarginalLogLikelihood(model.likelihood, model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fits that are tried again
            require("botorch.fit").fit_gpytorch_mll(likelihood)
        return model

    def _table(self, pool: Pool) -> torch.Tensor:
        """Numbers of names as they are, values in order from 0 to 1; float64 (n, choices)."""
        table = pool.view("choices", self._choices.codes).astype(np.float64)
        spread = np.where(self._choices.ordinal, np.maximum(self._choices.sizes - 1, 1), 1)
        return torch.from_numpy(table / spread)
