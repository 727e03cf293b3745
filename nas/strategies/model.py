"""What strategies that learn a predictor share: what is learnt from, the pool of a round, the choice of a batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.predictors.pool import Pool, ToldCandidates, ToldPool, sampled_pool
from nas.spaces.base import Candidate, CandidateBatch, SearchSpace
from nas.spaces.isomorphism import wl_hash
from nas.strategies.acquisition import find_acquisition
from nas.strategies.batch import best_first
from nas.strategies.history import HistoryStrategy, check_least
from nas.strategies.long_history import KeptPool, LongHistory

POOL_SIZE = 20_000  # candidates of a round where the space can't be listed
PARENTS = 20  # of the best candidates mutate into a sampled pool

Free = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a predictor learns from.

    Args:
        rows: places in `HistoryStrategy.candidates`, n of them.
        pool: the candidates there.
        scores: their scores (n,).
    """

    rows: NDArray[np.intp]
    pool: Pool
    scores: NDArray[np.float64]


class Prediction(NamedTuple):
    """What a predictor says of a pool.

    Args:
        mean, deviation: of each candidate, (n,).
        best: the best observation, on the same scale.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    best: float


class ModelStrategy(HistoryStrategy):
    """Ranks a pool by an acquisition value and proposes the best.

    The pool is the whole space where that can be listed; else fresh candidates each round, random ones and mutations of
    the best. In a long history it is renewed bit by bit, and only some of what is known is learnt from.

    Args:
        space, seed, options: see `HistoryStrategy`.
        pool_size: candidates of a round; None takes all of a space that can be listed, 20,000 in others.
        acquisition: what of a prediction ranks candidates: ``ucb`` or ``ei``, see `find_acquisition`.
        beta: weight of the deviation in ``ucb``; None for the strategy's usual one.
    """

    plan = LongHistory()

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        *,
        pool_size: int | None = None,
        acquisition: str = "ucb",
        beta: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(space, seed, **options)
        self.pool_size = pool_size
        self.beta = self.usual_beta() if beta is None else beta
        self.acquisition = find_acquisition(acquisition, self.beta)
        check_least(self, pool_size=1)
        self._kept = KeptPool(self.plan, space, self.limits, seed, pool_size or POOL_SIZE)
        self._told = ToldCandidates(space)

    def usual_beta(self) -> float:
        """Weight of the deviation where none is given."""
        return 0.5

    def is_start(self, number: int) -> bool:
        return super().is_start(number) or len(self.candidates) < 2  # from one nothing can be learnt

    def propose(
        self, n: int, rng: np.random.Generator, taken: set[Hashable], pending: Sequence[Candidate]
    ) -> list[Candidate]:
        lesson = self.lesson()
        pool = self._round_pool(rng, pending)
        free = self._free(pool, rng, taken, pending)
        if not free.any():
            return []
        chosen: list[Candidate] = []
        known = set(taken)
        for row in self.rank(lesson, pool, free, n, rng):
            candidate = pool.candidate(int(row))
            if self.pool is None and not self.is_new(candidate, known):
                continue
            known.add(self.key(candidate))
            chosen.append(candidate)
            if len(chosen) == n:
                break
        return chosen

    def rank(
        self, lesson: Lesson, pool: Pool, free: NDArray[np.bool_], n: int, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        """Rows of ``pool`` in the order in which they are to be proposed: free ones, at least ``n`` where there are.

        Args:
            lesson: what there is to learn from.
            pool: the candidates to choose from.
            free: which of them may be proposed.
            n: how many will be.
            rng: source of randomness.
        """
        return best_first(self.acquisition(*self.predict(lesson, pool, rng)), free, rng)

    @abstractmethod
    def predict(self, lesson: Lesson, pool: Pool, rng: np.random.Generator) -> Prediction:
        """Learns, and predicts the pool's candidates; ``rng`` seeds the predictor where it needs that."""

    @property
    def is_long(self) -> bool:
        """Whether so much was evaluated that only some of it is learnt from (`nas.strategies.long_history`)."""
        return len(self.candidates) > self.plan.beyond

    def lesson(self, first: int | None = None, most: int | None = None) -> Lesson:
        """What there is to learn from: all candidates evaluated so far, or a choice of them where they are many.

        Args:
            first: takes the first so many into account; None for all.
            most: candidates of a long history that are chosen; None for the plan's number.
        """
        scores = self.scores(first)
        rows = self.plan.rows(scores, self.seed, most) if self.is_long else np.arange(len(scores))
        return Lesson(rows, self._pool_of(rows), scores[rows])

    def _pool_of(self, rows: NDArray[np.intp]) -> Pool:
        if self.pool is not None:
            places = list(self._rows)  # of candidates, in their order
            if all(isinstance(place, int) for place in places):
                return self.pool.take(np.array(places, dtype=np.intp)[rows])
        if not self.is_long:
            return Pool(self.space, self.space.pack([self.candidates[row] for row in rows]))
        return ToldPool(self._all_told(), rows)

    def _round_pool(self, rng: np.random.Generator, pending: Sequence[Candidate]) -> Pool:
        if self.pool is not None:
            return self.pool
        if self.is_long:
            return self._kept.at(len(self.candidates), self._parents)
        seen = self.space.pack([*self.candidates, *pending])
        parents = self._parents(len(self.candidates))
        return sampled_pool(self.space, self.limits, self._kept.size, parents, seen, rng)

    def _parents(self, first: int) -> CandidateBatch:
        """The best of the first so many candidates, best first."""
        best = np.argsort(-self.scores(first), kind="stable")[:PARENTS]
        return self.space.pack([self.candidates[row] for row in best])

    def _free(self, pool: Pool, rng: np.random.Generator, taken: set[Hashable], pending: Sequence[Candidate]) -> Free:
        """Which of a pool may be proposed; what a fresh pool was drawn without is told apart later, one by one."""
        free = np.ones(len(pool), dtype=np.bool_)
        if self.pool is not None:
            if self.pool_size is not None and self.pool_size < len(pool):
                free[rng.permutation(len(pool))[self.pool_size :]] = False
            free[[key for key in taken if isinstance(key, int)]] = False
        elif self.is_long:
            hashes = pool.view("hash", wl_hash)
            free[:] = False
            free[np.unique(hashes, return_index=True)[1]] = True
            free &= ~np.isin(hashes, np.concatenate([self._all_told().hashes(), self._hashes(pending)]))
        return free

    def _all_told(self) -> ToldCandidates:
        self._told.extend(self.candidates[len(self._told) :])
        return self._told

    def _hashes(self, candidates: Sequence[Candidate]) -> NDArray[np.uint64]:
        return wl_hash(self.space.pack(candidates)) if candidates else np.zeros(0, dtype=np.uint64)
