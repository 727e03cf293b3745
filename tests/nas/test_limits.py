"""Limits that no candidate meets are found out before anything is trained."""

from __future__ import annotations

import numpy as np
import pytest

from nas.limits import check_limits
from nas.score import Budget, BudgetError
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.nasbench201 import NASBench201


def test_limits_that_some_candidate_meets_pass() -> None:
    check_limits(GEMNetSpace(), Budget())
    check_limits(GEMNetSpace(), Budget(max_macs=10e6, max_params=1e5))


def test_rare_candidates_are_found_by_walking_downhill(monkeypatch) -> None:
    monkeypatch.setattr("nas.limits.SAMPLES", 8)
    space = GEMNetSpace()
    drawn = space.macs(space.sample(8, np.random.default_rng(0)))
    cheapest = float(space.macs(space.sample(4000, np.random.default_rng(0))).min())
    assert drawn.min() > 1.2 * cheapest
    check_limits(space, Budget(max_macs=1.2 * cheapest))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Budget(max_macs=1e3), "max_macs = 1,000: the one that comes nearest has"),
        (Budget(max_params=50), "Raise max_params, or"),
        (Budget(max_macs=10e6, max_params=50), "Raise max_params, or"),
        (Budget(max_macs=10, max_params=50), "Raise max_macs and max_params, or"),
    ],
)
def test_limits_that_none_meets_are_an_error_that_says_how_near_one_comes(limits, words) -> None:
    with pytest.raises(BudgetError) as caught:
        check_limits(GEMNetSpace(), limits)
    assert words in str(caught.value)


def test_spaces_that_can_be_listed_are_searched_through() -> None:
    space = NASBench201()
    cheapest = float(space.macs(space.all()).min())
    check_limits(space, Budget(max_macs=cheapest))
    with pytest.raises(BudgetError, match=f"nearest has {cheapest:,.0f} MACs"):
        check_limits(space, Budget(max_macs=cheapest - 1))
