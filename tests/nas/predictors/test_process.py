"""The process against the formulas of its docstrings, written down a second time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from nas.predictors import process as process_module
from nas.predictors.process import GroupProcess, ProcessSettings

SLICES = {"count": slice(0, 2), "mine": slice(2, 3), "remembered 0": slice(3, 4), "remembered 1": slice(4, 5)}
SETTINGS = ProcessSettings({"count": 0.5, "mine": 0.2}, 1.5, 0.1, {"remembered 1": 0.7})


def drawn(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)


def covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """That of `SETTINGS`: a rational quadratic kernel, a constant, and a line."""
    away = np.square(a[:, None] - b[None]).astype(np.float64)
    distance = 0.5 * away[:, :, :2].sum(axis=2) + 0.2 * away[:, :, 2]
    return 1.5 / (1 + distance / 2) + 1 + 0.7 * np.outer(a[:, 4], b[:, 4])


def test_what_is_remembered_adds_a_constant_and_a_line() -> None:
    known, asked = drawn(25), drawn(8, 1)
    targets = np.random.default_rng(2).normal(3, 1, 25)
    process = GroupProcess(SLICES).fit(known, targets, 0, SETTINGS)
    inverse = np.linalg.inv(covariance(known, known) + 0.1 * np.eye(25))
    across = covariance(asked, known)
    mean = targets.mean() + across @ inverse @ (targets - targets.mean())
    posterior = covariance(asked, asked) - across @ inverse @ across.T
    found, variance = process.predict(asked)
    np.testing.assert_allclose(found, mean, atol=1e-3)
    np.testing.assert_allclose(process.predict_mean(asked), mean, atol=1e-3)
    np.testing.assert_allclose(variance, np.diag(posterior), atol=1e-3)
    np.testing.assert_allclose(process.covariance(asked), posterior, atol=1e-3)


def test_hyper_parameters_maximise_the_likelihood_times_the_priors() -> None:
    x = drawn(40).astype(np.float64)
    centred = np.sin(2 * x[:, 0]) + 0.5 * x[:, 3] + 0.2 * np.random.default_rng(1).normal(size=40)
    centred -= centred.mean()
    distances = np.array([np.square(x[:, None, c] - x[None, :, c]).sum(axis=2).ravel() for c in ([0, 1], [2])])
    lines = x.T[[3]]
    module = process_module
    usual = np.array([module._RELEVANCE["count"], module._OTHER_RELEVANCE, module._LOG_SIGNAL, module._LOG_NOISE])
    prior = np.append(usual, module._LOG_SLOPE)
    spread = np.array([module._RELEVANCE_SPREAD] * 2 + [module._LOG_SIGNAL_SPREAD, module._LOG_NOISE_SPREAD])
    spread = np.append(spread, module._LOG_SLOPE_SPREAD)

    def loss(parameters: np.ndarray) -> float:
        first, second, signal, noise, slope = np.exp(parameters)
        shape = 1 / (1 + (first * distances[0] + second * distances[1]).reshape(40, 40) / 2)
        whole = signal * shape + 1 + slope * np.outer(x[:, 3], x[:, 3]) + noise * np.eye(40)
        likelihood = multivariate_normal(cov=whole).logpdf(centred) + 20 * np.log(2 * np.pi)
        return float(-likelihood + 0.5 * np.square((parameters - prior) / spread).sum())

    rows, columns = np.tril_indices(40)
    triangles = distances.reshape(2, 40, 40)[:, rows, columns]
    least, found = GroupProcess(SLICES)._likeliest(triangles, lines, centred)
    assert least == pytest.approx(loss(found), abs=1e-3)
    for place in range(5):
        for step in (-0.1, 0.1):
            assert loss(found + step * np.eye(5)[place]) > least
    assert least < loss(prior) - 1


def test_hyper_parameters_are_those_of_as_many_rows_as_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "_HYPER_ROWS", 20)
    x, targets = drawn(60), np.sin(drawn(60)[:, 0].astype(np.float64))
    rows = np.sort(np.random.default_rng(5).choice(np.arange(60), 20, replace=False))
    whole, some = (GroupProcess(SLICES).fit(x[k], targets[k], 5) for k in (np.arange(60), rows))
    assert whole.settings == some.settings
    assert len(whole.weights) == 60


def test_a_group_that_settings_lack_is_worth_what_it_is_worth_before_anything_is_known() -> None:
    settings = ProcessSettings({"mine": 0.3}, 1.0, 0.1, {"remembered 7": 1.0})
    found = GroupProcess(SLICES).fit(drawn(9), np.arange(9.0), 0, settings).settings
    assert found.relevance == {"count": pytest.approx(np.exp(-3.9)), "mine": 0.3}
    assert not found.slopes


class TestMemories:
    x = drawn(40)

    def believed(self, targets: np.ndarray) -> set[str]:
        noisy = targets + 0.1 * np.random.default_rng(3).normal(size=40)
        return set(GroupProcess(SLICES).fit(self.x, noisy, 0).settings.slopes)

    def test_the_one_that_is_true_is_believed_wherever_it_stands(self) -> None:
        assert self.believed(self.x[:, 3]) == {"remembered 0"}
        assert self.believed(self.x[:, 4]) == {"remembered 1"}

    def test_both_are_believed_where_each_knows_a_part(self) -> None:
        assert self.believed(self.x[:, 3] + self.x[:, 4]) == {"remembered 0", "remembered 1"}

    def test_none_is_believed_that_says_nothing(self) -> None:
        assert self.believed(np.sin(2 * self.x[:, 0])) == set()
