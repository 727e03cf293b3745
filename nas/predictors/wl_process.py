"""A Gaussian process with a linear kernel on sparse features, such as WL counts, through scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Hyperparameter, Kernel, WhiteKernel

from nas.encoder.inputs import without_zero_ops
from nas.graphs.wl import wl_features
from nas.spaces.base import CandidateBatch

Floats = NDArray[np.float64]


class RowKernel(Kernel):
    """The cosine of two rows of a sparse feature matrix. Inputs are row numbers, (n, 1).

    scikit-learn's kernels take dense vectors; WL features have thousands of columns of which a cell fills a dozen.

    Args:
        features: non-negative features of all rows that will be asked for, (m, d).
    """

    def __init__(self, features: csr_array) -> None:
        self.features = features

    @property
    def hyperparameters(self) -> list[Hyperparameter]:
        return []

    def __call__(
        self, X: Floats, Y: Floats | None = None, eval_gradient: bool = False
    ) -> Floats | tuple[Floats, Floats]:
        left = self._rows(X)
        right = left if Y is None else self._rows(Y)
        block = (left @ right.T).toarray()
        return (block, np.empty((*block.shape, 0))) if eval_gradient else block

    def diag(self, X: Floats) -> Floats:
        return np.ones(len(X))

    def is_stationary(self) -> bool:
        return False

    def _rows(self, X: Floats) -> csr_array:
        return self.features[X[:, 0].astype(np.intp)]


def unit_rows(features: csr_array) -> csr_array:
    """Rows divided by their Euclidean lengths; float64."""
    features = features.astype(np.float64)
    lengths = np.sqrt(np.asarray(features.multiply(features).sum(axis=1)).reshape(-1))
    return csr_array(features.multiply(1.0 / np.maximum(lengths, 1e-12)[:, None]))


def fit_rows(
    features: csr_array, rows: NDArray[np.intp], targets: Floats, start: tuple[float, float] | None = None
) -> GaussianProcessRegressor:
    """A GP with the kernel ``c * cosine + noise``.

    Args:
        features: unit rows, (m, d).
        rows: the training rows, (n,).
        targets: their values, (n,).
        start: factor and noise to take as they are; None chooses both by marginal likelihood.
    """
    factor, noise = start or (1.0, 0.1)
    kernel = ConstantKernel(factor, (1e-2, 1e3)) * RowKernel(features) + WhiteKernel(noise, (1e-4, 1e1))
    model = GaussianProcessRegressor(kernel, normalize_y=True, optimizer=None if start else "fmin_l_bfgs_b")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a factor at its bound is an answer here
        return model.fit(rows[:, None].astype(np.float64), targets)


def factors(model: GaussianProcessRegressor) -> tuple[float, float]:
    """Factor and noise of a GP fitted by `fit_rows`."""
    return float(model.kernel_.k1.k1.constant_value), float(model.kernel_.k2.noise_level)


def wl_rows(zero_ops: frozenset[str], iterations: int, batch: CandidateBatch) -> csr_array:
    """WL features of unit length, (n, d). As in NAS-BOWL, nodes that let nothing through are taken out first."""
    return unit_rows(wl_features(without_zero_ops(batch.graphs, zero_ops), iterations))
