"""Batch rules against what they promise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from nas.strategies.acquisition import expected_hypervolume_gain, expected_improvement, upper_confidence
from nas.strategies.batch import best_first, greedy_batch, hypervolume_batch


def bound(beta: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return partial(upper_confidence, beta=beta)


class TestBatch:
    # Twins, which are nearly one candidate, and another with a lower mean.
    mean = np.array([0.5, 1.0, 0.99])
    covariance = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.99], [0.0, 0.99, 1.0]])

    def test_the_best_by_mean_and_deviation_comes_first(self) -> None:
        assert greedy_batch(self.mean, self.covariance, 0.0, bound(1.0), 1).tolist() == [1]
        uncertain = np.diag([25.0, 1.0, 1.0])
        assert greedy_batch(self.mean, uncertain, 0.0, bound(1.0), 1).tolist() == [0]
        assert greedy_batch(self.mean, uncertain, 0.0, bound(0.0), 1).tolist() == [1]

    def test_a_twin_tells_nothing_new_where_evaluations_are_exact(self) -> None:
        assert greedy_batch(self.mean, self.covariance, 0.0, bound(1.0), 2).tolist() == [1, 0]

    def test_a_twin_is_worth_evaluating_where_they_are_noisy(self) -> None:
        assert greedy_batch(self.mean, self.covariance, 100.0, bound(1.0), 2).tolist() == [1, 2]

    def test_deviations_are_those_after_the_batch_so_far(self) -> None:
        rng = np.random.default_rng(1)
        factor = rng.normal(size=(12, 6))
        covariance, mean, noise, beta = factor @ factor.T, rng.normal(size=12), 0.3, 1.5
        found = greedy_batch(mean, covariance, noise, bound(beta), 12).tolist()
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
        assert sorted(greedy_batch(self.mean, self.covariance, 0.1, bound(1.0), 3).tolist()) == [0, 1, 2]
        np.testing.assert_array_equal(self.covariance, before)


def test_best_first_ranks_what_is_free_and_breaks_ties_at_random() -> None:
    values = np.array([1.0, 3.0, 2.0, 3.0, 9.0])
    free = np.array([True, True, True, True, False])
    orders = {tuple(best_first(values, free, np.random.default_rng(k)).tolist()) for k in range(20)}
    assert orders == {(1, 3, 2, 0), (3, 1, 2, 0)}


def test_a_batch_by_expected_improvement_is_spread_out_too() -> None:
    worth = partial(expected_improvement, best=0.9)
    assert greedy_batch(TestBatch.mean, TestBatch.covariance, 0.0, worth, 1).tolist() == [1]
    assert greedy_batch(TestBatch.mean, TestBatch.covariance, 0.0, worth, 2).tolist() == [1, 0]


class TestHypervolumeBatch:
    front = np.array([[3.0, 1.0], [1.0, 3.0]])
    # Twins far beyond the front's middle, one beyond its end, one that adds nothing.
    mean = np.array([[2.5, 2.5], [2.5, 2.49], [3.5, 1.1], [0.5, 0.5]])
    deviation = np.full((4, 2), 1e-3)

    def test_what_adds_most_comes_first_and_its_twin_after_others(self) -> None:
        free = np.ones(4, dtype=np.bool_)
        found = hypervolume_batch(self.mean, self.deviation, self.front, free, 2, np.random.default_rng(0))
        assert found.tolist() == [0, 2, 1, 3]

    def test_only_what_is_free_is_taken(self) -> None:
        free = np.array([False, True, True, True])
        found = hypervolume_batch(self.mean, self.deviation, self.front, free, 9, np.random.default_rng(0))
        assert found.tolist() == [1, 2, 3]

    def test_without_a_batch_it_is_the_order_of_the_gains(self) -> None:
        free = np.ones(4, dtype=np.bool_)
        found = hypervolume_batch(self.mean, self.deviation, self.front, free, 0, np.random.default_rng(0))
        gains = expected_hypervolume_gain(self.mean, self.deviation, self.front, np.array([0.8, 0.8]))
        assert found[:3].tolist() == np.argsort(-gains)[:3].tolist()

    def test_a_little_below_the_worst_of_the_front_counts(self) -> None:
        mean = np.array([[2.0, 1.05], [3.5, 1.0]])  # a strip of 0.05 above the front, and of 0.1 beyond its end
        found = hypervolume_batch(mean, np.zeros((2, 2)), self.front, np.ones(2, np.bool_), 1, np.random.default_rng(0))
        assert found.tolist() == [1, 0]

    def test_one_point_is_compared_with_what_lies_one_below_it(self) -> None:
        front, mean = np.array([[3.0, 1.0]]), np.array([[3.05, 1.05], [3.5, 0.5]])  # they add 0.1025 and 0.25
        found = hypervolume_batch(mean, np.zeros((2, 2)), front, np.ones(2, np.bool_), 1, np.random.default_rng(0))
        assert found.tolist() == [1, 0]
