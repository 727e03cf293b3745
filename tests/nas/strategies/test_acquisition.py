"""Acquisition functions against what defines them, and the batch rule against what it promises."""

from __future__ import annotations

import numpy as np
import pytest

from nas.predictors.scores import ScorePredictor
from nas.predictors.targets import normal_scores
from nas.spaces.nasbench201 import NASBench201
from nas.strategies.acquisition import (
    expected_hypervolume_gain,
    expected_improvement,
    greedy_batch,
    independent_thompson,
    upper_confidence,
)
from nas.strategies.model import best_first
from nas.strategies.nasgem import Nasgem

RNG = np.random.default_rng(0)
MEAN, DEVIATION = np.array([0.0, 1.0, -2.0]), np.array([1.0, 0.3, 2.0])


def test_upper_confidence_adds_deviations_to_the_mean() -> None:
    np.testing.assert_allclose(upper_confidence(MEAN, DEVIATION, 2.0), [2.0, 1.6, 2.0])


def test_expected_improvement_is_the_mean_of_what_draws_improve_by() -> None:
    draws = RNG.normal(MEAN, DEVIATION, (400_000, 3))
    np.testing.assert_allclose(
        expected_improvement(MEAN, DEVIATION, 0.5), np.maximum(draws - 0.5, 0).mean(axis=0), atol=5e-3
    )
    np.testing.assert_allclose(expected_improvement(MEAN, np.zeros(3), 0.5), [0, 0.5, 0], atol=1e-9)


def test_thompson_draws_have_mean_and_deviation() -> None:
    draws = np.array([independent_thompson(MEAN, DEVIATION, RNG) for _ in range(20_000)])
    np.testing.assert_allclose(draws.mean(axis=0), MEAN, atol=0.05)
    np.testing.assert_allclose(draws.std(axis=0), DEVIATION, atol=0.05)


def test_expected_hypervolume_gain_is_the_mean_of_the_areas_that_draws_add() -> None:
    front, reference = np.array([[3.0, 1.0], [1.0, 2.0], [0.5, 0.5]]), np.array([0.0, 0.0])
    mean, deviation = np.array([[2.0, 2.0]]), np.array([[0.7, 0.5]])

    def area(points: np.ndarray) -> float:
        grid = (np.arange(0, 8, 0.02) + 0.01)[:, None]
        height = np.max([np.where(grid < x, y, 0) for x, y in points if x > 0 and y > 0], axis=0)
        return float(height.sum() * 0.02)

    before = area(front)
    draws = RNG.normal(mean[0], deviation[0], (1500, 2))
    expected = np.mean([area(np.vstack([front, draw])) - before for draw in draws])
    assert expected_hypervolume_gain(mean, deviation, front, reference)[0] == pytest.approx(expected, abs=0.12)


class TestBatch:
    # Twins, which are nearly one candidate, and another with a lower mean.
    mean = np.array([0.5, 1.0, 0.99])
    covariance = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.99], [0.0, 0.99, 1.0]])

    def test_the_best_by_mean_and_deviation_comes_first(self) -> None:
        assert greedy_batch(self.mean, self.covariance, 0.0, 1.0, 1).tolist() == [1]
        uncertain = np.diag([25.0, 1.0, 1.0])
        assert greedy_batch(self.mean, uncertain, 0.0, 1.0, 1).tolist() == [0]
        assert greedy_batch(self.mean, uncertain, 0.0, 0.0, 1).tolist() == [1]

    def test_a_twin_tells_nothing_new_where_evaluations_are_exact(self) -> None:
        assert greedy_batch(self.mean, self.covariance, 0.0, 1.0, 2).tolist() == [1, 0]

    def test_a_twin_is_worth_evaluating_where_they_are_noisy(self) -> None:
        assert greedy_batch(self.mean, self.covariance, 100.0, 1.0, 2).tolist() == [1, 2]

    def test_deviations_are_those_after_the_batch_so_far(self) -> None:
        rng = np.random.default_rng(1)
        factor = rng.normal(size=(12, 6))
        covariance, mean, noise, beta = factor @ factor.T, rng.normal(size=12), 0.3, 1.5
        found = greedy_batch(mean, covariance, noise, beta, 12).tolist()
        for k in range(12):
            known = found[:k]
            gain = covariance[:, known] @ np.linalg.solve(
                covariance[np.ix_(known, known)] + noise * np.eye(k), covariance[known]
            )
            values = mean + beta * np.sqrt(np.maximum(np.diag(covariance - gain), 0))
            values[known] = -np.inf
            assert found[k] == int(np.argmax(values))

    def test_every_candidate_comes_once_and_nothing_given_is_changed(self) -> None:
        before = self.covariance.copy()
        assert sorted(greedy_batch(self.mean, self.covariance, 0.1, 1.0, 3).tolist()) == [0, 1, 2]
        np.testing.assert_array_equal(self.covariance, before)

    def test_nasgem_puts_batches_together_with_the_predictors_noise_and_its_own_beta(self, monkeypatch) -> None:
        from test_strategies import build, run

        given: list[tuple[float, float]] = []

        def spy(mean, covariance, noise, beta, n):
            given.append((noise, beta))
            return greedy_batch(mean, covariance, noise, beta, n)

        monkeypatch.setattr("nas.strategies.nasgem.greedy_batch", spy)
        monkeypatch.setattr(ScorePredictor, "noise_", property(lambda self: 0.123))
        strategy = build("nasgem", NASBench201(), encoder=None, beta=0.7)
        assert isinstance(strategy, Nasgem)
        run(strategy, 15)
        assert given == [(0.123, 0.7)]


def test_best_first_ranks_what_is_free_and_breaks_ties_at_random() -> None:
    values = np.array([1.0, 3.0, 2.0, 3.0, 9.0])
    free = np.array([True, True, True, True, False])
    orders = {tuple(best_first(values, free, np.random.default_rng(k)).tolist()) for k in range(20)}
    assert orders == {(1, 3, 2, 0), (3, 1, 2, 0)}


def test_normal_scores_keep_order_and_forget_distance() -> None:
    scores = normal_scores(np.array([5.0, -1000.0, 6.0, 5.0]))
    assert scores[1] < scores[0] == scores[3] < scores[2]
    np.testing.assert_allclose(normal_scores(np.array([1.0, 2.0, 3.0])), [-0.967, 0.0, 0.967], atol=1e-3)
