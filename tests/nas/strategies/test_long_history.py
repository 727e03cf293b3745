"""A long history: what is learnt from, what is kept, and that a resumed search still goes on alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.predictors.features import FeatureTable, macro_table
from nas.predictors.pool import GrowingRows, JoinedPool, Pool, ToldCandidates, ToldPool, sampled_pool
from nas.predictors.process import ProcessSettings
from nas.predictors.scores import ScorePredictor
from nas.spaces.base import CandidateBatch, SearchSpace
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import Limits
from nas.spaces.nasbench201 import NASBench201
from nas.strategies import nasgem as nasgem_module
from nas.strategies.long_history import KeptPool, LongHistory
from nas.strategies.model import Lesson, ModelStrategy
from nas.strategies.nasgem import Nasgem
from nas.strategies.structural import StructuralSearch
from nas.strategies.wl_gp import WLGaussianProcess

FIDELITY = Fidelity(epochs=5)
SOON = LongHistory(beyond=20, most=18, hyper=10, block=8, blocks=3, reference=60, near=40)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def space() -> GEMNetSpace:
    return GEMNetSpace(form="cifar", size="a", max_nodes=6)


class TestRows:
    scores = RNG.normal(size=300)
    plan = LongHistory(most=100)

    def test_a_short_history_is_learnt_from_as_a_whole(self) -> None:
        assert self.plan.rows(self.scores[:100], 0).tolist() == list(range(100))

    def test_the_best_and_the_latest_are_among_them(self) -> None:
        rows = self.plan.rows(self.scores, 0)
        assert len(rows) == len(set(rows.tolist())) == 100
        assert set(np.argsort(-self.scores)[:40]) <= set(rows)
        assert set(range(280, 300)) <= set(rows)
        assert 0.3 < np.mean(self.scores[rows] < np.median(self.scores)) < 0.6  # and others, too

    def test_the_random_spread_stays_as_the_history_grows(self) -> None:
        before, after = (set(self.plan.rows(self.scores[:n], 0).tolist()) for n in (290, 300))
        assert len(before & after) >= 85
        assert before != set(self.plan.rows(self.scores[:290], 1).tolist())

    def test_hyper_parameters_follow_from_a_number_that_doubles(self) -> None:
        assert [LongHistory(beyond=20).settled(n) for n in (21, 39, 40, 79, 80, 500)] == [20, 20, 40, 40, 80, 320]


class TestStarts:
    plan = LongHistory(block=4, longest_block=16, blocks=4)

    def test_the_latest_blocks_are_kept(self) -> None:
        assert self.plan.starts(0) == [0]
        assert self.plan.starts(3) == [0]
        assert self.plan.starts(31) == [16, 20, 24, 28]

    def test_blocks_grow_with_the_history_up_to_a_longest(self) -> None:
        assert self.plan.starts(44) == [24, 28, 32, 40]
        assert self.plan.starts(200) == [144, 160, 176, 192]

    def test_what_is_kept_later_is_what_was_drawn_before(self) -> None:
        drawn: set[int] = set()
        for n in range(300):
            starts = self.plan.starts(n)
            assert set(starts) - drawn <= {n}  # nothing but a block that begins now
            drawn |= set(starts)


def test_kept_candidates_are_renewed_block_by_block(space: GEMNetSpace) -> None:
    parents = space.sample(5, RNG)
    seen: list[int] = []

    def compute(batch: CandidateBatch) -> FeatureTable:
        seen.append(len(batch))
        return macro_table(space, batch)

    kept = KeptPool(SOON, space, Limits(), 0, 90)
    first = kept.at(25, lambda n: parents)
    first.table("macro", compute)
    assert kept.at(31, lambda n: parents).table("macro", compute).values.shape == (
        90,
        first.table("macro", compute).values.shape[1],
    )
    assert seen == [30, 30, 30]  # nothing was computed again
    later = kept.at(32, lambda n: parents)
    later.table("macro", compute)
    assert seen == [30] * 4
    anew = KeptPool(SOON, space, Limits(), 0, 90).at(32, lambda n: parents)
    assert [anew.candidate(k) for k in range(90)] == [later.candidate(k) for k in range(90)]


def test_blocks_are_drawn_apart_and_so_are_those_of_other_seeds(space: GEMNetSpace) -> None:
    def keys(seed: int) -> list[Any]:
        pool = KeptPool(SOON, space, Limits(), seed, 91).at(33, lambda n: space.pack([]))
        return [pool.candidate(k).key() for k in range(len(pool))]

    assert len(keys(0)) == 93  # three blocks of 31: no fewer than were asked for
    assert len(set(keys(0))) > 85
    assert len(set(keys(0)) & set(keys(1))) < 8
    assert len(KeptPool(SOON, space, Limits(), 0, 30).reference) == 30
    assert len(KeptPool(SOON, space, Limits(), 0, 91).reference) == 60


def test_children_descend_from_the_best_at_the_beginning_of_their_block(space: GEMNetSpace) -> None:
    asked: list[int] = []

    def parents(n: int) -> CandidateBatch:
        asked.append(n)
        return space.sample(5, np.random.default_rng(1))

    KeptPool(SOON, space, Limits(), 0, 30).at(33, parents)
    assert asked == [16, 24, 32]


def test_rows_that_are_appended_are_copied_rarely() -> None:
    rows, copies, before = GrowingRows(), 0, None
    for number in range(2000):
        rows.append(np.full((1, 3), number, dtype=np.float32))
        copies += rows.values.base is not before
        before = rows.values.base
    assert rows.values[:, 1].tolist() == list(range(2000))
    assert copies < 25


class TestToldCandidates:
    def test_features_are_computed_once_whoever_is_learnt_from(self, space: GEMNetSpace) -> None:
        batch = space.sample(12, RNG)
        candidates = [space.unpack(batch, k) for k in range(12)]
        computed: list[int] = []

        def compute(part: CandidateBatch) -> FeatureTable:
            computed.append(len(part))
            return macro_table(space, part)

        told = ToldCandidates(space)
        told.extend(candidates[:9])
        whole = macro_table(space, batch)
        for rows in ([0, 2, 3, 7], [1, 8]):
            found = ToldPool(told, np.array(rows)).table("macro", compute)
            np.testing.assert_array_equal(found.values, whole.values[rows])
        told.extend(candidates[9:])
        after = ToldPool(told, np.array([1, 11]))
        np.testing.assert_array_equal(after.table("macro", compute).values, whole.values[[1, 11]])
        assert computed == [4, 2, 1]
        assert after.candidate(1) is candidates[11]

    def test_of_many_those_not_asked_for_are_forgotten_and_come_out_the_same_again(
        self, space: GEMNetSpace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ToldCandidates, "KEPT", 6)
        batch = space.sample(12, RNG)
        computed: list[int] = []

        def compute(part: CandidateBatch) -> FeatureTable:
            computed.append(len(part))
            return macro_table(space, part)

        told = ToldCandidates(space)
        told.extend([space.unpack(batch, k) for k in range(12)])
        whole = macro_table(space, batch).values
        for rows, new in (([9, 1, 4], [3]), ([1, 2, 6], [2]), ([7, 8], [2]), ([8, 7], []), ([1, 9], [2])):
            computed.clear()
            found = told.table(np.array(rows), "macro", compute, False)
            np.testing.assert_array_equal(found.values, whole[rows])
            assert computed == new

    def test_what_depends_on_its_batch_is_that_of_blocks_which_follow_from_the_history(
        self, space: GEMNetSpace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ToldCandidates, "BLOCK", 4)
        batch = space.sample(11, RNG)
        candidates = [space.unpack(batch, k) for k in range(11)]

        def compute(part: CandidateBatch) -> FeatureTable:
            together = np.full((len(part), 1), len(part), dtype=np.float32)  # stands for last digits that differ
            return FeatureTable(np.concatenate([part.macro.astype(np.float32), together], axis=1), ("mixed",) * 5)

        def seen(steps: list[int], rows: list[int]) -> np.ndarray:
            told, start = ToldCandidates(space), 0
            for step in steps:
                told.extend(candidates[start : start + step])
                start += step
                latest = np.arange(max(0, start - 3), start)
                told.table(latest, "mixed", compute, True)
            return told.table(np.array(rows), "mixed", compute, True).values

        slowly, at_once = seen([1] * 10, [0, 5, 8, 9]), seen([10], [0, 5, 8, 9])
        np.testing.assert_array_equal(slowly, at_once)
        assert slowly[:, -1].tolist() == [4, 4, 1, 1]
        np.testing.assert_array_equal(slowly[:, :-1], batch.macro[[0, 5, 8, 9]])


class _SoonNasgem(Nasgem):
    plan = SOON


class _SoonTrees(StructuralSearch):
    plan = SOON


class _SoonProcess(WLGaussianProcess):
    plan = SOON


def _edges(candidates: Any, fidelity: Fidelity) -> np.ndarray:
    return np.array([[len(each.cell.edges)] for each in candidates], dtype=np.float32)


def _evaluate(proposal: Proposal, space: SearchSpace) -> Evaluation:
    if proposal.number % 9 == 4:
        return Evaluation(proposal, "failed", None, reason="NaN loss")
    cell = proposal.candidate.cell
    gain = sum("3x3" in op for op in cell.ops) - len(cell.edges) / 10 + proposal.number % 5 / 10
    return Evaluation(proposal, "ok", 60 + gain, metrics={"size": float(len(cell.edges))})


@pytest.mark.parametrize(
    ("kind", "listed", "options"),
    [
        (_SoonNasgem, False, {"pool_size": 90, "encoder": None}),
        (_SoonNasgem, False, {"pool_size": 90, "encoder": None, "measure": _edges, "signals": 12, "acquisition": "ei"}),
        (_SoonNasgem, False, {"pool_size": 60, "encoder": None, "cost": "size"}),
        (_SoonNasgem, True, {"pool_size": 200, "encoder": None, "structure": False}),
        (_SoonTrees, False, {"pool_size": 60, "trees": 5}),
        (_SoonProcess, False, {"pool_size": 60, "iterations": (1,)}),
    ],
)
def test_a_resumed_long_search_proposes_what_an_uninterrupted_one_would(
    space: GEMNetSpace, kind: type[ModelStrategy], listed: bool, options: dict[str, Any]
) -> None:
    where = NASBench201() if listed else space

    def build() -> ModelStrategy:
        return kind(where, 3, fidelity=FIDELITY, initial=15, **options)

    first, done = build(), []
    while len(done) < 45:
        found = [_evaluate(proposal, where) for proposal in first.ask(5)]
        first.tell(found)
        done += found
    assert first.is_long
    assert len({each.proposal.candidate.key() for each in done}) == 45
    second = build()
    second.tell(done)
    ahead = first.ask(4)
    assert second.ask(4) == ahead
    if isinstance(first, Nasgem) and isinstance(second, Nasgem):
        assert repr(second._settled) == repr(first._settled)  # hyper-parameters
    later = first.ask(4, pending=ahead)
    assert not {p.candidate.key() for p in later} & {p.candidate.key() for p in ahead}
    assert second.ask(4, pending=ahead) == later


def test_what_was_evaluated_fills_no_place_among_the_promising(space: GEMNetSpace) -> None:
    """Candidates of a kept pool that were evaluated since are not ranked."""
    strategy = _SoonNasgem(space, 0, fidelity=FIDELITY, pool_size=90, encoder=None, initial=24)
    strategy.tell([_evaluate(proposal, space) for proposal in strategy.ask(24)])
    pool = strategy._round_pool(np.random.default_rng(0), [])
    taken = [pool.candidate(k) for k in (0, 5)]
    strategy.tell([_evaluate(Proposal(24 + k, each, FIDELITY), space) for k, each in enumerate(taken[:1])])
    free = strategy._free(pool, np.random.default_rng(0), set(), taken[1:])
    assert not free[[0, 5]].any()
    assert free.sum() >= 80


def test_a_kept_candidate_that_is_there_twice_is_free_once(space: GEMNetSpace) -> None:
    strategy = _SoonNasgem(space, 0, fidelity=FIDELITY, pool_size=90, encoder=None, initial=24)
    strategy.tell([_evaluate(proposal, space) for proposal in strategy.ask(24)])
    block = sampled_pool(space, Limits(), 12, space.pack([]), space.pack(strategy.candidates), np.random.default_rng(1))
    free = strategy._free(JoinedPool([block, block]), np.random.default_rng(0), set(), [])
    assert free.tolist() == [True] * 12 + [False] * 12


def test_a_history_is_long_beyond_so_many(space: GEMNetSpace) -> None:
    strategy = _SoonTrees(space, 0, fidelity=FIDELITY, initial=24)
    proposals = strategy.ask(21)
    strategy.tell([_evaluate(proposal, space) for proposal in proposals[:20]])
    assert not strategy.is_long
    assert len(strategy.lesson().rows) == 20
    strategy.tell([_evaluate(proposals[20], space)])
    assert strategy.is_long
    assert len(strategy.lesson().rows) == 18


def test_the_best_have_children(space: GEMNetSpace) -> None:
    strategy = _SoonTrees(space, 0, fidelity=FIDELITY, initial=24)
    proposals = strategy.ask(24)
    scores = np.random.default_rng(0).permutation(24)
    strategy.tell([Evaluation(each, "ok", float(score)) for each, score in zip(proposals, scores, strict=True)])
    for first in (8, 24):
        parents = strategy._parents(first)
        found = [space.unpack(parents, k) for k in range(len(parents))]
        assert found == [proposals[k].candidate for k in np.argsort(-scores[:first])[:20]]


def test_the_most_promising_by_a_coarse_look_are_looked_at_and_the_best_of_them_closely(
    space: GEMNetSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    expects = np.array([5.0, 9.0, 1.0, 8.0, 7.0, 6.0, 2.0, 3.0])
    means = np.array([0.1, 9.9, 9.9, 0.4, 0.3, 0.2, 9.9, 0.5])
    deviations = np.arange(1.0, 9.0)
    table = FeatureTable(np.stack([expects, means, deviations], axis=1).astype(np.float32), ("a", "b", "c"))
    taken, looked, near, rest = [1], [3, 4, 5, 0], [3, 4], [7, 6, 2]

    class Coarse(ScorePredictor):
        def fit(self, features: FeatureTable, *_: Any) -> Coarse:
            np.testing.assert_array_equal(features.values, table.values[::4])
            return self

        def predict_mean(self, features: FeatureTable) -> np.ndarray:
            return features.values[:, 0].astype(np.float64)

    class Close(ScorePredictor):
        settings_, targets_ = ProcessSettings({}, 1.0, 0.1), np.array([0.0, 1.5])

        def predict_mean(self, features: FeatureTable) -> np.ndarray:
            return features.values[:, 1].astype(np.float64)

        def predict_latent(self, features: FeatureTable, with_noise: bool = False) -> tuple[np.ndarray, np.ndarray]:
            return features.values[:, 1].astype(np.float64), features.values[:, 2].astype(np.float64)

    class Looks(Nasgem):
        plan = replace(SOON, looked=len(looked), near=len(near))

    monkeypatch.setattr(nasgem_module, "ScorePredictor", Coarse)
    strategy = Looks(space, 0, fidelity=FIDELITY, pool_size=90, encoder=None, initial=24)
    strategy.tell([_evaluate(proposal, space) for proposal in strategy.ask(24)])
    batch = space.sample(8, RNG)
    lesson = Lesson(np.arange(8), Pool(space, batch), np.zeros(8))
    free = np.ones(8, dtype=np.bool_)
    free[taken] = False
    found = strategy._predicted(Close(), lambda pool: table, lesson, Pool(space, batch), free)
    np.testing.assert_allclose(found.mean[looked], means[looked], rtol=1e-6)
    assert np.argsort(-found.mean).tolist() == [
        *looked,
        *rest,
        *taken,
    ]  # what is left out in the order of the coarse look
    assert found.deviation.tolist() == [deviations[k] if k in near else 0.0 for k in range(8)]
    assert found.best == 1.5


def test_hyper_parameters_stay_until_the_history_has_doubled(space: GEMNetSpace) -> None:
    strategy = _SoonNasgem(space, 0, fidelity=FIDELITY, pool_size=90, encoder=None, initial=24)
    for _ in range(2):
        strategy.tell([_evaluate(proposal, space) for proposal in strategy.ask(12)])
    strategy.ask(2)
    assert {size for size, _ in strategy._settled} == {20}  # the plan's, not all 24


def test_a_pool_of_told_candidates_is_one_of_its_space(space: GEMNetSpace) -> None:
    batch = space.sample(3, RNG)
    told = ToldCandidates(space)
    told.extend([space.unpack(batch, k) for k in range(3)])
    pool = ToldPool(told, np.arange(3))
    assert isinstance(pool, Pool)
    assert pool.index(space.unpack(batch, 2)) == 2


def test_a_long_history_is_ranked_as_if_all_of_the_pool_were_looked_at(space: GEMNetSpace) -> None:
    class Whole(_SoonNasgem):
        plan = replace(SOON, coarse=1, looked=10**6, near=10**6)

    class Part(_SoonNasgem):
        plan = replace(SOON, looked=45, near=20)

    asked = []
    for kind in (Whole, Part):
        strategy = kind(space, 0, fidelity=FIDELITY, pool_size=90, encoder=None, initial=24)
        strategy.tell([_evaluate(proposal, space) for proposal in strategy.ask(24)])
        asked.append([each.candidate for each in strategy.ask(4)])
    assert asked[0] == asked[1]
