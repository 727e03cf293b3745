"""A Gaussian process on the Weisfeiler-Lehman kernel.

Ru, Wan, Dong and Osborne, "Interpretable Neural Architecture Search via Bayesian Optimisation with Weisfeiler-Lehman
Kernels", ICLR 2021 (NAS-BOWL).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from nas.encoder.inputs import without_zero_ops
from nas.graphs.wl import WLVocabulary
from nas.predictors.pool import Pool
from nas.predictors.targets import normal_scores
from nas.predictors.wl_process import factors, fit_rows, unit_rows, wl_rows
from nas.spaces.base import SearchSpace
from nas.strategies.acquisition import expected_improvement
from nas.strategies.model import ModelStrategy, best_first

REFIT_GROWTH = 1.2  # the marginal likelihood is maximised anew when a fifth more is known


class WLGaussianProcess(ModelStrategy):
    """Proposes by expected improvement; the marginal likelihood picks the number h of WL iterations.

    Args:
        space, seed, options: see `ModelStrategy`.
        iterations: values of h to choose from.
    """

    def __init__(
        self, space: SearchSpace, seed: int, *, iterations: tuple[int, ...] = (0, 1, 2, 3), **options: Any
    ) -> None:
        super().__init__(space, seed, **options)
        self.iterations = tuple(iterations)
        self._chosen: dict[int, tuple[float, int, tuple[float, float]]] = {}

    def rank(
        self,
        observed: Pool,
        scores: NDArray[np.float64],
        pool: Pool,
        free: NDArray[np.bool_],
        n: int,
        rng: np.random.Generator,
    ) -> NDArray[np.intp]:
        targets = normal_scores(scores)
        rows = np.arange(len(observed))
        # Hyperparameters come from the first so many evaluations, a number that grows by fifths: they follow from the
        # history alone, so that a resumed search has the same, and cost little.
        settled = _settled(len(rows), self.initial)
        if settled not in self._chosen:
            # Failed ones are worth the worst of these, not the worst of all: that may have come later.
            early, failed = scores[:settled].copy(), self.failed()[:settled]
            if not failed.all():
                early[failed] = early[~failed].min()
            fits = []
            for iterations in self.iterations:
                features, _ = self._features(observed, None, iterations)
                model = fit_rows(features, rows[:settled], normal_scores(early))
                fits.append((float(model.log_marginal_likelihood_value_), iterations, factors(model)))
            self._chosen = {settled: max(fits)}
        _, iterations, start = self._chosen[settled]
        known, candidates = self._features(observed, pool, iterations)
        model = fit_rows(csr_array(vstack([known, candidates], format="csr")), rows, targets, start)
        places = len(rows) + np.arange(len(pool), dtype=np.float64)
        mean, deviation = model.predict(places[:, None], return_std=True)
        return best_first(expected_improvement(mean, deviation, float(targets.max())), free, rng)

    def _features(self, observed: Pool, pool: Pool | None, iterations: int) -> tuple[csr_array, csr_array]:
        """Unit rows for the observed candidates and the pool, in the same columns."""
        zero_ops = self.space.zero_ops
        if self.pool is not None:
            rows = [
                part.view(f"wl{iterations}", partial(wl_rows, zero_ops, iterations))
                for part in (observed, pool or observed)
            ]
            return csr_array(rows[0]), csr_array(rows[1])
        known, asked = WLVocabulary(iterations).fit_transform_pair(
            without_zero_ops(observed.batch.graphs, zero_ops),
            None if pool is None else without_zero_ops(pool.batch.graphs, zero_ops),
        )
        return unit_rows(known), unit_rows(known if asked is None else asked)


def _settled(observed: int, initial: int) -> int:
    size = min(initial, observed)
    while max(int(size * REFIT_GROWTH), size + 1) <= observed:
        size = max(int(size * REFIT_GROWTH), size + 1)
    return size
