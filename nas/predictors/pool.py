"""The candidates a strategy chooses from: all of a space that can be listed, or a fresh sample of one that can't."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.predictors.features import FeatureTable
from nas.spaces.base import Candidate, CandidateBatch, SearchSpace
from nas.spaces.isomorphism import CandidateIndex, wl_hash
from nas.spaces.limits import Limits, admits

View = Any  # an array or a csr_array with a row for each candidate


class Pool:
    """Candidates and what has been computed about them.

    Args:
        space: the candidates' space.
        batch: the candidates.
        parent: pool that this one is a selection of, and the rows selected; views are sliced from it.
    """

    def __init__(
        self, space: SearchSpace, batch: CandidateBatch, parent: tuple[Pool, NDArray[np.intp]] | None = None
    ) -> None:
        self.space = space
        self.batch = batch
        self._parent = parent
        self._views: dict[str, View] = {}
        self._tables: dict[str, FeatureTable] = {}
        self._index = CandidateIndex(space, batch)

    def __len__(self) -> int:
        return len(self.batch)

    def view(self, name: str, compute: Callable[[CandidateBatch], View]) -> View:
        """``compute(batch)``, a row for each candidate, computed once under each name."""
        if self._parent is not None:
            pool, rows = self._parent
            return pool.view(name, compute)[rows]
        if name not in self._views:
            self._views[name] = compute(self.batch)
        return self._views[name]

    def table(
        self, name: str, compute: Callable[[CandidateBatch], FeatureTable], *, mixed: bool = False
    ) -> FeatureTable:
        """Like `view`, for what a predictor reads.

        Args:
            name, compute: as of `view`.
            mixed: whether a row's last digits depend on what else is in the batch, as those of matrix products do.
        """
        if self._parent is not None:
            pool, rows = self._parent
            return pool.table(name, compute, mixed=mixed).take(rows)
        if name not in self._tables:
            self._tables[name] = compute(self.batch)
        return self._tables[name]

    def following(self, name: str, compute: Callable[[Pool], FeatureTable]) -> FeatureTable:
        """Like `table`, for what follows from other tables of a pool, a row each."""
        if self._parent is not None:
            pool, rows = self._parent
            return pool.following(name, compute).take(rows)
        if name not in self._tables:
            self._tables[name] = compute(self)
        return self._tables[name]

    def take(self, rows: NDArray[np.intp]) -> Pool:
        """The candidates at ``rows`` as a pool that shares this one's views."""
        return Pool(self.space, self.batch.take(rows), (self, rows))

    def is_part_of(self, pool: Pool) -> bool:
        """Whether this is the pool given, or a selection of it: then their views share their columns."""
        return self is pool or (self._parent is not None and self._parent[0].is_part_of(pool))

    def candidate(self, index: int) -> Candidate:
        """Candidate ``index``."""
        return self.space.unpack(self.batch, index)

    def index(self, candidate: Candidate) -> int | None:
        """Where a candidate, or one isomorphic to it, stands in the pool; None where it does not."""
        return self._index.find(candidate)


class JoinedPool(Pool):
    """Pools of one space one after another; what is computed about each stays with it.

    Args:
        parts: the pools.
    """

    def __init__(self, parts: Sequence[Pool]) -> None:
        super().__init__(parts[0].space, CandidateBatch.concat([part.batch for part in parts]))
        self._parts = tuple(parts)

    def view(self, name: str, compute: Callable[[CandidateBatch], View]) -> View:
        if name not in self._views:
            self._views[name] = np.concatenate([part.view(name, compute) for part in self._parts])
        return self._views[name]

    def table(
        self, name: str, compute: Callable[[CandidateBatch], FeatureTable], *, mixed: bool = False
    ) -> FeatureTable:
        if name not in self._tables:
            parts = [part.table(name, compute, mixed=mixed) for part in self._parts]
            self._tables[name] = FeatureTable.stack(parts)
        return self._tables[name]

    def following(self, name: str, compute: Callable[[Pool], FeatureTable]) -> FeatureTable:
        if name not in self._tables:
            self._tables[name] = FeatureTable.stack([part.following(name, compute) for part in self._parts])
        return self._tables[name]


class ToldPool(Pool):
    """Candidates of a long history that are learnt from.

    What depends on the others in a batch is computed of each one alone: sums in another order would come out a little
    different, and a resumed search would not go on as an uninterrupted one.

    Args:
        space: the candidates' space.
        candidates: all of the history.
        rows: those learnt from, rising.
        before: those learnt from a round ago, whose features are taken over.
    """

    def __init__(
        self, space: SearchSpace, candidates: Sequence[Candidate], rows: NDArray[np.intp], before: ToldPool | None
    ) -> None:
        super().__init__(space, space.pack([candidates[row] for row in rows]))
        self._told = candidates
        self._rows = rows
        self._before = None if before is None else (before._rows, before._tables)

    def table(
        self, name: str, compute: Callable[[CandidateBatch], FeatureTable], *, mixed: bool = False
    ) -> FeatureTable:
        if name not in self._tables:
            rows, tables = self._before or (self._rows[:0], {})
            old = np.isin(self._rows, rows) & (name in tables)
            missing = np.flatnonzero(~old)
            parts = np.array_split(missing, len(missing) if mixed else 1) if len(missing) else []
            new = [compute(self.batch.take(part)) for part in parts]
            kept = [tables[name].take(np.searchsorted(rows, self._rows[old]))] if old.any() else []
            order = np.argsort(np.concatenate([np.flatnonzero(old), missing]))
            self._tables[name] = FeatureTable.stack([*kept, *new]).take(order)
        return self._tables[name]

    def candidate(self, index: int) -> Candidate:
        return self._told[int(self._rows[index])]


@lru_cache(maxsize=8)
def enumerated_pool(space: SearchSpace, limits: Limits) -> Pool | None:
    """Every candidate of a space within the limits, or None where the space can't be listed.

    All searches of one process in the same space object share the pool and what is computed about it.
    """
    everything = space.all()
    if everything is None:
        return None
    return Pool(space, everything.take(np.flatnonzero(admits(space, limits, everything))))


def sampled_pool(
    space: SearchSpace,
    limits: Limits,
    size: int,
    best: CandidateBatch,
    seen: CandidateBatch,
    rng: np.random.Generator,
) -> Pool:
    """A fresh pool of a space that can't be listed.

    Half are random, half are mutations of ``best`` (one to three edits; better ones have more children). Candidates
    over the limits, isomorphic to one in ``seen`` or to another in the pool are left out, and more are drawn in their
    place a few times.

    Args:
        space: the space.
        limits: hard limits.
        size: candidates wanted; fewer come back where the space within the limits is small.
        best: parents, best first; may be empty.
        seen: candidates evaluated or in evaluation.
        rng: source of randomness.
    """
    known = wl_hash(seen) if len(seen) else np.zeros(0, dtype=np.uint64)
    parts: list[CandidateBatch] = []
    total = 0
    for _ in range(6):
        if total >= size:
            break
        missing = size - total
        fresh = max(missing // 2, 1) if len(best) else missing
        drawn = [space.sample(fresh, rng)]
        if len(best):
            # A geometric preference: rank k has about 0.8 ** k as many children as the best.
            weights = 0.8 ** np.arange(len(best))
            parents = rng.choice(len(best), missing - fresh + 1, p=weights / weights.sum())
            edits = rng.integers(1, 4, len(parents))
            drawn += [
                space.mutate(best.take(parents[edits == k]), rng, edits=k) for k in (1, 2, 3) if np.any(edits == k)
            ]
        batch = CandidateBatch.concat(drawn)
        batch = batch.take(np.flatnonzero(admits(space, limits, batch)))
        hashes = wl_hash(batch) if len(batch) else np.zeros(0, dtype=np.uint64)
        _, first = np.unique(hashes, return_index=True)
        new = np.sort(first[~np.isin(hashes[first], known)])
        parts.append(batch.take(new))
        known = np.concatenate([known, hashes[new]])
        total += len(new)
    return Pool(space, CandidateBatch.concat(parts).take(slice(0, size)))
