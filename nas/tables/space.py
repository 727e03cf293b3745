"""A table's cells as a search space of their own."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from nas.graphs.wl import wl_features
from nas.spaces.base import Candidate, CandidateBatch, SearchSpace, SpaceError
from nas.spaces.isomorphism import CandidateIndex

NEAREST = 16  # neighbours of a cell; enough for local search to have a choice, few enough to stay near


class TableSpace(SearchSpace):
    """The cells of a table that does not cover a whole space.

    An edit would mostly lead out of the table, so a neighbour is one of the nearest cells in it: by the L1 distance of
    WL features after one refinement, which counts the nodes whose operation or neighbourhood changes.

    Args:
        name: the table's name.
        batch: its cells.
        base: the space they come from, for its names of operations, MACs and parameters; or None.
        macs, params: figures recorded in the table, (n,), where there is no ``base``.
    """

    def __init__(
        self,
        name: str,
        batch: CandidateBatch,
        base: SearchSpace | None = None,
        macs: NDArray[np.float64] | None = None,
        params: NDArray[np.float64] | None = None,
    ) -> None:
        self.name = name
        self.vocabulary = batch.graphs.vocabulary
        self.base = base
        if base is not None:
            self.zero_ops, self.identity_ops = base.zero_ops, base.identity_ops
            self.macro_choices = base.macro_choices
        self._recorded = {"macs": macs, "params": params}
        self._batch = batch
        self._index = CandidateIndex(self, batch)
        self._near: dict[int, NDArray[np.intp]] = {}  # rows by nearness, of cells asked for before

    def all(self) -> CandidateBatch:
        """Every cell of the table."""
        return self._batch

    def sample(self, n: int, rng: np.random.Generator) -> CandidateBatch:
        """``n`` cells of the table, drawn uniformly."""
        return self._batch.take(rng.integers(0, len(self._batch), n))

    def mutate(self, parents: CandidateBatch, rng: np.random.Generator, edits: int = 1) -> CandidateBatch:
        """One of the nearest ``NEAREST * edits`` cells for each parent."""
        rows = self._rows(parents)
        near = {row: self._nearest(row, NEAREST * edits) for row in set(rows)}
        return self._batch.take([int(rng.choice(near[row])) for row in rows])

    def neighbours(self, candidate: Candidate) -> CandidateBatch:
        """The nearest cells of the table."""
        self.check(candidate)
        return self._batch.take(self._nearest(self._rows(self.pack([candidate]))[0], NEAREST))

    def check(self, candidate: Candidate) -> None:
        """Raises `SpaceError` where the candidate is not in the table."""
        if self._index.find(candidate) is None:
            raise SpaceError(f"Table {self.name!r} has no such cell: {candidate.to_json()}.")

    def macs(self, batch: CandidateBatch) -> NDArray[np.float64] | None:
        """MACs by the base space's formula, or as recorded."""
        return self.base.macs(batch) if self.base is not None else self._lookup("macs", batch)

    def params(self, batch: CandidateBatch) -> NDArray[np.float64] | None:
        """Parameters by the base space's formula, or as recorded."""
        return self.base.params(batch) if self.base is not None else self._lookup("params", batch)

    def _lookup(self, name: str, batch: CandidateBatch) -> NDArray[np.float64] | None:
        values = self._recorded[name]
        if values is None:
            return None
        return values if batch is self._batch else values[self._rows(batch)]

    def _rows(self, batch: CandidateBatch) -> list[int]:
        rows = []
        for k in range(len(batch)):
            candidate = self.unpack(batch, k)
            row = self._index.find(candidate)
            if row is None:
                raise SpaceError(f"Table {self.name!r} has no such cell: {candidate.to_json()}.")
            rows.append(row)
        return rows

    @cached_property
    def _features(self) -> tuple[csr_array, csr_array, NDArray[np.float64]]:
        """WL features by row, the same by column, and their row sums."""
        features = csr_array(wl_features(self._batch.graphs, 1))
        return features, csr_array(features.T), np.asarray(features.sum(axis=1), dtype=np.float64).reshape(-1)

    def _nearest(self, row: int, count: int) -> NDArray[np.intp]:
        if row in self._near and len(self._near[row]) >= count:
            return self._near[row][:count]
        features, columns, sums = self._features
        # |a - b| = a + b - 2 min(a, b), and only the colours of this cell have a minimum above zero.
        own = slice(features.indptr[row], features.indptr[row + 1])
        shared = np.zeros(len(sums))
        for column, here in zip(features.indices[own], features.data[own], strict=True):
            cells = slice(columns.indptr[column], columns.indptr[column + 1])
            shared[columns.indices[cells]] += np.minimum(columns.data[cells], here)
        distance = sums + sums[row] - 2 * shared
        distance[row] = np.inf
        self._near[row] = np.argsort(distance, kind="stable")[: min(count, len(distance) - 1)]
        return self._near[row]
