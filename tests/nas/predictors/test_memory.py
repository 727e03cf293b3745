"""What is remembered of other tasks: it helps as far as it is true, and where it misleads it is left out."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from nas.predictors.features import FeatureTable
from nas.predictors.memory import MOST, Memory, Remembered, rows_to_learn
from nas.predictors.nasgem_features import Parts, features
from nas.predictors.pool import JoinedPool, Pool
from nas.predictors.scores import ScorePredictor
from nas.spaces.choices import ChoiceSpace

PARTS = Parts(encoder=None)
SPACE = ChoiceSpace({f"layer{k}": ["identity", "conv3x3", "conv5x5"] for k in range(5)})
POOL = Pool(SPACE, SPACE.all())
RNG = np.random.default_rng(0)
WORTH = RNG.normal(size=(5, 3))
TRUE = WORTH[np.arange(5), POOL.batch.macro].sum(axis=1)
HERE = TRUE + 0.3 * RNG.normal(size=len(TRUE))
ELSEWHERE = 5 + 2 * TRUE + 0.6 * RNG.normal(size=len(TRUE))


def table(other: np.ndarray | None) -> FeatureTable:
    """What is seen of all candidates, given their scores in the other task."""
    return _table(None if other is None else tuple(other.tolist()))


@cache  # a memory is learnt once, whoever looks
def _table(other: tuple[float, ...] | None) -> FeatureTable:
    seen = features(POOL, PARTS)
    if other is None:
        return seen
    return FeatureTable.join([seen, Memory(SPACE, [Remembered(POOL.batch, np.array(other))], PARTS).table(POOL)])


def learnt(other: np.ndarray | None, rows: np.ndarray) -> tuple[ScorePredictor, FeatureTable]:
    seen = table(other)
    return ScorePredictor(boosters=0).fit(seen.take(rows), HERE[rows], pool=seen), seen


def tau(other: np.ndarray | None, seed: int) -> float:
    rows = np.random.default_rng(seed).permutation(len(POOL))[:10]
    predictor, seen = learnt(other, rows)
    return float(kendalltau(predictor.predict_mean(seen), HERE).statistic)


def test_from_ten_candidates_a_true_memory_ranks_far_better() -> None:
    assert np.mean([tau(ELSEWHERE, seed) - tau(None, seed) for seed in range(5)]) > 0.1


def test_a_memory_turned_round_is_worth_as_much() -> None:
    assert np.mean([tau(-ELSEWHERE, seed) - tau(None, seed) for seed in range(5)]) > 0.1


def test_a_memory_that_misleads_changes_no_prediction() -> None:
    rows = np.arange(0, len(POOL), 8)
    (cold, plain), (misled, seen) = (
        learnt(other, rows) for other in (None, np.random.default_rng(1).permutation(ELSEWHERE))
    )
    assert not misled.settings_.slopes
    np.testing.assert_array_equal(misled.predict_mean(seen), cold.predict_mean(plain))


def test_forests_do_not_see_what_the_process_does_not_believe() -> None:
    rows = np.arange(0, len(POOL), 8)
    options: dict[str, Any] = {"boosters": 1, "trees": 20}
    tables = [table(None), table(np.random.default_rng(1).permutation(ELSEWHERE))]
    cold, misled = (
        ScorePredictor(**options).fit(seen.take(rows), HERE[rows], pool=seen).predict_latent(seen)[0] for seen in tables
    )
    np.testing.assert_array_equal(misled, cold)


def test_deviations_are_those_of_the_covariance_and_shrink_where_it_was_seen() -> None:
    rows = np.arange(0, len(POOL), 12)
    predictor, seen = learnt(ELSEWHERE, rows)
    assert predictor.settings_.slopes
    deviation = predictor.predict_latent(seen)[1]
    np.testing.assert_allclose(deviation, np.sqrt(np.diag(predictor.latent_covariance(seen))), rtol=2e-2)
    assert deviation[rows].mean() < 0.9 * np.delete(deviation, rows).mean()


def test_settings_of_an_earlier_fit_remember_too() -> None:
    rows = np.arange(0, len(POOL), 12)
    first, seen = learnt(ELSEWHERE, rows)
    again = ScorePredictor(boosters=0).fit(seen.take(rows), HERE[rows], pool=seen, settings=first.settings_)
    np.testing.assert_allclose(again.predict_mean(seen), first.predict_mean(seen), rtol=1e-5, atol=1e-6)


def test_a_part_of_a_pool_is_expected_what_the_whole_is() -> None:
    memory = Memory(SPACE, [Remembered(POOL.batch, ELSEWHERE)], PARTS)
    rows = np.array([5, 3, 200])
    whole = memory.table(POOL).values
    np.testing.assert_array_equal(memory.table(POOL.take(rows)).values, whole[rows])
    joined = JoinedPool([POOL.take(rows), POOL.take(rows[:1])])
    np.testing.assert_array_equal(memory.table(joined).values, whole[[5, 3, 200, 5]])


@pytest.mark.parametrize("n", [30, MOST + 500])
def test_a_large_memory_is_learnt_by_its_best_and_some_others(n: int) -> None:
    scores = np.random.default_rng(0).normal(size=n)
    rows = rows_to_learn(scores)
    assert len(rows) == len(set(rows.tolist())) == min(n, MOST)
    assert set(np.argsort(-scores)[: min(n, MOST) // 2]) <= set(rows.tolist())
    assert scores[rows].min() < np.quantile(scores, 0.1)
