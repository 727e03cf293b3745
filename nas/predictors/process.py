"""A Gaussian process with a relevance for each group of features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lapack, solve_triangular
from scipy.optimize import minimize

from nas.predictors.features import Floats, PredictorError, Table

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


_BLOCK = 1024  # candidates whose covariances with the observations fit into the cache


@dataclass(frozen=True)
class ProcessSettings:
    """Hyper-parameters of a `GroupProcess`.

    Args:
        relevance: group -> inverse squared length scale.
        signal, noise: variances.
    """

    relevance: Mapping[str, float]
    signal: float
    noise: float


class GroupProcess:
    """An exact Gaussian process: ``k(x, x') = signal / (1 + sum_g relevance_g |x_g - x'_g|^2 / 2)``, constant noise.

    A rational quadratic kernel of exponent 1 (a mixture of squared exponentials of many length scales) with one
    relevance a group. Hyper-parameters maximise the marginal likelihood times log-normal priors. scikit-learn's process
    is not used: it has no kernel over groups of columns, and one written for it would have to hand over its gradient as
    an n x n x groups array on every step, where one matrix product does.
    """

    def __init__(self, slices: dict[str, slice]) -> None:
        self.slices = slices

    def fit(self, x: Table, targets: Floats, seed: int, settings: ProcessSettings | None = None) -> GroupProcess:
        """Learns targets (n,) of candidates; hyper-parameters are chosen where none are given."""
        if settings is None:
            rows = np.arange(len(x))
            if len(x) > _HYPER_ROWS:
                rows = np.sort(np.random.default_rng(seed).choice(rows, _HYPER_ROWS, replace=False))
            self._choose(x[rows].astype(np.float64), targets[rows])
        else:
            # A group that did not vary then is worth what it is worth before anything is known.
            usual = {group: float(np.exp(_RELEVANCE.get(group, _OTHER_RELEVANCE))) for group in self.slices}
            self.relevance = np.array([settings.relevance.get(group, usual[group]) for group in self.slices])
            self.signal, self.noise = settings.signal, settings.noise
        self.x = self._stretched(x)
        exact = self.x.astype(np.float64)
        covariance = np.asarray(self.signal / (1 + 0.5 * _squared_distances(exact, exact)), dtype=np.float64)
        covariance[np.diag_indices(len(x))] += self.noise
        factor = _factor(covariance)
        self.mean = float(targets.mean())
        self.weights = cho_solve(factor, targets - self.mean)
        self.root = solve_triangular(factor[0], np.eye(len(x)), lower=True).astype(np.float32)
        return self

    @property
    def settings(self) -> ProcessSettings:
        """The hyper-parameters."""
        return ProcessSettings(dict(zip(self.slices, self.relevance.tolist(), strict=True)), self.signal, self.noise)

    def predict_mean(self, x: Table) -> Floats:
        """The mean alone, (n,), in blocks: where n is large it takes a fraction of the time and memory."""
        found = []
        for start in range(0, len(x), _BLOCK):
            near = 1 + 0.5 * _squared_distances(self._stretched(x[start : start + _BLOCK]), self.x)
            found.append(self.mean + (self.signal / near) @ self.weights.astype(np.float32))
        return np.concatenate([np.zeros(0), *found])

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

    def _choose(self, x: Floats, targets: Floats) -> None:
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
            covariance[diagonal] += noise + 1e-8
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
