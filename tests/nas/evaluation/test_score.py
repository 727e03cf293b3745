from dataclasses import replace

import numpy as np
import pytest

from nas.evaluation.costs import COSTS, completed, costs_text
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.evaluation.score import EfficiencyScore, compared_by
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import Limits, LimitsError


@pytest.fixture
def evaluation() -> Evaluation:
    space = GEMNetSpace()
    candidate = space.unpack(space.sample(1, np.random.default_rng(0)), 0)
    return Evaluation(Proposal(0, candidate, Fidelity(1)), "ok", 80.0, 8e6, 4e5, metrics={"latency": 2.0})


def test_twice_the_macs_costs_weight_points() -> None:
    score = EfficiencyScore(target_macs=10e6, weight=1.5)
    np.testing.assert_allclose(score([90.0, 90.0, 90.0], [5e6, 10e6, 20e6]), [91.5, 90.0, 88.5])


@pytest.mark.parametrize("cost", list(COSTS))
def test_a_score_charges_the_cost_that_it_names(cost: str, evaluation: Evaluation) -> None:
    score = EfficiencyScore(weight=2.0, cost=cost, **{f"target_{cost}": 1.0})
    assert score.of(evaluation) == pytest.approx(80.0 - 2.0 * np.log2(evaluation.cost(cost)))
    assert compared_by(score, Limits(max_macs=1.0, max_latency=1.0)) == cost
    with pytest.raises(LimitsError, match=f"target_{cost} > 0"):
        EfficiencyScore(weight=2.0, cost=cost)


def test_where_nothing_is_charged_networks_are_compared_by_what_is_limited() -> None:
    score = EfficiencyScore(target_macs=1e6)
    assert compared_by(score, Limits()) == "macs"
    assert compared_by(score, Limits(max_params=1e6)) == "params"
    assert compared_by(score, Limits(max_params=1e6, max_macs=1e6)) == "macs"
    assert compared_by(score, Limits(max_macs=1e6, max_latency=2.0)) == "latency"


def test_a_failed_evaluation_has_no_score_and_one_without_the_cost_is_refused(evaluation: Evaluation) -> None:
    score = EfficiencyScore(weight=1.0, cost="latency", target_latency=2.0)
    assert np.isnan(score.of(replace(evaluation, status="failed", accuracy=None)))
    assert np.isnan(score.of(replace(evaluation, status="failed")))  # whatever accuracy it had before it failed
    with pytest.raises(LimitsError, match="charges latency"):
        score.of(replace(evaluation, metrics={}))


def test_an_unknown_cost_is_named_with_the_nearest() -> None:
    with pytest.raises(LimitsError, match="Did you mean 'latency'"):
        EfficiencyScore(cost="latencies")


def test_costs_are_completed_by_what_the_space_knows_and_never_replaced() -> None:
    space = GEMNetSpace()
    candidate = space.unpack(space.sample(1, np.random.default_rng(0)), 0)
    bare = Evaluation(Proposal(0, candidate, Fidelity(1)), "ok", 80.0, macs=7.0)
    space.latency_model = lambda costs: np.full(len(costs), 3.0)
    found = completed(bare, space)
    assert (found.macs, found.metrics) == (7.0, {"latency": 3.0})
    assert found.params == space.params(space.pack([candidate]))[0]
    measured = replace(bare, metrics={"latency": 1.0, "energy": 2.0})
    assert completed(measured, space).metrics == {"latency": 1.0, "energy": 2.0}
    assert costs_text(found) == "7e-06 M MACs and 3 ms"


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
