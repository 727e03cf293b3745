"""A Gaussian process with a relevance for each group of features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, cho_factor, cho_solve, lapack
from scipy.optimize import minimize

from nas.predictors.features import UNTRAINED, Floats, PredictorError, Table, is_remembered, is_untrained

AnyFloats = NDArray[Any]
"""Float32 or float64, all alike."""

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
    "skips": -6.5,
    "neighbours": -6.5,
    UNTRAINED: -5.5,
}


_OTHER_RELEVANCE = -4.5


_RELEVANCE_SPREAD = 0.7


# Of groups that are worth nothing in most tables and much in some: next to nothing is expected, and much believed.
_WIDE_SPREAD = {"skips": 1.5, "neighbours": 1.5, UNTRAINED: 1.5}


_LOG_SIGNAL, _LOG_SIGNAL_SPREAD = 0.7, 1.0


_LOG_NOISE, _LOG_NOISE_SPREAD = -4.0, 1.0


# Hyper-parameters need no more observations than this; what follows them uses all.
_HYPER_ROWS = 1000


_HYPER_STEPS = 30


_BLOCK = 1024  # candidates whose covariances with the observations fit into the cache


# Of the logarithm of a slope's variance: what is remembered explains about half of what is seen, or it explains little.
_LOG_SLOPE, _LOG_SLOPE_SPREAD = -0.7, 1.0


# What a line has to add to the logarithm of the evidence before it is believed. Of 12 shuffled columns of NAS-Bench-201
# none did, from 10, 20, 50 or 100 cells; a threshold of a third let two in from ten.
_LEAST_GAIN = 1.5


@dataclass(frozen=True)
class ProcessSettings:
    """Hyper-parameters of a `GroupProcess`.

    Args:
        relevance: group -> inverse squared length scale.
        signal, noise: variances.
        slopes: remembered group -> variance of its slope; those that are not believed are missing.
    """

    relevance: Mapping[str, float]
    signal: float
    noise: float
    slopes: Mapping[str, float] = field(default_factory=dict)


class GroupProcess:
    """An exact Gaussian process: ``k(x, x') = signal / (1 + sum_g relevance_g |x_g - x'_g|^2 / 2)``, constant noise.

    A rational quadratic kernel of exponent 1 (a mixture of squared exponentials of many length scales) with one
    relevance a group. Hyper-parameters maximise the marginal likelihood times log-normal priors. scikit-learn's process
    is not used: it has no kernel over groups of columns, and one written for it would have to hand over its gradient as
    an n x n x groups array on every step, where one matrix product does.

    What is remembered of other tasks enters as a line: ``slope * m(x)``, with a normal prior of variance ``v`` on the
    slope, adds ``v m(x) m(x')`` to the covariance, and a constant besides, since the observed may all lie on one side
    (a stacked mean, as in Golovin et al., "Google Vizier", KDD 2017, with a slope that is learnt). One line after the
    other is taken in, the likeliest first, as long as the evidence gains enough by it; so a memory that misleads is
    left out.

    Args:
        slices: group -> its columns.
    """

    def __init__(self, slices: Mapping[str, slice]) -> None:
        self.slices = {group: columns for group, columns in slices.items() if not is_remembered(group)}
        self._remembered = {group: columns.start for group, columns in slices.items() if is_remembered(group)}

    def fit(self, x: Table, targets: Floats, seed: int, settings: ProcessSettings | None = None) -> GroupProcess:
        """Learns targets (n,) of candidates; hyper-parameters are chosen where none are given."""
        if settings is None:
            rows = np.arange(len(x))
            if len(x) > _HYPER_ROWS:
                rows = np.sort(np.random.default_rng(seed).choice(rows, _HYPER_ROWS, replace=False))
            self._choose(x[rows].astype(np.float64), targets[rows])
        else:
            # A group that did not vary then is worth what it is worth before anything is known.
            usual = {group: float(np.exp(_prior(group)[0])) for group in self.slices}
            self.relevance = np.array([settings.relevance.get(group, usual[group]) for group in self.slices])
            self.signal, self.noise = settings.signal, settings.noise
            self.slopes = {group: v for group, v in settings.slopes.items() if group in self._remembered}
        self.x = self._stretched(x)
        self._known = self._lines(x)
        exact = self.x.astype(np.float64)
        covariance = _rational_quadratic(self.signal, exact, exact)
        if self.slopes:
            covariance += self._known.astype(np.float64) @ self._known.T
        covariance[np.diag_indices(len(x))] += self.noise
        factor = _factor(covariance)
        self.mean = float(targets.mean())
        self.weights = cho_solve(factor, targets - self.mean)
        self.root = lapack.dtrtri(factor[0], lower=1)[0].astype(np.float32)
        return self

    @property
    def settings(self) -> ProcessSettings:
        """The hyper-parameters."""
        relevance = dict(zip(self.slices, self.relevance.tolist(), strict=True))
        return ProcessSettings(relevance, self.signal, self.noise, self.slopes)

    def predict_mean(self, x: Table) -> Floats:
        """The mean alone, (n,), in blocks: where n is large it takes a fraction of the time and memory."""
        found = []
        for start in range(0, len(x), _BLOCK):
            block = x[start : start + _BLOCK]
            found.append(self.mean + self._with_known(block) @ self.weights.astype(np.float32))
        return np.concatenate([np.zeros(0), *found])

    def predict(self, x: Table) -> tuple[Floats, Floats]:
        """Mean and variance without noise, (n,) each."""
        covariance = self._with_known(x).astype(np.float32, copy=False)
        mean = self.mean + covariance @ self.weights
        explained = np.einsum("ij,ij->i", *[self._whitened(covariance)] * 2)
        prior = self.signal + (np.square(self._lines(x)).sum(axis=1) if self.slopes else 0.0)
        return mean, np.maximum(prior - explained.astype(np.float64), 1e-6)

    def covariance(self, x: Table) -> Floats:
        """Posterior covariance without noise, (n, n)."""
        stretched = self._stretched(x)
        prior = _rational_quadratic(self.signal, stretched, stretched)
        if self.slopes:
            prior = prior + self._lines(x) @ self._lines(x).T
        known = self._whitened(self._with_known(x).astype(np.float32, copy=False))
        return (prior - known @ known.T).astype(np.float64)

    def _whitened(self, covariance: Table) -> Table:
        """Prior covariances with what was learnt from, (n, m), times the inverse factor: what explains variance."""
        return np.asarray(blas.strmm(1.0, self.root, covariance.T, lower=1).T, dtype=np.float32)

    def _with_known(self, x: Table) -> Table:
        """Prior covariances with what was learnt from, (n, m)."""
        covariance = _rational_quadratic(self.signal, self._stretched(x), self.x)
        return covariance + self._lines(x) @ self._known.T if self.slopes else covariance

    def _lines(self, x: Table) -> Table:
        """A constant, and what is remembered and believed, times the deviations of their slopes; (n, 1 + lines)."""
        columns = [x[:, self._remembered[group]] * np.float32(np.sqrt(v)) for group, v in self.slopes.items()]
        return np.stack([np.ones(len(x), np.float32), *columns], axis=1)

    def _stretched(self, x: Table) -> Table:
        columns = [
            x[:, where] * np.float32(np.sqrt(r)) for where, r in zip(self.slices.values(), self.relevance, strict=True)
        ]
        return np.concatenate([np.zeros((len(x), 0), x.dtype), *columns], axis=1)

    def _choose(self, x: Floats, targets: Floats) -> None:
        """Sets relevance, signal, noise and slopes."""
        n = len(x)
        centred = targets - targets.mean()
        below = np.tril_indices(n)
        distances = np.zeros((len(self.slices), len(below[0])))
        for row, columns in zip(distances, self.slices.values(), strict=True):
            row[:] = _squared_distances(x[:, columns], x[:, columns])[below]
        best = self._likeliest(distances, np.zeros((0, n)), centred)
        believed: list[str] = []
        left = list(self._remembered)
        while left:
            tried = [[self._remembered[each] for each in [*believed, group]] for group in left]
            found = [self._likeliest(distances, x.T[columns], centred) for columns in tried]
            likeliest = int(np.argmin([loss for loss, _ in found]))
            if not best[0] - found[likeliest][0] > _LEAST_GAIN:
                break
            best = found[likeliest]
            believed.append(left.pop(likeliest))
        groups = len(self.slices)
        values = np.exp(best[1])
        self.relevance = values[:groups]
        self.signal, self.noise = values[groups : groups + 2].tolist()
        self.slopes = dict(zip(believed, values[groups + 2 :].tolist(), strict=True))

    def _likeliest(self, distances: Floats, lines: Floats, centred: Floats) -> tuple[float, Floats]:
        """The least loss, and the logarithms of relevances, signal, noise and slopes' variances that have it.

        Args:
            distances: squared distances of the observed in each group, the lower triangles with their diagonals,
                (groups, n * (n + 1) / 2).
            lines: what is remembered of them, (lines, n).
            centred: their targets less the mean, (n,).
        """
        n, groups = len(centred), len(distances)
        prior = np.array(
            [_prior(group)[0] for group in self.slices] + [_LOG_SIGNAL, _LOG_NOISE] + [_LOG_SLOPE] * len(lines)
        )
        spread = np.array(
            [_prior(group)[1] for group in self.slices]
            + [_LOG_SIGNAL_SPREAD, _LOG_NOISE_SPREAD]
            + [_LOG_SLOPE_SPREAD] * len(lines)
        )
        below = np.tril_indices(n)
        diagonal = np.diag_indices(n)
        on_diagonal = below[0] == below[1]
        times = np.where(on_diagonal, 1.0, 2.0)  # that each element of a triangle stands in the whole
        products = lines[:, below[0]] * lines[:, below[1]]

        def loss(parameters: Floats) -> tuple[float, Floats]:
            relevance, signal, noise = np.exp(parameters[:groups]), *np.exp(parameters[groups : groups + 2])
            slopes = np.exp(parameters[groups + 2 :])
            shape = 1 / (1 + 0.5 * (relevance @ distances))
            covariance = np.zeros((n, n), order="F")  # its upper half is not read
            covariance[below] = signal * shape + (1 + slopes @ products if len(lines) else 0)
            covariance[diagonal] += noise + 1e-8
            factor, info = lapack.dpotrf(covariance, lower=1)
            if info:
                return 1e10, np.zeros_like(parameters)
            weights = lapack.dpotrs(factor, centred, lower=1)[0]
            inverse = lapack.dpotri(factor, lower=1)[0]
            inner = 0.5 * (inverse[below] - weights[below[0]] * weights[below[1]])
            away = (parameters - prior) / spread
            value = 0.5 * centred @ weights + np.log(np.diag(factor)).sum() + 0.5 * away @ away
            each = times * inner * shape
            gradient = np.concatenate(
                [
                    relevance * (distances @ ((-0.5 * signal) * each * shape)),
                    [signal * each.sum(), noise * inner[on_diagonal].sum()],
                    slopes * (products @ (times * inner)),
                ]
            )
            return float(value), gradient + away / spread

        found = minimize(loss, prior, jac=True, method="L-BFGS-B", options={"maxiter": _HYPER_STEPS})
        return float(found.fun), found.x


def _prior(group: str) -> tuple[float, float]:
    """Mean and deviation of the logarithm of a group's relevance, before anything is known."""
    name = UNTRAINED if is_untrained(group) else group
    return _RELEVANCE.get(name, _OTHER_RELEVANCE), _WIDE_SPREAD.get(name, _RELEVANCE_SPREAD)


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


def _rational_quadratic(signal: float, a: AnyFloats, b: AnyFloats) -> AnyFloats:
    """``signal / (1 + |a_i - b_j|^2 / 2)``, all in one array: making large ones takes longer than the arithmetic."""
    shape = _squared_distances(a, b)
    shape *= 0.5
    shape += 1
    return np.divide(signal, shape, out=shape)


def _squared_distances(a: AnyFloats, b: AnyFloats) -> AnyFloats:
    product = (-2 * a) @ b.T
    product += np.einsum("ij,ij->i", a, a)[:, None]
    product += np.einsum("ij,ij->i", b, b)
    return np.maximum(product, 0, out=product)
