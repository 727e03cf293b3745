"""What strategies that learn a predictor share: the pool of a round, the rows observed, the choice of a batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.predictors.pool import Pool, sampled_pool
from nas.spaces.base import Candidate, SearchSpace
from nas.strategies.history import HistoryStrategy, check_least

POOL_SIZE = 20_000  # candidates of a round where the space can't be listed
PARENTS = 20  # of the best candidates mutate into a sampled pool


class ModelStrategy(HistoryStrategy):
    """Ranks a pool by an acquisition value and proposes the best.

    The pool is the whole space where that can be listed; else fresh candidates each round, random ones and mutations of
    the best.

    Args:
        space, seed, options: see `HistoryStrategy`.
        pool_size: candidates of a round; None takes all of a space that can be listed, 20,000 in others.
    """

    def __init__(self, space: SearchSpace, seed: int, *, pool_size: int | None = None, **options: Any) -> None:
        super().__init__(space, seed, **options)
        self.pool_size = pool_size
        check_least(self, pool_size=1)

    def is_start(self, number: int) -> bool:
        return super().is_start(number) or len(self.candidates) < 2  # from one nothing can be learnt

    def propose(
        self, n: int, rng: np.random.Generator, taken: set[Hashable], pending: Sequence[Candidate]
    ) -> list[Candidate]:
        observed = self.observed()
        pool = self._round_pool(rng, pending)
        free = np.ones(len(pool), dtype=np.bool_)
        if self.pool is not None:
            if self.pool_size is not None and self.pool_size < len(pool):
                free[rng.permutation(len(pool))[self.pool_size :]] = False
            free[[key for key in taken if isinstance(key, int)]] = False
        if not free.any():
            return []
        chosen: list[Candidate] = []
        known = set(taken)
        for row in self.rank(observed, self.scores(), pool, free, n, rng):
            candidate = pool.candidate(int(row))
            if self.pool is None and not self.is_new(candidate, known):
                continue
            known.add(self.key(candidate))
            chosen.append(candidate)
            if len(chosen) == n:
                break
        return chosen

    @abstractmethod
    def rank(
        self,
        observed: Pool,
        scores: NDArray[np.float64],
        pool: Pool,
        free: NDArray[np.bool_],
        n: int,
        rng: np.random.Generator,
    ) -> NDArray[np.intp]:
        """Rows of ``pool`` in the order in which they are to be proposed: free ones, at least ``n`` where there are.

        Args:
            observed: the candidates evaluated so far.
            scores: their scores.
            pool: the candidates to choose from.
            free: which of them may be proposed.
            n: how many will be.
            rng: source of randomness.
        """

    def observed(self) -> Pool:
        """The candidates evaluated so far, as a pool."""
        if self.pool is not None:
            rows = [self.pool.index(candidate) for candidate in self.candidates]
            if None not in rows:
                return self.pool.take(np.array(rows, dtype=np.intp))
        return Pool(self.space, self.space.pack(self.candidates))

    def _round_pool(self, rng: np.random.Generator, pending: Sequence[Candidate]) -> Pool:
        if self.pool is not None:
            return self.pool
        best = np.argsort(-self.scores(), kind="stable")[:PARENTS]
        parents = self.space.pack([self.candidates[row] for row in best])
        seen = self.space.pack([*self.candidates, *pending])
        return sampled_pool(self.space, self.limits, self.pool_size or POOL_SIZE, parents, seen, rng)


def best_first(values: NDArray[np.float64], free: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.intp]:
    """Free rows by falling value; ties, such as functionally equal candidates, in random order."""
    rows = rng.permutation(np.flatnonzero(free))
    return rows[np.argsort(-values[rows], kind="stable")]
