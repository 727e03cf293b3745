"""The candidates a strategy chooses from: all of a space that can be listed, or a fresh sample of one that can't."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemnet.cell_graph import MAX_NODES, GraphBatch
from nas.predictors.features import FeatureTable, Table
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


class GrowingRows:
    """An array that rows are appended to; it grows by half as much again, so that n rows are copied log n times."""

    def __init__(self) -> None:
        self._kept: NDArray[Any] | None = None
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def values(self) -> NDArray[Any]:
        """All rows; later ones may lie elsewhere."""
        if self._kept is None:
            raise ValueError("No rows were appended yet.")
        return self._kept[: self._length]

    def append(self, rows: NDArray[Any]) -> None:
        """Adds rows of the same shape and type as those before."""
        before, length = self._length, self._length + len(rows)
        if self._kept is None or length > len(self._kept):
            grown = np.empty((length + length // 2, *rows.shape[1:]), rows.dtype)
            if self._kept is not None:
                grown[:before] = self._kept[:before]
            self._kept = grown
        self._kept[before:length] = rows
        self._length = length


@dataclass
class _Kept:
    """What has been computed of told candidates under a name.

    Args:
        rows: which candidates, rising, (n,).
        values: a row for each of them, (n, columns).
        alone: rows of those after the last whole block, by number.
        groups: of the columns.
    """

    rows: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    values: Table = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    alone: dict[int, Table] = field(default_factory=dict)
    groups: tuple[str, ...] = ()

    def add(self, rows: NDArray[np.intp], found: FeatureTable) -> None:
        """Keeps what was computed of more candidates; of those that are known already, what is known."""
        values = np.concatenate([self.values, found.values]) if len(self.rows) else found.values
        self.rows, first = np.unique(np.concatenate([self.rows, rows]), return_index=True)
        self.values, self.groups = values[first], found.groups

    def only(self, rows: NDArray[np.intp]) -> None:
        """Forgets all others."""
        there = np.isin(self.rows, rows)
        self.rows, self.values = self.rows[there], self.values[there]


class ToldCandidates:
    """All candidates of a long history, with what has been computed about them.

    What depends on the others in a batch, in its last digits, is computed in blocks that follow from the history alone,
    and one by one of those after the last whole block: in other company it would come out a little different, and a
    resumed search would not go on as an uninterrupted one.

    Args:
        space: the candidates' space.
    """

    BLOCK = 8
    """Candidates whose vectors are computed together."""
    AT_ONCE = 2048
    """Most candidates that are packed or looked at together, which bounds the memory that takes."""
    KEPT = 8192
    """Candidates beyond which what was computed of those not asked for is forgotten: of a long history most are learnt
    from for a while only."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.candidates: list[Candidate] = []
        self._sizes, self._ops, self._successors, self._macro = (GrowingRows() for _ in range(4))
        self._hashes = GrowingRows()
        self._tables: dict[str, _Kept] = {}

    def __len__(self) -> int:
        return len(self.candidates)

    def extend(self, candidates: Sequence[Candidate]) -> None:
        """Adds what was told since."""
        for start in range(0, len(candidates), self.AT_ONCE):
            part = candidates[start : start + self.AT_ONCE]
            batch = self.space.pack(part)
            pad = ((0, 0), (0, MAX_NODES - batch.graphs.width))
            self._sizes.append(batch.graphs.sizes)
            self._ops.append(np.pad(batch.graphs.ops, pad))
            self._successors.append(np.pad(batch.graphs.successors, pad))
            self._macro.append(batch.macro)
            self._hashes.append(wl_hash(batch))
            self.candidates += part

    def batch(self, rows: NDArray[np.intp] | slice) -> CandidateBatch:
        """The candidates at ``rows``, packed."""
        sizes = self._sizes.values[rows]
        width = int(sizes.max(initial=2))
        graphs = GraphBatch(
            self.space.vocabulary, sizes, self._ops.values[rows, :width], self._successors.values[rows, :width]
        )
        return CandidateBatch(graphs, self._macro.values[rows])

    def hashes(self) -> NDArray[np.uint64]:
        """`wl_hash` of all."""
        return self._hashes.values

    def table(
        self, rows: NDArray[np.intp], name: str, compute: Callable[[CandidateBatch], FeatureTable], mixed: bool
    ) -> FeatureTable:
        """``compute`` of the candidates at ``rows``; of what is kept it is called once a name, or twice if mixed.

        Args:
            rows: which, (n,).
            name, compute, mixed: as of `Pool.table`.
        """
        kept = self._tables.setdefault(name, _Kept())
        whole = len(self) // self.BLOCK * self.BLOCK if mixed else len(self)
        missing = np.setdiff1d(rows[rows < whole], kept.rows)
        if mixed:
            parts = [np.arange(k * self.BLOCK, (k + 1) * self.BLOCK) for k in np.unique(missing // self.BLOCK)]
        else:
            parts = [missing[start : start + self.AT_ONCE] for start in range(0, len(missing), self.AT_ONCE)]
        if parts:
            found = FeatureTable.stack([compute(self.batch(part)) for part in parts])
            kept.add(np.concatenate(parts), found)
        if len(kept.rows) > self.KEPT:
            kept.only(rows)
        kept.alone = {row: values for row, values in kept.alone.items() if row >= whole}
        last = rows[rows >= whole].tolist()
        for row in last:
            if row not in kept.alone:
                found = compute(self.batch(slice(row, row + 1)))
                kept.alone[row], kept.groups = found.values[0], found.groups
        values, inside = np.empty((len(rows), len(kept.groups)), dtype=np.float32), rows < whole
        if inside.any():
            values[inside] = kept.values[np.searchsorted(kept.rows, rows[inside])]
        if last:
            values[~inside] = [kept.alone[row] for row in last]
        return FeatureTable(values, kept.groups)


class ToldPool(Pool):
    """Candidates of a long history that are learnt from.

    Args:
        told: all of the history.
        rows: those learnt from.
    """

    def __init__(self, told: ToldCandidates, rows: NDArray[np.intp]) -> None:
        super().__init__(told.space, told.batch(rows))
        self._told = told
        self._rows = rows

    def table(
        self, name: str, compute: Callable[[CandidateBatch], FeatureTable], *, mixed: bool = False
    ) -> FeatureTable:
        if name not in self._tables:
            self._tables[name] = self._told.table(self._rows, name, compute, mixed)
        return self._tables[name]

    def candidate(self, index: int) -> Candidate:
        return self._told.candidates[int(self._rows[index])]


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
