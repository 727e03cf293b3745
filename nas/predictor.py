"""The score predictor: from few evaluated candidates to mean and uncertainty for thousands of others.

A Gaussian process over groups of features: structural features of the cell (`nas.structure`), macro choices and costs,
and the encoder's embedding, as one table whose columns belong to groups. Gradient-boosted trees on the same features
can be averaged with it, since unlike models err differently; they rank a little better, take most of the time, and are
left out by default. `docs/benchmarks.md` says what each part is worth.

Scores are warped first. A search ranks, and a few broken candidates at the bottom would otherwise take all the
attention of a least-squares model; but plain ranks forget that some gaps are wide. The target is the sum of both views,
standardised: the normal score of the rank, and the negative logarithm of the distance to a point just above the best.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, lapack, solve_triangular
from scipy.optimize import minimize
from scipy.stats import norm, rankdata
from sklearn.ensemble import GradientBoostingRegressor

from gemnet.errors import GemnetError
from nas.effective import without_dead_weight
from nas.spaces.base import CandidateBatch, SearchSpace
from nas.structure import feature_names, structural_features

Floats = NDArray[np.float64]
Table = NDArray[np.float32]

# Prior means of the logarithm of each group's inverse squared length scale: how much a group of features counts
# before anything is known. Rounded means of what the marginal likelihood found, over random training sets of
# NAS-Bench-201 (CIFAR-10) and of NAS-Bench-101's training half, 150 to 600 cells; the same for every space.
_RELEVANCE = {
    "count": -3.9,
    "longest": -5.0,
    "shortest": -4.3,
    "paths": -3.6,
    "cut": -4.0,
    "backward": -3.0,
    "forward": -4.6,
    "reads": -5.0,
    "ends": -5.4,
    "edge": -4.6,
    "step": -4.8,
    "cost": -4.2,
    "embedding": -4.5,
}
_OTHER_RELEVANCE = -4.5
_RELEVANCE_SPREAD = 0.7
_LOG_SIGNAL, _LOG_SIGNAL_SPREAD = 0.7, 1.0
_LOG_NOISE, _LOG_NOISE_SPREAD = -4.0, 1.0
# Hyper-parameters need no more observations than this; what follows them uses all.
_HYPER_ROWS = 1000
_HYPER_STEPS = 30
_EMBEDDING = "embedding"


class PredictorError(GemnetError):
    """Observations or features that nothing can be learnt from."""


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """What a predictor may know of n candidates.

    Args:
        values: float32 (n, f).
        groups: name of the group each column belongs to, f of them. Columns of a group share a length scale.

    Raises:
        PredictorError: shapes that don't fit, or values that are not finite.
    """

    values: Table
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.groups):
            raise PredictorError(
                f"A feature table has one group name a column; got values of shape {self.values.shape} "
                f"and {len(self.groups)} names."
            )
        if not np.isfinite(self.values).all():
            raise PredictorError("Features hold NaN or infinite values; mend or drop those columns.")

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_] | Sequence[int] | slice) -> FeatureTable:
        """The rows at ``index``."""
        return FeatureTable(self.values[index], self.groups)

    def without(self, groups: Collection[str]) -> FeatureTable:
        """The table without the columns of some groups."""
        keep = [column for column, group in enumerate(self.groups) if group not in groups]
        return FeatureTable(self.values[:, keep], tuple(self.groups[column] for column in keep))

    @staticmethod
    def join(tables: Sequence[FeatureTable]) -> FeatureTable:
        """Tables of the same candidates side by side."""
        return FeatureTable(
            np.concatenate([table.values for table in tables], axis=1),
            tuple(group for table in tables for group in table.groups),
        )


def structural_table(space: SearchSpace, batch: CandidateBatch) -> FeatureTable:
    """Structural features of the cells, by the space's notion of zero and identity operations."""
    names = feature_names(space.vocabulary, space.zero_ops, space.identity_ops)
    values = structural_features(batch.graphs, space.zero_ops, space.identity_ops)
    return FeatureTable(values, tuple(name.partition("/")[0] for name in names))


def macro_table(space: SearchSpace, batch: CandidateBatch) -> FeatureTable:
    """Macro choices, each a group, and logarithms of MACs and parameters where the space knows them (group ``cost``).

    A choice among numbers is its place among them, from 0 to 1; a choice among names is one column for each. What zero
    operations cut off costs nothing here: it says nothing about what the cell computes.
    """
    columns: list[Table] = []
    groups: list[str] = []
    for place, (name, values) in enumerate(space.macro_choices.items()):
        chosen = batch.macro[:, place].astype(np.int64)
        if all(isinstance(value, int | float) for value in values):
            order = np.argsort(np.argsort([float(value) for value in values]))  # type: ignore[arg-type]
            columns.append((order[chosen] / max(len(values) - 1, 1)).astype(np.float32)[:, None])
        else:
            columns.append(np.eye(len(values), dtype=np.float32)[chosen])
        groups += [name] * columns[-1].shape[1]
    alive = CandidateBatch(without_dead_weight(batch.graphs, space.zero_ops), batch.macro)
    for cost in (space.macs(alive), space.params(alive)):
        if cost is not None:
            columns.append(np.log(np.maximum(cost, 1)).astype(np.float32)[:, None])
            groups.append("cost")
    return FeatureTable(np.concatenate([np.zeros((len(batch), 0), np.float32), *columns], axis=1), tuple(groups))


def embedding_table(vectors: NDArray[np.floating]) -> FeatureTable:
    """An encoder's vectors (n, d) as one group."""
    return FeatureTable(np.asarray(vectors, dtype=np.float32), (_EMBEDDING,) * vectors.shape[1])


class ScorePredictor:
    """Learns scores of candidates from features; predicts mean and standard deviation.

    Args:
        boosters: boosted forests averaged beside the Gaussian process; 0 leaves the process alone.
        trees: trees of each; None takes more where there is more to learn: 150 + n / 6.
        booster_weight: weight of the forests in the average.
        random_state: seed of the forests and of subsampling; the same seed and data give the same predictions.

    Attributes:
        targets_: warped scores of the observations, (n,): the latent scale of `predict_latent`.
        relevance_: group -> inverse squared length scale, after `fit`.
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
        noise: ArrayLike | None = None,
        pool: FeatureTable | None = None,
    ) -> ScorePredictor:
        """Learns from n observations; two are the least, ten the least that is any use.

        Args:
            features: the candidates.
            scores: their scores (n,), in any unit; more is better.
            noise: standard deviation of each score's own error, in the same unit, (n,), beside the noise that is common
                to all and learnt.
            pool: candidates without scores, such as those to choose from; features are scaled by their spread there
                instead of among the observations.

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
        self._scaling = _Scaling(features if pool is None else pool)
        self._warp = _Warp(y)
        self.targets_ = self._warp(y)
        own: Floats = np.zeros(len(y))
        if noise is not None:
            own = np.broadcast_to(np.asarray(noise, dtype=np.float64), y.shape) * self._warp.slope(y)
        scaled = self._scaling(features)
        self._process = _GroupProcess(self._scaling.slices).fit(scaled, self.targets_, own**2, self.random_state)
        self.relevance_ = dict(zip(self._scaling.slices, self._process.relevance.tolist(), strict=True))
        self._forests = [
            GradientBoostingRegressor(
                n_estimators=150 + len(y) // 6 if self.trees is None else self.trees,
                learning_rate=0.06,
                max_depth=8,
                subsample=0.5,
                max_features=0.1,
                min_samples_leaf=2 if len(y) >= 8 else 1,
                random_state=self.random_state + k,
            ).fit(scaled[:, self._scaling.columns], self.targets_)
            for k in range(self.boosters if len(self._scaling.columns) and np.ptp(self.targets_) > 0 else 0)
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
        if self._forests:
            named = scaled[:, self._scaling.columns]
            boosted = np.mean([forest.predict(named) for forest in self._forests], axis=0)
            mean = (1 - self.booster_weight) * mean + self.booster_weight * boosted
        return mean, np.sqrt(variance)

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

    def slope(self, y: Floats) -> Floats:
        """Targets per score around each score, (n,), over a tenth of the scores."""
        if len(self.knots) < 2:
            return np.ones_like(y)
        width = 0.05 * (self.knots[-1] - self.knots[0])
        return (self(y + width) - self(y - width)) / (2 * width)


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
        columns: columns with a meaning of their own, for trees: all but an embedding's, unless there is nothing else.
    """

    def __init__(self, reference: FeatureTable) -> None:
        values = reference.values
        mean, deviation = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
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
                if group == _EMBEDDING:
                    own = np.full(len(columns), np.sqrt(np.mean(own**2)))
                factors.append(1 / (own * np.sqrt(len(columns))))
        rest = [np.arange(where.start, where.stop) for group, where in self.slices.items() if group != _EMBEDDING]
        self.columns = np.concatenate(rest) if rest else np.arange(len(order))
        self.groups = reference.groups
        self.order = np.array(order, dtype=np.intp)
        self.mean = mean[self.order].astype(np.float32)
        self.factor = np.concatenate([np.zeros(0), *factors]).astype(np.float32)

    def __call__(self, features: FeatureTable) -> Table:
        if features.groups != self.groups:
            raise PredictorError("The features to predict from have other columns than those learnt from.")
        return (features.values[:, self.order] - self.mean) * self.factor


class _GroupProcess:
    """An exact Gaussian process: ``k(x, x') = signal / (1 + sum_g relevance_g |x_g - x'_g|^2 / 2)``, constant noise.

    A rational quadratic kernel of exponent 1 (a mixture of squared exponentials of many length scales) with one
    relevance a group. Hyper-parameters maximise the marginal likelihood times log-normal priors. scikit-learn's process
    is not used: it has no kernel over groups of columns, and one written for it would have to hand over its gradient as
    an n x n x groups array on every step, where one matrix product does.
    """

    def __init__(self, slices: dict[str, slice]) -> None:
        self.slices = slices

    def fit(self, x: Table, targets: Floats, own_noise: Floats, seed: int) -> _GroupProcess:
        rows = np.arange(len(x))
        if len(x) > _HYPER_ROWS:
            rows = np.sort(np.random.default_rng(seed).choice(rows, _HYPER_ROWS, replace=False))
        self._choose(x[rows].astype(np.float64), targets[rows], own_noise[rows])
        self.x = self._stretched(x)
        exact = self.x.astype(np.float64)
        covariance = self.signal / (1 + 0.5 * _squared_distances(exact, exact))
        covariance[np.diag_indices(len(x))] += self.noise + own_noise
        factor = _factor(covariance)
        self.mean = float(targets.mean())
        self.weights = cho_solve(factor, targets - self.mean)
        self.root = solve_triangular(factor[0], np.eye(len(x)), lower=True).astype(np.float32)
        return self

    def predict(self, x: Table) -> tuple[Floats, Floats]:
        """Mean and variance without noise, (n,) each."""
        covariance = (self.signal / (1 + 0.5 * _squared_distances(self._stretched(x), self.x))).astype(np.float32)
        mean = self.mean + covariance @ self.weights
        explained = np.einsum("ij,ij->i", *[covariance @ self.root.T] * 2)
        return mean, np.maximum(self.signal - explained.astype(np.float64), 1e-6)

    def covariance(self, x: Table) -> Floats:
        """Posterior covariance without noise, (n, n)."""
        stretched = self._stretched(x)
        prior = self.signal / (1 + 0.5 * _squared_distances(stretched, stretched))
        known = self.signal / (1 + 0.5 * _squared_distances(stretched, self.x)) @ self.root.T
        return (prior - known @ known.T).astype(np.float64)

    def _stretched(self, x: Table) -> Table:
        stretched = x.copy()
        for columns, relevance in zip(self.slices.values(), self.relevance, strict=True):
            stretched[:, columns] *= np.float32(np.sqrt(relevance))
        return stretched

    def _choose(self, x: Floats, targets: Floats, own_noise: Floats) -> None:
        """Sets relevance, signal and noise."""
        n, groups = len(x), len(self.slices)
        centred = targets - targets.mean()
        distances = np.zeros((groups, n * n))
        for row, columns in zip(distances, self.slices.values(), strict=True):
            row[:] = _squared_distances(x[:, columns], x[:, columns]).ravel()
        prior = np.array([_RELEVANCE.get(group, _OTHER_RELEVANCE) for group in self.slices] + [_LOG_SIGNAL, _LOG_NOISE])
        spread = np.array([_RELEVANCE_SPREAD] * groups + [_LOG_SIGNAL_SPREAD, _LOG_NOISE_SPREAD])
        diagonal = np.diag_indices(n)

        def loss(parameters: Floats) -> tuple[float, Floats]:
            relevance, signal, noise = np.exp(parameters[:groups]), *np.exp(parameters[groups:])
            shape = 1 / (1 + 0.5 * (relevance @ distances).reshape(n, n))
            covariance = signal * shape
            covariance[diagonal] += noise + own_noise + 1e-8
            factor, info = lapack.dpotrf(covariance, lower=1)
            if info:
                return 1e10, np.zeros_like(parameters)
            weights = lapack.dpotrs(factor, centred, lower=1)[0]
            inverse = lapack.dpotri(factor, lower=1)[0]
            inverse = np.tril(inverse) + np.tril(inverse, -1).T
            inner = 0.5 * (inverse - np.outer(weights, weights))
            away = (parameters - prior) / spread
            value = 0.5 * centred @ weights + np.log(np.diag(factor)).sum() + 0.5 * away @ away
            slope = (-0.5 * signal) * (inner * shape * shape).ravel()
            gradient = np.concatenate(
                [
                    relevance * (distances @ slope),
                    [signal * np.vdot(inner, shape), noise * np.trace(inner)],
                ]
            )
            return float(value), gradient + away / spread

        found = minimize(loss, prior, jac=True, method="L-BFGS-B", options={"maxiter": _HYPER_STEPS})
        self.relevance = np.exp(found.x[:groups])
        self.signal, self.noise = np.exp(found.x[groups:]).tolist()


def _factor(covariance: Floats) -> tuple[Floats, bool]:
    """Cholesky factor. Twins among the candidates make a matrix with next to no noise singular: it gets a little."""
    jitter = 1e-10 * float(np.mean(np.diag(covariance)))
    for _ in range(8):
        try:
            return cho_factor(covariance, lower=True)
        except np.linalg.LinAlgError:
            covariance = covariance + jitter * np.eye(len(covariance))
            jitter *= 10
    raise PredictorError("The observations' covariance can't be factorised: a feature is not finite.")


def _squared_distances(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    product = a @ b.T
    product *= -2
    product += np.einsum("ij,ij->i", a, a)[:, None]
    product += np.einsum("ij,ij->i", b, b)
    return np.maximum(product, 0, out=product)
