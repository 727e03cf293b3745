"""A long history: what is learnt from, and candidates that are kept from round to round.

A predictor that learns from all of n evaluations takes n^3 steps, and a fresh pool takes seconds. At first that is what
happens; in a long history a round costs the same however many evaluations there are. Everything here follows from the
history alone, so that a resumed search goes on as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas.predictors.pool import JoinedPool, Pool, sampled_pool
from nas.spaces.base import CandidateBatch, SearchSpace
from nas.spaces.limits import Limits

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class LongHistory:
    """From when on a history is long, and how much of it is looked at.

    Args:
        beyond: evaluations beyond which it is long.
        most: evaluations that a predictor learns from.
        hyper: those of them that its hyper-parameters are chosen by.
        best, recent: shares of the best and of the latest among them; the rest is a random spread.
        block: evaluations after which new candidates replace the oldest kept ones; twice as many each time that the
            history has doubled since ``2 * block * blocks`` evaluations, up to ``longest_block``.
        longest_block: a power of two times ``block``.
        blocks: blocks of candidates that are kept; ``block`` times this many evaluations are at most a little more
            than ``beyond``.
        reference: random candidates by whose spread features are scaled.
        coarse: the pool is first ranked by what one in so many of those learnt from lets expect.
        looked: the best of the pool by that, whose means are predicted by all of them.
        near: the best of these, whose deviations are looked at.
    """

    beyond: int = 1000
    most: int = 2000
    hyper: int = 500
    best: float = 0.4
    recent: float = 0.2
    block: int = 8
    longest_block: int = 32
    blocks: int = 128
    reference: int = 2000
    coarse: int = 4
    looked: int = 3000
    near: int = 1000

    def rows(self, scores: NDArray[np.float64], seed: int, most: int | None = None) -> Rows:
        """Which of n evaluations to learn from: the best, the latest, and a random spread that stays as n grows.

        Args:
            scores: by number, (n,).
            seed: draws the spread.
            most: how many; all where there are no more; None for the plan's.

        Returns:
            Places, rising.
        """
        n, most = len(scores), most or self.most
        if n <= most:
            return np.arange(n)
        chosen = np.zeros(n, dtype=np.bool_)
        chosen[np.argsort(-scores, kind="stable")[: int(most * self.best)]] = True
        chosen[n - int(most * self.recent) :] = True
        # The draws of the first n are the same for every larger n.
        order = np.argsort(np.random.default_rng([seed, 0, 1]).random(n), kind="stable")
        order = order[~chosen[order]]
        chosen[order[: most - int(chosen.sum())]] = True
        return np.flatnonzero(chosen)

    def settled(self, n: int) -> int:
        """How many of n evaluations hyper-parameters follow from: a number that doubles, so that they rarely change."""
        size = self.beyond
        while 2 * size <= n:
            size *= 2
        return size

    def starts(self, n: int) -> list[int]:
        """After how many evaluations each block that is kept after n of them was drawn; rising."""
        found: list[int] = []
        at = n
        while at >= 0 and len(found) < self.blocks:
            length = self.block
            while length < self.longest_block and 2 * length * self.blocks <= at:
                length *= 2
            found.append(at // length * length)
            at = found[-1] - 1
        return found[::-1]


class KeptPool:
    """Candidates to choose from, drawn block by block, with what has been computed about them.

    A block belongs to the evaluations from its start on (`LongHistory.starts`): half random candidates, half children
    of the best until then. The latest blocks are the pool.

    Args:
        plan: how many blocks, and how long they are.
        space, limits: where to draw.
        seed: with the start of a block, the key of its randomness.
        size: candidates of the whole pool.
    """

    def __init__(self, plan: LongHistory, space: SearchSpace, limits: Limits, seed: int, size: int) -> None:
        self.plan = plan
        self.space = space
        self.limits = limits
        self.seed = seed
        self.size = size
        self._blocks: dict[int, Pool] = {}
        self._joined: Pool | None = None

    def at(self, n: int, parents: Callable[[int], CandidateBatch]) -> Pool:
        """The pool after n evaluations.

        Args:
            n: how many.
            parents: gives the best of the first so many evaluations, best first.
        """
        starts = self.plan.starts(n)
        if self._joined is None or starts != list(self._blocks):
            known = self._blocks
            self._blocks = {k: known[k] if k in known else self._draw(k, parents(k)) for k in starts}
            self._joined = JoinedPool(list(self._blocks.values()))
        return self._joined

    @cached_property
    def reference(self) -> Pool:
        """Random candidates by whose spread features are scaled."""
        rng = np.random.default_rng([self.seed, 0, 2])
        return sampled_pool(self.space, self.limits, min(self.plan.reference, self.size), self._none, self._none, rng)

    def _draw(self, start: int, parents: CandidateBatch) -> Pool:
        rng = np.random.default_rng([self.seed, start // self.plan.block, 3])
        size = -(-self.size // self.plan.blocks)
        return sampled_pool(self.space, self.limits, size, parents, self._none, rng)

    @cached_property
    def _none(self) -> CandidateBatch:
        return self.space.pack([])
