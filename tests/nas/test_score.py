import numpy as np
import pytest

from nas.score import Budget, BudgetError, EfficiencyScore


def test_twice_the_macs_costs_weight_points() -> None:
    score = EfficiencyScore(target_macs=10e6, weight=1.5)
    np.testing.assert_allclose(score([90.0, 90.0, 90.0], [5e6, 10e6, 20e6]), [91.5, 90.0, 88.5])


def test_weight_zero_is_accuracy() -> None:
    np.testing.assert_array_equal(EfficiencyScore()([70.0, 80.0]), [70.0, 80.0])


@pytest.mark.parametrize(("target", "weight"), [(None, 1.0), (0.0, 1.0), (1e6, -1.0), (1e6, float("nan"))])
def test_contradictory_scores_are_refused(target: float | None, weight: float) -> None:
    with pytest.raises(BudgetError):
        EfficiencyScore(target, weight)


def test_score_without_macs_says_so() -> None:
    with pytest.raises(BudgetError, match="weight=0"):
        EfficiencyScore(1e6, 1.0)([50.0])


def test_budget_admits_what_is_within_every_limit() -> None:
    macs, params = np.array([1.0, 2.0, 3.0]), np.array([30.0, 20.0, 10.0])
    np.testing.assert_array_equal(Budget(max_macs=2).admits(macs, params), [True, True, False])
    np.testing.assert_array_equal(Budget(max_macs=2, max_params=20).admits(macs, params), [False, True, False])
    assert Budget().admits(None, None)


def test_budget_on_an_unknown_figure_is_refused() -> None:
    with pytest.raises(BudgetError, match="knows no params"):
        Budget(max_params=10).admits(np.ones(2), None)
    with pytest.raises(BudgetError, match="max_macs is a positive number, got 0"):
        Budget(max_macs=0)
