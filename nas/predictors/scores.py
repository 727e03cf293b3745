"""The score predictor: from few evaluated candidates to mean and uncertainty for thousands of others.

A Gaussian process over groups of features: structural features of the cell (`nas.graphs.structure`), macro choices and
costs, and the encoder's embedding, as one table whose columns belong to groups. Gradient-boosted trees on the same
features can be averaged with it, since unlike models err differently; they rank a little better, take most of the time,
and are left out by default. `docs/benchmarks.md` says what each part is worth.

Scores are warped first. A search ranks, and a few broken candidates at the bottom would otherwise take all the
attention of a least-squares model; but plain ranks forget that some gaps are wide. The target is the sum of both views,
standardised: the normal score of the rank, and the negative logarithm of the distance to a point just above the best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata
from sklearn.ensemble import GradientBoostingRegressor

from nas.predictors.features import (
    EMBEDDING,
    FeatureTable,
    Floats,
    PredictorError,
    Spread,
    Table,
    is_remembered,
    is_untrained,
)
from nas.predictors.process import GroupProcess, ProcessSettings


class ScorePredictor:
    """Learns scores of candidates from features; predicts mean and standard deviation.

    Args:
        boosters: boosted forests averaged beside the Gaussian process; 0 leaves the process alone.
        trees: trees of each; None takes more where there is more to learn: 150 + n / 6.
        booster_weight: weight of the forests in the average.
        random_state: seed of the forests and of subsampling; the same seed and data give the same predictions.

    Attributes:
        targets_: warped scores of the observations, (n,): the latent scale of `predict_latent`.
        settings_: hyper-parameters of the process, after `fit`.
    """

    def __init__(
        self, *, boosters: int = 3, trees: int | None = None, booster_weight: float = 0.4, random_state: int = 0
    ) -> None:
        self.boosters = boosters
        self.trees = trees
        self.booster_weight = booster_weight
        self.random_state = random_state

    def fit(
        self,
        features: FeatureTable,
        scores: ArrayLike,
        pool: FeatureTable | Spread | None = None,
        settings: ProcessSettings | None = None,
    ) -> ScorePredictor:
        """Learns from n observations; two are the least, ten the least that is any use.

        Args:
            features: the candidates.
            scores: their scores (n,), in any unit; more is better.
            pool: candidates without scores, such as those to choose from, or their spread; features are scaled by it
                instead of by that of the observations.
            settings: hyper-parameters of the process, from an earlier fit with the same ``pool``; None chooses them.

        Raises:
            PredictorError: lengths that differ, fewer than two scores, or scores that are not finite.
        """
        y = np.asarray(scores, dtype=np.float64)
        if y.shape != (len(features),):
            raise PredictorError(f"{len(features)} candidates need as many scores, got shape {y.shape}.")
        if len(y) < 2:
            raise PredictorError(f"A predictor learns from at least two observations, got {len(y)}.")
        if not np.isfinite(y).all():
            raise PredictorError("Scores hold NaN or infinite values; leave failed evaluations out.")
        reference = features if pool is None else pool
        self._scaling = _Scaling(reference if isinstance(reference, Spread) else Spread.of(reference))
        self._warp = _Warp(y)
        self.targets_ = self._warp(y)
        scaled = self._scaling(features)
        self._process = GroupProcess(self._scaling.slices).fit(scaled, self.targets_, self.random_state, settings)
        self.settings_ = self._process.settings
        doubted = [
            np.arange(where.start, where.stop)
            for group, where in self._scaling.slices.items()
            if is_remembered(group) and group not in self.settings_.slopes
        ]
        self._columns = np.setdiff1d(self._scaling.columns, np.concatenate([np.zeros(0, np.intp), *doubted]))
        self._forests = [
            GradientBoostingRegressor(
                n_estimators=150 + len(y) // 6 if self.trees is None else self.trees,
                learning_rate=0.06,
                max_depth=8,
                subsample=0.5,
                max_features=0.1,
                min_samples_leaf=2 if len(y) >= 8 else 1,
                random_state=self.random_state + k,
            ).fit(scaled[:, self._columns], self.targets_)
            for k in range(self.boosters if len(self._columns) and np.ptp(self.targets_) > 0 else 0)
        ]
        return self

    def predict(self, features: FeatureTable, with_noise: bool = True) -> tuple[Floats, Floats]:
        """Mean and standard deviation of each candidate's score, (n,) each, in the unit of the scores given to `fit`.

        The deviation is of what an evaluation would show, with the noise common to all evaluations, or without it of
        what many would show on average.
        """
        mean, deviation = self.predict_latent(features, with_noise)
        low, high = self._warp.inverse(mean - deviation), self._warp.inverse(mean + deviation)
        return self._warp.inverse(mean), np.maximum((high - low) / 2, 1e-12)

    def predict_latent(self, features: FeatureTable, with_noise: bool = False) -> tuple[Floats, Floats]:
        """Mean and standard deviation on the scale of ``targets_``, where errors are close to normal; (n,) each."""
        scaled = self._scaling(features)
        mean, variance = self._process.predict(scaled)
        if with_noise:
            variance = variance + self._process.noise
        return self._averaged(scaled, mean), np.sqrt(variance)

    def predict_mean(self, features: FeatureTable) -> Floats:
        """The mean of `predict_latent` alone, (n,), which takes a fraction of the time."""
        scaled = self._scaling(features)
        return self._averaged(scaled, self._process.predict_mean(scaled))

    def _averaged(self, scaled: Table, mean: Floats) -> Floats:
        if not self._forests:
            return mean
        named = scaled[:, self._columns]
        boosted = np.mean([forest.predict(named) for forest in self._forests], axis=0)
        return (1 - self.booster_weight) * mean + self.booster_weight * boosted

    @property
    def noise_(self) -> float:
        """Variance of the noise common to all evaluations, on the scale of ``targets_``."""
        return self._process.noise

    def latent_covariance(self, features: FeatureTable) -> Floats:
        """Covariance of the errors of `predict_latent` at n candidates, without noise; (n, n). Of the process alone."""
        return self._process.covariance(self._scaling(features))


class _Warp:
    """A monotone map from scores to targets of mean 0 and deviation 1, and back."""

    def __init__(self, y: Floats) -> None:
        knots, inverse, counts = np.unique(y, return_inverse=True, return_counts=True)
        self.knots = knots
        spread = knots[-1] - np.median(y)
        spread = spread if spread > 0 else max(knots[-1] - knots[0], 1e-12)
        ranks = norm.ppf((rankdata(y) - 0.5) / len(y))
        logs = -np.log(knots[-1] - y + 0.5 * spread)
        both = _standardised(ranks) + _standardised(logs)
        values = np.bincount(inverse, both) / counts
        deviation = both.std()
        self.values = values / deviation if deviation > 0 else values
        # Beyond the ends a straight line: through the best and the score a tenth of the way down, likewise below.
        self.slopes = [self._end_slope(values_first) for values_first in (True, False)]

    def _end_slope(self, first: bool) -> float:
        if len(self.knots) < 2:
            return 1.0
        step = max(1, len(self.knots) // 10)
        a, b = (0, step) if first else (-1 - step, -1)
        return float((self.values[b] - self.values[a]) / (self.knots[b] - self.knots[a]))

    def __call__(self, y: Floats) -> Floats:
        return _interpolate(y, self.knots, self.values, self.slopes)

    def inverse(self, targets: Floats) -> Floats:
        """Scores of targets."""
        return _interpolate(targets, self.values, self.knots, [1 / slope for slope in self.slopes])


def _interpolate(x: Floats, knots: Floats, values: Floats, slopes: Sequence[float]) -> Floats:
    inside = np.interp(x, knots, values)
    return inside + np.minimum(x - knots[0], 0) * slopes[0] + np.maximum(x - knots[-1], 0) * slopes[1]


def _standardised(x: Floats) -> Floats:
    deviation = x.std()
    return (x - x.mean()) / deviation if deviation > 0 else np.zeros_like(x)


class _Scaling:
    """Scales each group so that two candidates of the reference lie 2 apart in squared distance on average.

    Columns of a group are standardised one by one; those of an embedding keep their proportions. Constant columns go.

    Attributes:
        slices: group -> its columns in the scaled table; groups without varying columns are missing.
        columns: columns with a meaning of their own, for trees: all but an embedding's and untrained networks', unless
            there is nothing else.
    """

    def __init__(self, reference: Spread) -> None:
        mean, deviation = reference.mean, reference.deviation
        varying = deviation > 1e-6 * np.maximum(1, np.abs(mean))
        order: list[int] = []
        factors: list[Floats] = []
        self.slices: dict[str, slice] = {}
        for group in dict.fromkeys(reference.groups):
            columns = [c for c, name in enumerate(reference.groups) if name == group and varying[c]]
            if columns:
                self.slices[group] = slice(len(order), len(order) + len(columns))
                order += columns
                own = deviation[columns]
                if group == EMBEDDING:
                    own = np.full(len(columns), np.sqrt(np.mean(own**2)))
                factors.append(1 / (own * np.sqrt(len(columns))))
        rest = [
            np.arange(where.start, where.stop)
            for group, where in self.slices.items()
            if group != EMBEDDING and not is_untrained(group)
        ]
        self.columns = np.concatenate(rest) if rest else np.arange(len(order))
        self.groups = reference.groups
        self.order = np.array(order, dtype=np.intp)
        self.mean = mean[self.order].astype(np.float32)
        self.factor = np.concatenate([np.zeros(0), *factors]).astype(np.float32)

    def __call__(self, features: FeatureTable) -> Table:
        if features.groups != self.groups:
            raise PredictorError("The features to predict from have other columns than those learnt from.")
        return (features.values[:, self.order] - self.mean) * self.factor
