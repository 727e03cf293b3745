"""Acquisition functions against what defines them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from nas.predictors.targets import normal_scores
from nas.strategies.acquisition import (
    expected_hypervolume_gain,
    expected_improvement,
    find_acquisition,
    independent_thompson,
    upper_confidence,
)
from nas.strategies.history import StrategyError

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


def test_acquisitions_are_found_by_name() -> None:
    np.testing.assert_array_equal(find_acquisition("ucb", 2.0)(MEAN, DEVIATION, 9.0), MEAN + 2.0 * DEVIATION)
    expected = expected_improvement(MEAN, DEVIATION, 0.5)
    np.testing.assert_array_equal(find_acquisition("ei", 2.0)(MEAN, DEVIATION, 0.5), expected)
    with pytest.raises(StrategyError, match="'ucb'"):
        find_acquisition("ubc", 2.0)


def test_thompson_draws_have_mean_and_deviation() -> None:
    draws = np.array([independent_thompson(MEAN, DEVIATION, RNG) for _ in range(20_000)])
    np.testing.assert_allclose(draws.mean(axis=0), MEAN, atol=0.05)
    np.testing.assert_allclose(draws.std(axis=0), DEVIATION, atol=0.05)


def test_expected_hypervolume_gain_is_the_chance_of_each_place_to_be_added_all_summed_up() -> None:
    front, reference = np.array([[3.0, 1.0], [1.0, 2.0], [0.5, 0.5]]), np.array([-0.5, 0.25])
    mean, deviation = np.array([[2.0, 2.0], [0.5, 1.0]]), np.array([[0.7, 0.4], [0.2, 0.9]])
    x, y = (np.arange(start, 10, 0.01) + 0.005 for start in reference)
    new = ~np.any([(x[:, None] < a) & (y < b) for a, b in front], axis=0)
    reached = [norm.sf(x, m[0], d[0])[:, None] * norm.sf(y, m[1], d[1]) for m, d in zip(mean, deviation, strict=True)]
    expected = [float((chance * new).sum() * 0.01**2) for chance in reached]
    np.testing.assert_allclose(expected_hypervolume_gain(mean, deviation, front, reference), expected, rtol=1e-3)


def test_hypervolume_gain_of_what_is_known_is_the_area_between_front_and_reference() -> None:
    front, reference = np.array([[2.0, 5.0], [4.0, 3.0], [0.5, 9.0], [9.0, 1.5]]), np.array([1.0, 2.0])
    gains = {
        (3.0, 4.0): 1.0,  # in the front's corner
        (5.0, 3.0): 1.0,  # beyond its right end
        (1.5, 6.0): 0.5,  # above its left end
        (5.0, 6.0): 11.0,  # dominates all of it that counts
        (4.0, 3.0): 0.0,
        (2.0, 2.5): 0.0,
        (0.9, 9.0): 0.0,  # below the reference in one objective, like the front's last two points
        (9.0, 1.9): 0.0,
    }
    found = expected_hypervolume_gain(np.array(list(gains)), np.zeros((len(gains), 2)), front, reference)
    np.testing.assert_allclose(found, list(gains.values()), atol=1e-9)


def test_normal_scores_keep_order_and_forget_distance() -> None:
    scores = normal_scores(np.array([5.0, -1000.0, 6.0, 5.0]))
    assert scores[1] < scores[0] == scores[3] < scores[2]
    np.testing.assert_allclose(normal_scores(np.array([1.0, 2.0, 3.0])), [-0.967, 0.0, 0.967], atol=1e-3)
