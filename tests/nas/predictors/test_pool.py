"""The candidates that a strategy chooses from: each once, none over the limits, none that was seen."""

from __future__ import annotations

import numpy as np
import pytest

from nas.predictors.pool import Pool, enumerated_pool, sampled_pool
from nas.spaces.base import CandidateBatch
from nas.spaces.choices import ChoiceSpace
from nas.spaces.limits import Limits


class Costed(ChoiceSpace):
    """A space whose candidates cost the sum of their values."""

    def macs(self, batch: CandidateBatch) -> np.ndarray:
        return 1.0 + batch.macro.sum(axis=1)


SMALL = Costed({f"layer{k}": [1, 2, 3] for k in range(3)})
MIDDLE = Costed({f"layer{k}": [1, 2, 3, 4] for k in range(5)})
LARGE = Costed({f"layer{k}": [1, 2, 3, 4] for k in range(60)})
NONE, NONE_LARGE = SMALL.pack([]), LARGE.pack([])


def rows_of(batch: CandidateBatch) -> list[tuple[int, ...]]:
    return [tuple(row) for row in batch.macro.tolist()]


def test_a_fresh_pool_holds_each_candidate_once_and_none_that_was_seen() -> None:
    seen = SMALL.all().take([0, 3, 7, 20, 26])
    for parents in (NONE, SMALL.all().take([5, 20])):
        found = rows_of(sampled_pool(SMALL, Limits(), 200, parents, seen, np.random.default_rng(0)).batch)
        assert len(found) == len(set(found)) == 22
        assert not set(found) & set(rows_of(seen))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("space", [MIDDLE, LARGE])
def test_a_fresh_pool_is_filled_up_and_no_larger_than_asked_for(space: ChoiceSpace, seed: int) -> None:
    for best in (space.pack([]), space.sample(2, np.random.default_rng(9))):
        assert len(sampled_pool(space, Limits(), 60, best, space.pack([]), np.random.default_rng(seed))) == 60


def test_a_pool_holds_what_is_equal_to_a_limit_and_nothing_above() -> None:
    within = [row for row in rows_of(SMALL.all()) if 1 + sum(row) <= 3]
    drawn = sampled_pool(SMALL, Limits(max_macs=3), 100, SMALL.all().take([26]), NONE, np.random.default_rng(0))
    listed = enumerated_pool(SMALL, Limits(max_macs=3))
    assert listed is not None
    assert sorted(rows_of(drawn.batch)) == rows_of(listed.batch) == sorted(within)
    assert enumerated_pool(LARGE, Limits()) is None


def test_half_of_a_fresh_pool_are_children_of_the_best_and_better_ones_have_more() -> None:
    parents = CandidateBatch.concat([LARGE.sample(1, np.random.default_rng(0))] * 4)
    parents.macro[:] = np.arange(4)[:, None]
    batch = sampled_pool(LARGE, Limits(), 800, parents, NONE_LARGE, np.random.default_rng(1)).batch
    edits = (batch.macro[:, None] != parents.macro).sum(axis=2)
    children = (edits <= 3).sum(axis=0)
    assert 0.45 < children.sum() / 800 < 0.55
    assert 1.4 < children[0] / children[3] < 2.8  # 1 / 0.8 ** 3 is 1.95
    counts = [int((edits == k).sum()) for k in (1, 2, 3)]
    assert min(counts) > 0.25 * sum(counts)


def test_a_selection_is_part_of_what_it_was_taken_from() -> None:
    pool, twin = Pool(SMALL, SMALL.all()), Pool(SMALL, SMALL.all())
    part = pool.take(np.array([4, 9, 2]))
    assert part.is_part_of(pool)
    assert part.take(np.array([1])).is_part_of(pool)
    assert not pool.is_part_of(part)
    assert not part.is_part_of(twin)
