"""What networks cost on a device of which only a few were measured, where other devices have been measured on many.

A cost is taken to be a sum of prices: so much for each operation and each choice. Ten measurements can't tell whether a
device runs what a cell never reads, nor do they pin down ten prices. So several linear models are averaged by their
evidence (Bayesian model averaging, Hoeting et al., Statistical Science 1999): on operations as drawn, on operations
whose results are read, and on the known devices' own measurements. Prices of the known devices are the prior of the
new one's: the covariance of its costs is the mean of theirs, as in a hierarchical linear model.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from nas.predictors.features import Floats, PredictorError, choice_table
from nas.predictors.nasgem_features import drawn_table, reached_table
from nas.spaces.base import CandidateBatch, SearchSpace

_OWN = 0.05  # variance of prices that no known device has, where that of known ones is about 1
_NOISES = (0.003, 0.01, 0.03, 0.1, 0.3)  # variances, of costs whose variance is 1
_SCALES = (0.3, 1.0, 3.0)
_OFFSET = 4.0  # variance of the constant: the measured may all be cheap
_MOST_TO_CHOOSE_FROM = 1500


class NewDevice:
    """Estimates costs of n candidates on a device from measurements of a few of them.

    Args:
        space, batch: the candidates, n of them.
        known: costs on other devices, (n,) each, in any unit; NaN where a candidate was not measured.

    Raises:
        PredictorError: no known device, or one with another number of costs or fewer than two different ones.

    Example:
        >>> from nas.spaces import make_space
        >>> space = make_space("choices", choices={"depth": [1, 2, 3], "width": [8, 16, 32]})
        >>> batch = space.all()
        >>> other = batch.macro.astype(float) @ [3.0, 1.0]
        >>> device = NewDevice(space, batch, [other])
        >>> rows = device.choose(3, np.random.default_rng(0))
        >>> device.estimate(rows, 2 * other[rows] + 1).shape
        (9,)
    """

    def __init__(self, space: SearchSpace, batch: CandidateBatch, known: Sequence[Floats]) -> None:
        if not len(known):
            raise PredictorError("The costs on at least one other device have to be known, got none.")
        for costs in known:
            if costs.shape != (len(batch),) or len(np.unique(costs[np.isfinite(costs)])) < 2:
                raise PredictorError(
                    f"Costs on a known device are {len(batch)} numbers, NaN where there is none, at least two of them "
                    f"different; got shape {costs.shape} with {np.isfinite(costs).sum()} numbers."
                )
        choices = choice_table(space, batch).values
        drawn, read = drawn_table(batch).values, reached_table(space.zero_ops, batch).values
        self._count = len(batch)
        sets = [drawn] if np.array_equal(drawn, read) else [drawn, read]
        self._models = [_with_prior(_standardised(np.concatenate([each, choices], axis=1)), known) for each in sets]
        columns = [np.where(np.isfinite(costs), costs, np.nanmedian(costs)) for costs in known]
        measured = _standardised(np.stack(columns, axis=1))
        self._models.append((measured, np.eye(measured.shape[1]) / measured.shape[1]))

    def choose(self, count: int, rng: np.random.Generator, among: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
        """Rows to measure: each takes most of the mean variance that the ones before it leave (A-optimal, greedy).

        Args:
            count: how many.
            rng: draws 1,500 candidates to choose from, where there are more.
            among: rows that can be measured; None for all.

        Raises:
            PredictorError: more than there are.
        """
        rows = np.arange(self._count) if among is None else np.asarray(among)
        if not 1 <= count <= len(rows):
            raise PredictorError(f"There are {len(rows)} candidates to choose from, so no {count} can be chosen.")
        if len(rows) > _MOST_TO_CHOOSE_FROM:
            rows = rng.choice(rows, max(count, _MOST_TO_CHOOSE_FROM), replace=False)
        left = np.mean([seen[rows] @ prior @ seen[rows].T for seen, prior in self._models], axis=0)
        noise = 0.05 * float(np.mean(np.diag(left)))
        chosen: list[int] = []
        for _ in range(count):
            gains = np.square(left).sum(axis=0) / (np.diag(left) + noise)
            gains[chosen] = -1
            best = int(gains.argmax())
            chosen.append(best)
            left = left - np.outer(left[:, best], left[:, best]) / (left[best, best] + noise)
        return rows[chosen]

    def estimate(self, rows: NDArray[np.intp], costs: Floats) -> Floats:
        """Costs of all candidates, (n,), in the unit of ``costs``.

        Args:
            rows: candidates that were measured, two or more.
            costs: theirs, (rows,).

        Raises:
            PredictorError: lengths that differ, fewer than two measurements, or costs that are not finite.
        """
        costs = np.asarray(costs, dtype=np.float64)
        if costs.shape != np.shape(rows) or len(costs) < 2 or not np.isfinite(costs).all():
            raise PredictorError(f"{len(rows)} measured candidates, two at least, need as many finite costs.")
        mean, deviation = costs.mean(), costs.std()
        if deviation == 0:
            return np.full(self._count, mean)
        targets = (costs - mean) / deviation
        evidence: list[float] = []
        found: list[Floats] = []
        for (features, prior), noise, scale in product(self._models, _NOISES, _SCALES):
            known = features[rows]
            covariance = scale * known @ prior @ known.T + _OFFSET + noise * np.eye(len(rows))
            factor = np.linalg.cholesky(covariance)
            white = np.linalg.solve(factor, targets)
            evidence.append(float(-0.5 * white @ white - np.log(np.diag(factor)).sum()))
            weights = np.linalg.solve(factor.T, white)
            found.append(features @ (scale * prior @ known.T @ weights) + _OFFSET * weights.sum())
        trust = np.exp(np.array(evidence) - max(evidence))
        return mean + deviation * (trust / trust.sum()) @ np.array(found)


def _standardised(features: NDArray[np.floating]) -> Floats:
    """Columns of mean 0 and deviation 1, in float64; constant ones go."""
    values = features.astype(np.float64)
    values = values[:, np.ptp(values, axis=0) > 0]
    return (values - values.mean(axis=0)) / values.std(axis=0)


def _with_prior(features: Floats, known: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Features (n, f), and the prior covariance of their prices (f, f) for costs whose variance is about 1."""
    size = features.shape[1]
    prices = []
    for costs in known:
        there = np.isfinite(costs)
        seen, targets = features[there], costs[there]
        targets = (targets - targets.mean()) / targets.std()
        prices.append(np.linalg.solve(seen.T @ seen + np.eye(size), seen.T @ targets))
    each = np.array(prices)
    return features, each.T @ each / len(each) + _OWN * np.eye(size) / max(size, 1)
