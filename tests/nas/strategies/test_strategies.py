"""One contract, held by every strategy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from gemnet.errors import GemnetError
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.evaluation.score import EfficiencyScore
from nas.spaces.base import SearchSpace
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import Limits, LimitsError
from nas.spaces.nasbench101 import NASBench101
from nas.spaces.nasbench201 import NASBench201
from nas.strategies import STRATEGIES, HistoryStrategy, StrategyError, make_strategy, strategy_options
from nas.strategies.acquisition import expected_hypervolume_gain
from nas.strategies.nasgem import Nasgem
from nas.tables.space import TableSpace

FIDELITY = Fidelity(epochs=200)
NB201 = NASBench201()
# Few options make the slow strategies fast enough for a test; all else is their default.
QUICK: dict[str, dict[str, object]] = {
    "bananas": {"epochs": 20, "mutations": 40},
    "structural": {"trees": 20},
    "nasgem": {"encoder": {"steps": 3, "batch_size": 20, "hidden": 16, "rounds": 1, "dimension": 8}},
}


def accuracy(proposal: Proposal) -> float:
    """A made-up accuracy: convolutions help, those near the input more; a function of the graph alone."""
    cell = proposal.candidate.cell
    gain = sum(("conv" in op) * (1 + ("3x3" in op)) / (1 + k / 4) for k, op in enumerate(cell.ops))
    return 60 + 2 * gain - 0.1 * len(cell.edges)


def evaluate(proposal: Proposal, space: SearchSpace, fail_every: int = 0) -> Evaluation:
    if fail_every and proposal.number % fail_every == 0:
        return Evaluation(proposal, "failed", None, reason="NaN loss")
    macs = space.macs(space.pack([proposal.candidate]))
    return Evaluation(proposal, "ok", accuracy(proposal), macs=None if macs is None else float(macs[0]))


def run(strategy: HistoryStrategy, queries: int, batch: int = 5, fail_every: int = 0) -> list[Evaluation]:
    done: list[Evaluation] = []
    while len(done) < queries:
        proposals = strategy.ask(min(batch, queries - len(done)))
        if not proposals:
            break
        evaluations = [evaluate(proposal, strategy.space, fail_every) for proposal in proposals]
        strategy.tell(evaluations)
        done += evaluations
    return done


def build(name: str, space: SearchSpace = NB201, seed: int = 0, **options: object) -> HistoryStrategy:
    return make_strategy(name, space, seed, **{"fidelity": FIDELITY, **QUICK.get(name, {}), **options})


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def gemnet_space() -> GEMNetSpace:
    return GEMNetSpace(form="cifar", size="a", max_nodes=8)


@pytest.fixture(params=sorted(STRATEGIES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_proposals_are_new_valid_and_numbered_without_gaps(name: str) -> None:
    strategy = build(name)
    done = run(strategy, 35)
    assert [e.proposal.number for e in done] == list(range(35))
    assert len({e.proposal.candidate.key() for e in done}) == 35
    assert all(e.proposal.fidelity == FIDELITY for e in done)
    for evaluation in done:
        NB201.check(evaluation.proposal.candidate)


def test_resumed_search_proposes_what_an_uninterrupted_one_would(name: str) -> None:
    first = build(name)
    done = run(first, 25)
    ahead = first.ask(3)
    expected = first.ask(4, pending=ahead)
    second = build(name)
    second.tell(done)
    assert second.ask(3) == ahead
    assert second.ask(4, pending=ahead) == expected


def test_resumed_search_does_not_depend_on_how_evaluations_are_told(name: str) -> None:
    first = build(name)
    done = run(first, 25)
    second = build(name)
    for evaluation in done:
        second.tell([evaluation])
    assert second.ask(5) == first.ask(5)


def test_the_latest_of_evolution_are_those_of_the_highest_numbers() -> None:
    first = build("evolution")
    done = run(first, 25)
    second = build("evolution")
    for k in np.random.default_rng(0).permutation(len(done)):
        second.tell([done[k]])
    assert second.ask(5) == first.ask(5)


def test_pending_proposals_are_not_proposed_again(name: str) -> None:
    strategy = build(name)
    run(strategy, 15)
    pending: list[Proposal] = []
    for _ in range(4):
        pending += strategy.ask(3, pending=pending)
    assert [proposal.number for proposal in pending] == list(range(15, 27))
    assert len({proposal.candidate.key() for proposal in pending}) == 12


def test_a_failure_before_a_worse_score_leaves_a_resumed_search_as_it_was(name: str) -> None:
    """A failed evaluation is worth the worst of all; what was fitted to the first ones must not change by that."""
    first = build(name)
    done = run(first, 30, fail_every=7)
    worse = [Evaluation(proposal, "ok", 10.0, macs=1.0) for proposal in first.ask(5)]
    first.tell(worse)
    second = build(name)
    second.tell([*done, *worse])
    assert second.ask(5) == first.ask(5)


def test_other_seed_searches_elsewhere(name: str) -> None:
    assert build(name, seed=1).ask(10) != build(name, seed=2).ask(10)


def test_first_proposals_are_the_same_for_all_strategies(name: str) -> None:
    assert build(name).ask(10) == build("random").ask(10)


def test_failed_evaluations_do_not_stop_a_search(name: str) -> None:
    done = run(build(name), 30, fail_every=3)
    assert len(done) == 30


def test_all_evaluations_failed(name: str) -> None:
    done = run(build(name), 20, fail_every=1)
    assert len({e.proposal.candidate.key() for e in done}) == 20


def test_nothing_over_the_budget_is_proposed(name: str) -> None:
    budget = Limits(max_params=0.4e6)
    done = run(build(name, limits=budget), 25)
    params = NB201.params(NB201.pack([e.proposal.candidate for e in done]))
    assert len(done) == 25
    assert params.max() <= 0.4e6


def test_budget_that_no_cell_meets_is_refused(name: str) -> None:
    with pytest.raises(LimitsError, match="max_params"):
        build(name, limits=Limits(max_params=10.0)).ask(1)


def test_small_space_is_searched_to_its_end(name: str) -> None:
    batch = NASBench101().sample(40, np.random.default_rng(0))
    keys = [NASBench101().unpack(batch, k).key() for k in range(len(batch))]
    space = TableSpace("small", batch.take([keys.index(key) for key in dict.fromkeys(keys)]), base=NASBench101())
    strategy = build(name, space)
    done = run(strategy, 1000)
    assert len(done) == len(space.all())
    assert strategy.ask(5) == []


def test_finds_better_cells_than_random_search(name: str) -> None:
    if name == "random":
        pytest.skip("is random search")
    assert mean_best(name) > mean_best("random") + 0.5


@cache
def mean_best(name: str) -> float:
    return float(np.mean([max(e.accuracy for e in run(build(name, seed=s), 45)) for s in range(3)]))


def test_score_charges_macs(name: str) -> None:
    score = EfficiencyScore(target_macs=30e6, weight=20.0)
    strategy = build(name, score=score)
    light = np.mean([e.macs for e in run(strategy, 40)[25:]])
    heavy = np.mean([e.macs for e in run(build(name), 40)[25:]])
    assert strategy.score is score
    assert light == heavy if name == "random" else light < heavy


def test_space_that_cannot_be_listed(name: str, gemnet_space: GEMNetSpace) -> None:
    options = {"pool_size": 300} if name in ("nasgem", "structural", "wl_gp") else {}
    budget = Limits(max_macs=float(np.median(gemnet_space.macs(gemnet_space.sample(200, np.random.default_rng(1))))))
    done = run(build(name, gemnet_space, limits=budget, **options), 20)
    candidates = [e.proposal.candidate for e in done]
    assert len({candidate.key() for candidate in candidates}) == 20
    assert gemnet_space.macs(gemnet_space.pack(candidates)).max() <= budget.max_macs
    for candidate in candidates:
        gemnet_space.check(candidate)


def test_asked_for_none_gives_none(name: str, gemnet_space: GEMNetSpace) -> None:
    assert build(name, gemnet_space).ask(0) == []
    assert build(name).ask(0) == []


def test_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(StrategyError, match="'evolution'"):
        make_strategy("evolutoin", NB201, 0, fidelity=FIDELITY)


def test_unknown_option_names_the_nearest() -> None:
    with pytest.raises(StrategyError, match="'population'"):
        make_strategy("evolution", NB201, 0, fidelity=FIDELITY, populaton=10)


def test_evaluations_at_another_fidelity_are_not_learnt_from() -> None:
    strategy = build("evolution")
    proposals = strategy.ask(10)
    cheap = [Proposal(p.number, p.candidate, Fidelity(epochs=12)) for p in proposals]
    strategy.tell([evaluate(p, NB201) for p in cheap])
    assert strategy.candidates == []
    assert strategy.told == 10


def test_repeated_evaluations_of_a_candidate_are_averaged() -> None:
    strategy = build("random")
    proposal = strategy.ask(1)[0]
    strategy.tell([Evaluation(proposal, "ok", 80.0)])
    strategy.tell([Evaluation(Proposal(1, proposal.candidate, FIDELITY, training_seed=1), "ok", 90.0)])
    assert strategy.scores().tolist() == [85.0]


# NSGA-II needs several generations of its population of 20 before it is ahead of chance.
@pytest.mark.parametrize(("name", "rounds"), [("evolution", 40), ("nasgem", 12)])
@pytest.mark.slow
def test_two_objectives_spread_along_the_front(name: str, rounds: int) -> None:
    def measured(proposal: Proposal) -> Evaluation:
        cost = float(NB201.params(NB201.pack([proposal.candidate]))[0])
        return Evaluation(proposal, "ok", accuracy(proposal), metrics={"size": cost})

    def area(strategy: HistoryStrategy) -> float:
        for _ in range(rounds):
            strategy.tell([measured(p) for p in strategy.ask(5)])
        points = np.stack([strategy.scores(), -strategy.costs("size") / 1e6], axis=1)
        front = points[[0]] * 0 + [60.0, -2.0]
        total = 0.0
        for point in points[np.argsort(-points[:, 0])]:
            total += float(expected_hypervolume_gain(point[None], np.zeros((1, 2)), front, np.array([60.0, -2.0]))[0])
            front = np.concatenate([front, point[None]])
        return total

    areas = [
        np.mean([area(build(kind, seed=s, **options)) for s in range(4)])
        for kind, options in ((name, {"cost": "size"}), ("random", {}))
    ]
    assert areas[0] > areas[1]


@pytest.mark.parametrize("name", ["evolution", "nasgem"])
def test_cost_that_nothing_measures_is_an_error(name: str) -> None:
    strategy = build(name, cost="latency")
    strategy.tell([evaluate(p, NB201) for p in strategy.ask(10)])
    with pytest.raises(StrategyError, match="cost='latency'"):
        strategy.ask(5)


def test_cheap_evaluations_come_first_and_are_learnt_from() -> None:
    strategy = build("nasgem", cheap_epochs=12, cheap=20)
    done = run(strategy, 35)
    assert [e.proposal.fidelity.epochs for e in done] == [12] * 20 + [200] * 15
    assert [e.proposal.number for e in done] == list(range(35))
    assert np.mean([e.accuracy for e in done[20:]]) > np.mean([e.accuracy for e in done[:10]]) + 2
    again = build("nasgem", cheap_epochs=12, cheap=20)
    again.tell(done)
    assert again.ask(5) == strategy.ask(5)


@pytest.mark.parametrize("n", [3, 4, 8])
def test_a_batch_is_whole_where_the_cheap_evaluations_end(n: int) -> None:
    strategy = build("nasgem", cheap_epochs=12, cheap=10)
    done: list[Evaluation] = []
    for _ in range(5):  # fewer than n would tell the search that the space has no more
        proposals = strategy.ask(n)
        assert [p.number for p in proposals] == list(range(len(done), len(done) + n))
        found = [evaluate(p, NB201) for p in proposals]
        strategy.tell(found)
        done += found
    assert [e.proposal.fidelity.epochs for e in done] == [12] * 10 + [200] * (5 * n - 10)


def test_cheap_evaluations_take_fewer_epochs() -> None:
    with pytest.raises(StrategyError, match="cheap_epochs=200"):
        build("nasgem", cheap_epochs=200)


def test_unknown_encoder_setting_names_the_nearest() -> None:
    with pytest.raises(GemnetError, match=r"'nasgem\.encoder\.steps'"):
        build("nasgem", encoder={"step": 3})


class TestSignals:
    """Zero-cost signals of the most promising beside what the predictor sees of all."""

    @staticmethod
    def search(space: GEMNetSpace, measured: list, seed: int, **options: object) -> list[Evaluation]:
        def measure(candidates, fidelity):
            assert fidelity == FIDELITY
            measured.extend(candidate.key() for candidate in candidates)
            return np.array([[accuracy(Proposal(0, each, fidelity))] for each in candidates], dtype=np.float32)

        strategy = build("nasgem", space, seed, pool_size=300, encoder=None, measure=measure, **options)
        return run(strategy, 30)

    def test_a_signal_that_tells_the_accuracy_is_believed(self) -> None:
        space = GEMNetSpace()  # large cells: of small ones the features say as much

        def mean_after_start(signals: int) -> float:
            found = [e.accuracy for s in range(3) for e in self.search(space, [], s, signals=signals)[10:]]
            return float(np.mean(found))

        assert mean_after_start(64) > mean_after_start(0) + 1

    def test_each_candidate_is_measured_once(self, gemnet_space: GEMNetSpace) -> None:
        measured: list = []
        done = self.search(gemnet_space, measured, 0, signals=20)
        assert len(measured) == len(set(measured))
        assert {e.proposal.candidate.key() for e in done} <= set(measured) | {
            e.proposal.candidate.key()
            for e in done[-5:]  # of the last batch nothing was learnt yet
        }
        none: list = []
        self.search(gemnet_space, none, 0, signals=0)
        assert none == []

    def test_a_search_told_its_history_goes_on_alike(self, gemnet_space: GEMNetSpace) -> None:
        def measure(candidates, fidelity):
            return np.array([[len(each.cell.edges)] for each in candidates], dtype=np.float32)

        options = {"pool_size": 200, "encoder": None, "measure": measure, "signals": 10}
        strategy = build("nasgem", gemnet_space, **options)
        done = run(strategy, 20)
        again = build("nasgem", gemnet_space, **options)
        again.tell(done)
        assert again.ask(5) == strategy.ask(5)

    def test_number_out_of_range(self) -> None:
        with pytest.raises(StrategyError, match="signals"):
            build("nasgem", signals=-1)

    def test_what_measures_is_no_option_of_a_config(self) -> None:
        assert "signals" in strategy_options("nasgem")
        assert "measure" not in strategy_options("nasgem")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nasgem", {"beta": "high"}, "nasgem.beta is a number, got 'high'"),
        ("nasgem", {"pool_size": 2.5}, "nasgem.pool_size is a whole number, got 2.5"),
        ("nasgem", {"pool_size": 0}, "pool_size is at least 1, got 0"),
        ("nasgem", {"boosters": -1}, "boosters is at least 0, got -1"),
        ("evolution", {"tournament": 0}, "tournament is at least 1, got 0"),
        ("evolution", {"initial": "ten"}, "evolution.initial is a whole number, got 'ten'"),
        ("bananas", {"members": 0}, "members is at least 1, got 0"),
        ("structural", {"trees": 0}, "trees is at least 1, got 0"),
    ],
)
def test_values_that_can_not_be_are_named(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(GemnetError) as caught:
        build(name, **options)
    assert words in str(caught.value)


def test_a_number_is_taken_as_the_option_wants_it() -> None:
    strategy = build("nasgem", pool_size=2e2, beta=1)  # as the command line reads them
    assert isinstance(strategy, Nasgem)
    assert (strategy.pool_size, strategy.beta) == (200, 1.0)
    assert isinstance(strategy.pool_size, int)


@pytest.mark.parametrize("name", ["nasgem", "structural", "wl_gp"])
def test_one_evaluation_is_no_lesson(name: str) -> None:
    strategy = build(name, initial=1)
    assert len(run(strategy, 4, batch=1)) == 4
