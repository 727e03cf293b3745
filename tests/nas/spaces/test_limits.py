"""Limits that no candidate meets are found out before anything is trained."""

from __future__ import annotations

import numpy as np
import pytest

from nas.spaces import limits as limits_module
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import Limits, LimitsError, admits, check_limits
from nas.spaces.nasbench201 import NASBench201


def test_limits_that_some_candidate_meets_pass() -> None:
    check_limits(GEMNetSpace(), Limits())
    check_limits(GEMNetSpace(), Limits(max_macs=10e6, max_params=1e5))


def test_rare_candidates_are_found_by_walking_downhill(monkeypatch) -> None:
    monkeypatch.setattr(limits_module, "SAMPLES", 8)
    space = GEMNetSpace()
    drawn = space.macs(space.sample(8, np.random.default_rng(0)))
    cheapest = float(space.macs(space.sample(4000, np.random.default_rng(0))).min())
    assert drawn.min() > 1.2 * cheapest
    check_limits(space, Limits(max_macs=1.2 * cheapest))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(max_macs=1e3), "max_macs = 1,000: the one that comes nearest has"),
        (Limits(max_params=50), "Raise max_params, or"),
        (Limits(max_macs=10e6, max_params=50), "Raise max_params, or"),
        (Limits(max_macs=1e3, max_params=1e9), "Raise max_macs, or"),
        (Limits(max_macs=10, max_params=50), "Raise max_macs and max_params, or"),
    ],
)
def test_limits_that_none_meets_are_an_error_that_says_how_near_one_comes(limits, words) -> None:
    with pytest.raises(LimitsError) as caught:
        check_limits(GEMNetSpace(max_nodes=6), limits)
    assert words in str(caught.value)


def test_a_candidate_is_admitted_that_is_within_every_limit() -> None:
    space = GEMNetSpace()
    batch = space.sample(300, np.random.default_rng(0))
    macs, params = space.macs(batch), space.params(batch)
    limits = Limits(max_macs=float(np.median(macs)), max_params=float(np.median(params)))
    expected = (macs <= limits.max_macs) & (params <= limits.max_params)
    assert 0 < expected.sum() < 150
    np.testing.assert_array_equal(admits(space, limits, batch), expected)
    assert admits(space, Limits(), batch).all()


def test_a_limit_on_what_a_space_does_not_know_is_refused() -> None:
    space = NASBench201()
    with pytest.raises(LimitsError, match="max_latency=5 is set, but search space 'nasbench201' knows no latency"):
        admits(space, Limits(max_latency=5), space.all())


def test_spaces_that_can_be_listed_are_searched_through() -> None:
    space = NASBench201()
    cheapest = float(space.macs(space.all()).min())
    check_limits(space, Limits(max_macs=cheapest))
    with pytest.raises(LimitsError, match=f"nearest has {cheapest:,.0f} MACs"):
        check_limits(space, Limits(max_macs=cheapest - 1))


def test_a_limit_that_is_just_met_is_not_to_be_raised() -> None:
    space = NASBench201()
    macs, params = (float(space.cost(name, space.all()).min()) for name in ("macs", "params"))
    with pytest.raises(LimitsError, match=r"parameters\. Raise max_params\.$"):
        check_limits(space, Limits(max_macs=macs, max_params=params - 1))


def test_what_is_equal_to_a_limit_is_within_it() -> None:
    space = GEMNetSpace()
    batch = space.sample(50, np.random.default_rng(1))
    macs, params = space.macs(batch), space.params(batch)
    for limits in (Limits(max_macs=float(macs[7])), Limits(max_params=float(params[7]))):
        assert admits(space, limits, batch)[7]
    assert not admits(space, Limits(max_macs=float(macs[7]) - 1), batch)[7]
    assert not admits(space, Limits(max_params=float(params[7]) - 1), batch)[7]


def test_latency_is_limited_where_a_space_estimates_it() -> None:
    space = GEMNetSpace()
    batch = space.sample(50, np.random.default_rng(1))
    space.latency_model = lambda costs: costs[:, 0] / 1e6
    latency = space.latency(batch)
    np.testing.assert_array_equal(admits(space, Limits(max_latency=float(latency[3])), batch), latency <= latency[3])
