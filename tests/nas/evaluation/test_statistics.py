"""Means with intervals, and paired comparisons."""

from __future__ import annotations

import numpy as np
import pytest

from nas.evaluation.statistics import mean_interval, paired_difference


@pytest.mark.parametrize("n", [2, 3, 10, 40])
def test_interval_covers_the_true_mean_as_often_as_it_says(n: int) -> None:
    samples = np.random.default_rng(0).normal(size=(2000, n))
    hits = np.mean([interval.low <= 0 <= interval.high for interval in map(mean_interval, samples)])
    assert hits == pytest.approx(0.95, abs=0.015)


def test_interval_of_a_known_sample() -> None:
    interval = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert (interval.low, interval.high) == pytest.approx((0.4457, 4.5543), abs=1e-4)
    assert interval.text("+.1f") == "+2.5 [+0.4, +4.6]"


def test_a_single_value_has_no_interval() -> None:
    interval = mean_interval([2.0])
    assert str(interval) == "2.000"
    assert not interval.clear_of_zero


def test_pairing_sees_a_difference_smaller_than_the_spread() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(0, 5, 50)
    first, second = common + 0.3 + rng.normal(0, 0.1, 50), common
    assert paired_difference(first, second).clear_of_zero
    assert mean_interval(first).low < mean_interval(second).mean < mean_interval(first).high
    with pytest.raises(ValueError, match="equal length"):
        paired_difference(first, second[:-1])


def test_constant_sample_has_an_interval_of_no_width() -> None:
    interval = mean_interval([2.0, 2.0, 2.0])
    assert (interval.low, interval.mean, interval.high) == (2.0, 2.0, 2.0)
