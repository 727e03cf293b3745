"""A table's cells as a search space of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack

from nas.graphs.wl import wl_features
from nas.spaces.base import Candidate, CandidateBatch, Choice, SearchSpace, SpaceError
from nas.spaces.isomorphism import CandidateIndex
from nas.spaces.several_cells import operation_of

NEAREST = 16  # neighbours of a cell; enough for local search to have a choice, few enough to stay near


class TableSpace(SearchSpace):
    """The cells of a table.

    An edit would mostly lead out of a table that does not cover a whole space, so a neighbour is one of the nearest
    cells in it: by the L1 distance of WL features after one refinement, which counts the nodes whose operation or
    neighbourhood changes, and of macro choices, in steps where they are in order.

    Args:
        name: the table's name.
        batch: its cells; where they are all of ``base``, in the order of its list.
        base: the space they come from, for its names of operations, MACs and parameters; or None.
        macs, params: figures recorded in the table, (n,), which go before those of ``base``.
        zero_ops, identity_ops: what is known of operations where there is no ``base``.
        choices, ordinal_choices: macro choices where there is no ``base``; see `SearchSpace`.
    """

    def __init__(
        self,
        name: str,
        batch: CandidateBatch,
        base: SearchSpace | None = None,
        macs: NDArray[np.float64] | None = None,
        params: NDArray[np.float64] | None = None,
        zero_ops: Collection[str] = (),
        identity_ops: Collection[str] = (),
        choices: Mapping[str, tuple[Choice, ...]] = MappingProxyType({}),
        ordinal_choices: Collection[str] = (),
    ) -> None:
        self.name = name
        self.vocabulary = batch.graphs.vocabulary
        self.base = base
        self.zero_ops, self.identity_ops = (
            frozenset(op for op in self.vocabulary if operation_of(op) in named) for named in (zero_ops, identity_ops)
        )
        self.macro_choices, self.ordinal_choices = choices, frozenset(ordinal_choices)
        if base is not None:
            self.zero_ops, self.identity_ops = base.zero_ops, base.identity_ops
            self.macro_choices, self.ordinal_choices = base.macro_choices, base.ordinal_choices
        self._recorded = {"macs": macs, "params": params}
        self._batch = batch
        whole = None if base is None else base.all()
        self._whole = base if whole is not None and len(whole) == len(batch) else None  # its moves stay in the table
        self._index = CandidateIndex(self, batch)
        self._near: dict[int, NDArray[np.intp]] = {}  # rows by nearness, of cells asked for before

    def all(self) -> CandidateBatch:
        """Every cell of the table."""
        return self._batch

    def sample(self, n: int, rng: np.random.Generator) -> CandidateBatch:
        """``n`` cells of the table, drawn uniformly."""
        if self._whole is not None:
            return self._whole.sample(n, rng)
        return self._batch.take(rng.integers(0, len(self._batch), n))

    def mutate(self, parents: CandidateBatch, rng: np.random.Generator, edits: int = 1) -> CandidateBatch:
        """One of the nearest ``NEAREST * edits`` cells for each parent; of a whole space, its own mutation."""
        if self._whole is not None:
            return self._whole.mutate(parents, rng, edits)
        rows = self._rows(parents)
        near = {row: self._nearest(row, NEAREST * edits) for row in set(rows)}
        return self._batch.take([int(rng.choice(near[row])) for row in rows])

    def neighbours(self, candidate: Candidate) -> CandidateBatch:
        """The nearest cells of the table; of a whole space, its own neighbours."""
        self.check(candidate)
        if self._whole is not None:
            return self._whole.neighbours(candidate)
        return self._batch.take(self._nearest(self._rows(self.pack([candidate]))[0], NEAREST))

    def check(self, candidate: Candidate) -> None:
        """Raises `SpaceError` where the candidate is not in the table."""
        if self._index.find(candidate) is None:
            raise SpaceError(f"Table {self.name!r} has no such cell: {candidate.to_json()}.")

    def macs(self, batch: CandidateBatch) -> NDArray[np.float64] | None:
        """MACs as recorded, or by the base space's formula."""
        recorded = self._recorded["macs"]
        if recorded is not None:
            return self._lookup(recorded, batch)
        return None if self.base is None else self.base.macs(batch)

    def params(self, batch: CandidateBatch) -> NDArray[np.float64] | None:
        """Parameters as recorded, or by the base space's formula."""
        recorded = self._recorded["params"]
        if recorded is not None:
            return self._lookup(recorded, batch)
        return None if self.base is None else self.base.params(batch)

    def live_costs(self, batch: CandidateBatch) -> list[NDArray[np.float64]]:
        """By the base space's formulas where it has some; else as recorded, dead weight included."""
        found = [] if self.base is None else self.base.live_costs(batch)
        return found or [values for values in (self.macs(batch), self.params(batch)) if values is not None]

    def _lookup(self, recorded: NDArray[np.float64], batch: CandidateBatch) -> NDArray[np.float64]:
        return recorded if batch is self._batch else recorded[self._rows(batch)]

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
        """WL features and choices by row, the same by column, and their row sums."""
        choices = [
            self._rank(name)[chosen][:, None] > np.arange(len(values) - 1)
            if self.is_ordinal(name)
            else np.eye(len(values))[chosen]
            for (name, values), chosen in zip(self.macro_choices.items(), self._batch.macro.T, strict=True)
        ]
        parts = [wl_features(self._batch.graphs, 1), *(csr_array(part.astype(np.float64)) for part in choices)]
        features = csr_array(hstack(parts, format="csr")) if choices else csr_array(parts[0])
        return features, csr_array(features.T), np.asarray(features.sum(axis=1), dtype=np.float64).reshape(-1)

    def _rank(self, name: str) -> NDArray[np.intp]:
        """Place of each value of an ordinal choice in its order: numbers by size, names as they are listed."""
        values = self.macro_choices[name]
        is_number = name not in self.ordinal_choices
        return np.argsort(np.argsort(np.array(values, dtype=float) if is_number else np.arange(len(values))))

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
