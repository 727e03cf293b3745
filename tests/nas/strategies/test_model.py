"""What strategies that learn a predictor share, held with a predictor that is made up, in a space of forty cells."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.predictors.features import FeatureTable
from nas.predictors.pool import Pool
from nas.predictors.scores import ScorePredictor
from nas.spaces.base import Candidate
from nas.spaces.nasbench101 import NASBench101
from nas.strategies import make_strategy
from nas.strategies import nasgem as nasgem_module
from nas.strategies.batch import front_of
from nas.strategies.history import StrategyError
from nas.strategies.model import Lesson, ModelStrategy, Prediction
from nas.strategies.nasgem import Nasgem, Shortlist
from nas.strategies.structural import StructuralSearch
from nas.strategies.wl_gp import WLGaussianProcess
from nas.tables.space import TableSpace

FIDELITY = Fidelity(epochs=5)


@pytest.fixture(scope="module")
def space() -> TableSpace:
    base = NASBench101()
    batch = base.sample(40, np.random.default_rng(0))
    keys = [base.unpack(batch, k).key() for k in range(40)]
    return TableSpace("small", batch.take([keys.index(key) for key in dict.fromkeys(keys)]), base=base)


def test_untrained_networks_look_at_cells_where_they_are_asked_for(space: TableSpace) -> None:
    assert Nasgem(space, 0, fidelity=FIDELITY).parts.untrained == 0
    cheap_first = Nasgem(space, 0, untrained=2, cheap_epochs=1, fidelity=FIDELITY)
    assert cheap_first.parts.untrained == 2
    assert cheap_first.low is not None
    assert cheap_first.low.parts.untrained == 2
    with pytest.raises(StrategyError, match="untrained"):
        Nasgem(space, 0, untrained=-1, fidelity=FIDELITY)
    with pytest.raises(StrategyError, match="encoder is None"):
        Nasgem(space, 0, untrained=2, encoder=None, fidelity=FIDELITY)


class Told(ModelStrategy):
    """Expects of the pool's candidate k what ``mean`` says, and remembers what it was asked."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    best = 0.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lessons: list[Lesson] = []
        self.masks: list[NDArray[np.bool_]] = []

    def rank(
        self, lesson: Lesson, pool: Pool, free: NDArray[np.bool_], n: int, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        self.masks.append(free.copy())
        return super().rank(lesson, pool, free, n, rng)

    def predict(self, lesson: Lesson, pool: Pool, rng: np.random.Generator) -> Prediction:
        self.lessons.append(lesson)
        return Prediction(self.mean, self.deviation, self.best)


def build(space: TableSpace, **options: Any) -> Told:
    strategy = Told(space, 0, fidelity=FIDELITY, **{"initial": 3, **options})
    n = len(space.all())
    strategy.mean = np.random.default_rng(1).permutation(n).astype(np.float64)
    strategy.deviation = np.zeros(n)
    return strategy


def tell(strategy: ModelStrategy, proposals: Sequence[Proposal], failed: Sequence[int] = ()) -> None:
    strategy.tell(
        [
            Evaluation(each, "failed", None, reason="NaN loss")
            if each.number in failed
            else Evaluation(each, "ok", 50.0 + each.number)
            for each in proposals
        ]
    )


def places(strategy: ModelStrategy, candidates: Sequence[Candidate]) -> list[Hashable]:
    return [strategy.key(candidate) for candidate in candidates]


def start(strategy: ModelStrategy, failed: Sequence[int] = ()) -> list[Hashable]:
    """Tells the random proposals; their places in the pool."""
    proposals = strategy.ask(strategy.initial)
    tell(strategy, proposals, failed)
    return places(strategy, [each.candidate for each in proposals])


def test_exactly_the_first_proposals_are_random(space: TableSpace) -> None:
    strategy = build(space)
    for number in range(5):
        tell(strategy, strategy.ask(1))
        assert len(strategy.lessons) == max(0, number - 2)
    assert [len(lesson.rows) for lesson in strategy.lessons] == [3, 4]


def test_the_best_that_are_free_are_proposed_best_first(space: TableSpace) -> None:
    strategy = build(space)
    taken = start(strategy)
    expected = [k for k in np.argsort(-strategy.mean).tolist() if k not in taken]
    assert places(strategy, [each.candidate for each in strategy.ask(4)]) == expected[:4]


def test_the_bound_adds_deviations_and_its_weight_is_an_option(space: TableSpace) -> None:
    sure, curious = build(space, beta=0.0), build(space, beta=3.0)
    for strategy in (sure, curious):
        taken = start(strategy)
        strategy.deviation = np.where(strategy.mean < 5, 30.0, 0.0)
        values = strategy.mean + strategy.beta * strategy.deviation
        expected = [k for k in np.argsort(-values).tolist() if k not in taken]
        assert places(strategy, [each.candidate for each in strategy.ask(1)]) == expected[:1]


def test_expected_improvement_is_over_the_best(space: TableSpace) -> None:
    strategy = build(space, acquisition="ei")
    taken = start(strategy)
    n = len(strategy.mean)
    free = [k for k in range(n) if k not in taken]
    strategy.mean, strategy.deviation, strategy.best = np.zeros(n), np.full(n, 1e-9), 1.0
    strategy.mean[free[1]], strategy.deviation[free[1]] = 0.9, 1e-9  # near the best, and surely below it
    strategy.mean[free[2]], strategy.deviation[free[2]] = 0.0, 1.0  # far, but who knows
    assert places(strategy, [each.candidate for each in strategy.ask(1)]) == [free[2]]


def test_acquisition_of_no_such_name_names_the_nearest(space: TableSpace) -> None:
    with pytest.raises(StrategyError, match="'ucb'"):
        make_strategy("nasgem", space, 0, fidelity=FIDELITY, acquisition="ubc")


@pytest.mark.parametrize("name", ["nasgem", "structural", "wl_gp"])
@pytest.mark.parametrize("acquisition", ["ucb", "ei"])
def test_either_acquisition_goes_with_any_predictor(space: TableSpace, name: str, acquisition: str) -> None:
    quick: dict[str, dict[str, Any]] = {"nasgem": {"encoder": None}, "structural": {"trees": 5}, "wl_gp": {}}
    options = {"fidelity": FIDELITY, "initial": 5, "acquisition": acquisition, **quick[name]}
    strategy = make_strategy(name, space, 0, **options)
    assert isinstance(strategy, ModelStrategy)
    start(strategy)
    assert len(strategy.ask(3)) == 3
    prediction = strategy.predict(strategy.lesson(), strategy._round_pool(np.random.default_rng(0), []), rng(0))
    # What is improved upon is the best target seen: the last evaluation's, on the predictor's own scale.
    known = prediction.mean[strategy.key(strategy.candidates[-1])]
    assert prediction.best > 0
    assert prediction.best >= known - 1e-6


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestFree:
    def test_neither_what_was_told_nor_what_is_pending(self, space: TableSpace) -> None:
        strategy = build(space)
        taken = start(strategy)
        pending = strategy.ask(2)
        strategy.ask(2, pending=pending)
        busy = {*taken, *places(strategy, [each.candidate for each in pending])}
        assert set(np.flatnonzero(~strategy.masks[-1]).tolist()) == busy

    def test_what_is_pending_at_another_fidelity_is_free(self, space: TableSpace) -> None:
        everything = [space.unpack(space.all(), row) for row in range(len(space.all()))]
        cheap = [Proposal(k, each, Fidelity(epochs=1)) for k, each in enumerate(everything)]
        assert len(build(space).ask(3, pending=cheap)) == 3
        assert build(space).ask(3, pending=[Proposal(each.number, each.candidate, FIDELITY) for each in cheap]) == []

    def test_no_more_than_the_pools_size(self, space: TableSpace) -> None:
        strategy = build(space, pool_size=7)
        start(strategy)
        strategy.ask(1)
        assert 4 <= strategy.masks[-1].sum() <= 7

    def test_failed_ones_are_not_free_either(self, space: TableSpace) -> None:
        strategy = build(space)
        taken = start(strategy, failed=[1])
        strategy.ask(1)
        assert not strategy.masks[-1][taken].any()


class TestFailures:
    def test_count_as_the_worst_seen(self, space: TableSpace) -> None:
        strategy = build(space)
        start(strategy, failed=[0])
        assert strategy.failed().tolist() == [True, False, False]
        assert strategy.scores().tolist() == [51.0, 51.0, 52.0]
        strategy.ask(1)
        assert strategy.lessons[-1].scores.tolist() == [51.0, 51.0, 52.0]

    def test_take_a_number(self, space: TableSpace) -> None:
        strategy = build(space)
        start(strategy, failed=[0, 1])
        assert [each.number for each in strategy.ask(2)] == [3, 4]

    def test_what_came_later_changes_nothing_that_follows_from_the_first(self, space: TableSpace) -> None:
        strategy = build(space)
        start(strategy, failed=[0])
        before = strategy.scores(3)
        proposal = strategy.ask(1)[0]
        strategy.tell([Evaluation(proposal, "ok", 1.0, metrics={"size": 9.0})])
        assert strategy.scores(3).tolist() == before.tolist()
        assert strategy.scores()[0] == 1.0
        assert strategy.costs("size").tolist() == [9.0] * 4


class _Twins(ScorePredictor):
    """Predicts two candidates that are nearly one and a third with a lower mean, with noise."""

    def __init__(self, noise: float) -> None:
        super().__init__(boosters=0)
        self.targets_ = np.array([0.0, 0.9])
        self._given = noise

    @property
    def noise_(self) -> float:
        return self._given

    def latent_covariance(self, features: FeatureTable) -> NDArray[np.float64]:
        return np.array([[1.0, 0.999, 0.0], [0.999, 1.0, 0.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize("acquisition", ["ucb", "ei"])
@pytest.mark.parametrize(("noise", "picked"), [(0.0, [4, 8]), (1e4, [4, 6])])
def test_nasgem_puts_a_batch_together_by_covariance_and_noise(
    space: TableSpace, acquisition: str, noise: float, picked: list[int]
) -> None:
    strategy = Nasgem(space, 0, fidelity=FIDELITY, encoder=None, acquisition=acquisition)
    table = FeatureTable(np.zeros((3, 1), dtype=np.float32), ("a",))
    shortlist = Shortlist(np.array([4, 6, 8]), table, np.array([1.0, 0.99, 0.5]), _Twins(noise))
    assert strategy._batch(shortlist, 1).tolist() == picked


def test_nasgem_without_spread_takes_the_best_few(space: TableSpace) -> None:
    def ranked(spread: bool) -> list[int]:
        strategy = Nasgem(space, 0, fidelity=FIDELITY, encoder=None, initial=8, spread=spread)
        start(strategy)
        pool = strategy._round_pool(rng(0), [])
        free = np.ones(len(pool), dtype=np.bool_)
        return strategy.rank(strategy.lesson(), pool, free, 4, rng(0)).tolist()

    assert ranked(True)[0] == ranked(False)[0]
    assert ranked(True) != ranked(False)
    assert sorted(ranked(True)) == sorted(ranked(False))


def test_a_search_for_two_objectives_is_for_their_front(space: TableSpace) -> None:
    strategy = Nasgem(space, 0, fidelity=FIDELITY, encoder=None, initial=8, cost="size")
    proposals = strategy.ask(8)
    strategy.tell([Evaluation(p, "ok", 50.0 + p.number, metrics={"size": float(p.number)}) for p in proposals])
    assert len(strategy.ask(3)) == 3
    cost = strategy._objective(strategy.lesson(), "cost")
    assert cost.scores.tolist() == [-float(number) for number in range(8)]  # both objectives are maximised
    assert strategy._objective(strategy.lesson(), "score").scores.tolist() == strategy.scores().tolist()


def test_two_objectives_are_weighed_by_what_is_expected_of_them_without_the_noise_of_one_evaluation(
    space: TableSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, given = len(space.all()), dict[str, Any]()

    class Stub(ScorePredictor):
        def __init__(self, objective: str) -> None:
            self.mean = np.arange(n) + (0.5 if objective == "cost" else 0.0)

        def predict(self, features: FeatureTable, with_noise: bool = True) -> tuple[Any, Any]:
            return self.mean, np.full(n, 9.0 if with_noise else 1.0)

    def heard(mean: Any, deviation: Any, front: Any, free: Any, n: int, rng: Any) -> NDArray[np.intp]:
        given.update(mean=mean, deviation=deviation, front=front, n=n)
        return np.flatnonzero(free)

    monkeypatch.setattr(Nasgem, "_learnt", lambda self, see, lesson, pool, rng, objective: Stub(objective))
    monkeypatch.setattr(nasgem_module, "hypervolume_batch", heard)
    strategy = Nasgem(space, 0, fidelity=FIDELITY, encoder=None, initial=4, cost="size")
    sizes = [3.0, 1.0, 2.0, 4.0]
    told = zip(strategy.ask(4), [50.0, 51.0, 53.0, 54.0], sizes, strict=True)
    strategy.tell([Evaluation(each, "ok", accuracy, metrics={"size": size}) for each, accuracy, size in told])
    strategy.ask(3)
    assert given["mean"].tolist() == [[k, k + 0.5] for k in range(n)]
    assert (given["deviation"] == 1.0).all()
    assert given["front"].tolist() == [[54.0, -4.0], [53.0, -2.0], [51.0, -1.0]]
    assert given["n"] == 6


def test_real_evaluations_are_learnt_from_as_soon_as_there_are_five(
    space: TableSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, heard = Nasgem._learnt, list[tuple[int, str | None]]()

    def listen(self: Nasgem, see: Any, lesson: Lesson, pool: Pool, rng: Any, objective: Any = None) -> ScorePredictor:
        heard.append((len(lesson.rows), objective))
        return learn(self, see, lesson, pool, rng, objective)

    monkeypatch.setattr(Nasgem, "_learnt", listen)
    strategy = Nasgem(space, 0, fidelity=FIDELITY, encoder=None, cheap_epochs=1, cheap=6, initial=6)
    tell(strategy, strategy.ask(6))
    for real in (4, 1):
        heard.clear()
        tell(strategy, strategy.ask(real))
        assert heard == [(6, None)]  # by the cheap ones alone
    heard.clear()
    strategy.ask(1)
    assert heard == [(6, None), (5, "score")]


def test_cheap_evaluations_are_searched_like_the_real_ones(space: TableSpace) -> None:
    options = {"boosters": 2, "spread": False, "encoder": None, "cheap_epochs": FIDELITY.epochs - 1}
    strategy = Nasgem(space, 0, fidelity=FIDELITY, **options)
    assert strategy.low is not None
    assert (strategy.low.boosters, strategy.low.spread) == (strategy.boosters, strategy.spread) == (2, False)


def test_front_of_points_is_what_no_other_dominates() -> None:
    points = rng(0).integers(0, 6, (40, 2)).astype(np.float64)
    kept = {tuple(p) for p in points if not any((q >= p).all() and (q > p).any() for q in points)}
    found = front_of(points)
    assert {tuple(p) for p in found} == kept
    assert len(found) == len(kept)


def test_strategies_predict_what_they_learnt(space: TableSpace) -> None:
    """The order of the known ones comes back from the predictor: nothing is negated on the way."""
    for kind, options in ((StructuralSearch, {"trees": 20}), (WLGaussianProcess, {}), (Nasgem, {"encoder": None})):
        strategy = kind(space, 0, fidelity=FIDELITY, initial=12, **options)
        start(strategy)
        prediction = strategy.predict(strategy.lesson(), strategy._round_pool(rng(0), []), rng(0))
        known = [strategy.key(candidate) for candidate in strategy.candidates]
        assert np.corrcoef(prediction.mean[known], strategy.scores())[0, 1] > 0.3
