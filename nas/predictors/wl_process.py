"""A Gaussian process on the Weisfeiler-Lehman kernel of cells and on macro choices, through scikit-learn.

Ru, Wan, Dong and Osborne, "Interpretable Neural Architecture Search via Bayesian Optimisation with Weisfeiler-Lehman
Kernels", ICLR 2021 (NAS-BOWL). Theirs are spaces of cells alone; the factor for macro choices is ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Hyperparameter, Kernel, WhiteKernel

from nas.encoder.inputs import without_zero_ops
from nas.graphs.wl import WLVocabulary, wl_features
from nas.predictors.features import choice_table
from nas.predictors.pool import Pool
from nas.predictors.targets import normal_scores
from nas.spaces.base import CandidateBatch

Floats = NDArray[np.float64]


class CellKernel(Kernel):
    """The cosine of two cells' WL features. Inputs are row numbers, (n, 1).

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
        left = self.features[_places(X)]
        right = left if Y is None else self.features[_places(Y)]
        block = (left @ right.T).toarray()
        return (block, np.empty((*block.shape, 0))) if eval_gradient else block

    def diag(self, X: Floats) -> Floats:
        return np.ones(len(X))

    def is_stationary(self) -> bool:
        return False


class ChoiceKernel(Kernel):
    """``exp(-d^2 / (2 length^2))`` of two candidates' macro choices. Inputs are row numbers, (n, 1).

    Args:
        choices: macro choices of all rows that will be asked for, as `choice_table` has them, (m, c).
        length: the length scale, common to all choices.
        length_bounds: least and greatest.
    """

    def __init__(
        self, choices: Floats, length: float = 2.0, length_bounds: tuple[float, float] | str = (0.1, 1e3)
    ) -> None:
        self.choices = choices
        self.length = length
        self.length_bounds = length_bounds

    @property
    def hyperparameter_length(self) -> Hyperparameter:
        return Hyperparameter("length", "numeric", self.length_bounds)

    def __call__(
        self, X: Floats, Y: Floats | None = None, eval_gradient: bool = False
    ) -> Floats | tuple[Floats, Floats]:
        left = self.choices[_places(X)]
        right = left if Y is None else self.choices[_places(Y)]
        away = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1) - 2 * left @ right.T
        away = np.maximum(away, 0) / self.length**2
        block = np.exp(-0.5 * away)
        # With respect to the logarithm of the length, as scikit-learn wants it.
        return (block, (block * away)[:, :, None]) if eval_gradient else block

    def diag(self, X: Floats) -> Floats:
        return np.ones(len(X))

    def is_stationary(self) -> bool:
        return False


@dataclass(frozen=True)
class WLSettings:
    """Hyper-parameters of a `WLProcess`.

    Args:
        likelihood: logarithm of the marginal likelihood that they were chosen by.
        iterations: WL iterations.
        signal, noise: factor of the covariance, and variance of the noise.
        length: length scale of macro choices.
    """

    likelihood: float
    iterations: int
    signal: float = 1.0
    noise: float = 0.1
    length: float = 2.0


class WLProcess:
    """Learns the normal scores of candidates; covariance ``c * cosine(cells) * likeness(choices) + noise``.

    The marginal likelihood picks the number of WL iterations, c, the noise and the length scale of macro choices. Where
    a space has none, or where it has choices alone, the other factor is 1.

    Args:
        iterations: numbers of WL iterations to choose from.
    """

    def __init__(self, iterations: Sequence[int] = (0, 1, 2, 3)) -> None:
        self.iterations = tuple(iterations)

    def settle(self, observed: Pool, scores: Floats) -> WLSettings:
        """Hyper-parameters by marginal likelihood.

        Args:
            observed: candidates, n of them.
            scores: their scores (n,).
        """
        fits = []
        for iterations in self.iterations:
            model = _fit(_kernel(observed, None, WLSettings(0.0, iterations)), normal_scores(scores))
            found = {name.rpartition("__")[2]: value for name, value in model.kernel_.get_params().items()}
            fits.append(
                WLSettings(
                    float(model.log_marginal_likelihood_value_),
                    iterations,
                    float(found["constant_value"]),
                    float(found["noise_level"]),
                    float(found.get("length", 1.0)),
                )
            )
        return max(fits, key=lambda fit: (fit.likelihood, fit.iterations))

    def fit(self, observed: Pool, scores: Floats, pool: Pool, settings: WLSettings | None = None) -> WLProcess:
        """Learns from candidates and their scores.

        Args:
            observed: candidates, n of them.
            scores: their scores (n,).
            pool: those that will be asked for.
            settings: hyper-parameters; None chooses them.
        """
        settings = settings or self.settle(observed, scores)
        self.targets_ = normal_scores(scores)
        self._model = _fit(_kernel(observed, pool, settings), self.targets_, fixed=True)
        return self

    def predict_latent(self, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Mean and standard deviation on the scale of ``targets_`` for rows of the pool given to `fit`, (n,) each."""
        mean, deviation = self._model.predict(self._asked(rows), return_std=True)
        return mean, deviation

    def predict_mean(self, rows: NDArray[np.intp]) -> Floats:
        """The mean alone, which takes a fraction of the time."""
        return self._model.predict(self._asked(rows))

    def _asked(self, rows: NDArray[np.intp]) -> Floats:
        return (len(self.targets_) + np.asarray(rows, dtype=np.float64))[:, None]


def _places(rows: Floats) -> NDArray[np.intp]:
    return rows[:, 0].astype(np.intp)


def _fit(kernel: Kernel, targets: Floats, fixed: bool = False) -> GaussianProcessRegressor:
    """A process that has learnt the targets of the kernel's first rows."""
    model = GaussianProcessRegressor(kernel, normalize_y=True, optimizer=None if fixed else "fmin_l_bfgs_b")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a factor at its bound is an answer here
        return model.fit(np.arange(len(targets), dtype=np.float64)[:, None], targets)


def _kernel(observed: Pool, pool: Pool | None, settings: WLSettings) -> Kernel:
    """The kernel over the rows of the observed candidates and, after them, of the pool."""
    kernel = ConstantKernel(settings.signal, (1e-2, 1e3)) * CellKernel(_cells(observed, pool, settings.iterations))
    if observed.space.macro_choices:
        parts = [observed] if pool is None else [observed, pool]
        choices = np.concatenate([choice_table(part.space, part.batch).values for part in parts])
        kernel = kernel * ChoiceKernel(choices.astype(np.float64), settings.length)
    return kernel + WhiteKernel(settings.noise, (1e-4, 1e1))


def _cells(observed: Pool, pool: Pool | None, iterations: int) -> csr_array:
    """WL features of unit length. As in NAS-BOWL, nodes that let nothing through are taken out first."""
    zero_ops = observed.space.zero_ops
    if pool is None or observed.is_part_of(pool):
        rows = partial(_unit_cells, zero_ops, iterations)
        parts = [part.view(f"wl{iterations}", rows) for part in (observed, pool) if part is not None]
        return csr_array(parts[0] if pool is None else vstack(parts, format="csr"))
    # Features of two batches share their columns only where they are made together.
    known, asked = WLVocabulary(iterations).fit_transform_pair(
        without_zero_ops(observed.batch.graphs, zero_ops), without_zero_ops(pool.batch.graphs, zero_ops)
    )
    return csr_array(vstack([_unit(known), _unit(asked)], format="csr"))


def _unit_cells(zero_ops: frozenset[str], iterations: int, batch: CandidateBatch) -> csr_array:
    return _unit(wl_features(without_zero_ops(batch.graphs, zero_ops), iterations))


def _unit(features: csr_array) -> csr_array:
    """Rows divided by their Euclidean lengths; float64."""
    features = features.astype(np.float64)
    lengths = np.sqrt(np.asarray(features.multiply(features).sum(axis=1)).reshape(-1))
    return csr_array(features.multiply(1.0 / np.maximum(lengths, 1e-12)[:, None]))
