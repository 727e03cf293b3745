import numpy as np
import pytest

from nas.evaluation.score import EfficiencyScore
from nas.spaces.limits import Limits, LimitsError


def test_twice_the_macs_costs_weight_points() -> None:
    score = EfficiencyScore(target_macs=10e6, weight=1.5)
    np.testing.assert_allclose(score([90.0, 90.0, 90.0], [5e6, 10e6, 20e6]), [91.5, 90.0, 88.5])


def test_weight_zero_is_accuracy() -> None:
    np.testing.assert_array_equal(EfficiencyScore()([70.0, 80.0]), [70.0, 80.0])


@pytest.mark.parametrize(("target", "weight"), [(None, 1.0), (0.0, 1.0), (1e6, -1.0), (1e6, float("nan"))])
def test_contradictory_scores_are_refused(target: float | None, weight: float) -> None:
    with pytest.raises(LimitsError):
        EfficiencyScore(target, weight)


def test_score_without_macs_says_so() -> None:
    with pytest.raises(LimitsError, match="weight=0"):
        EfficiencyScore(1e6, 1.0)([50.0])


@pytest.mark.parametrize("name", ["max_macs", "max_params", "max_latency"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_limits_are_positive(name: str, value: float) -> None:
    with pytest.raises(LimitsError, match=f"{name} is a positive number, got {value}"):
        Limits(**{name: value})
