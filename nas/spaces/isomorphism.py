"""Which candidates are the same network, and where one stands: hashes of Weisfeiler-Lehman colours and choices."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas.graphs.wl import wl_colours
from nas.spaces.base import Candidate, CandidateBatch, SearchSpace

HASH_ITERATIONS = 4  # at 30 nodes colours are nearly all unique from depth 2 on; more would tell nothing apart


def wl_hash(batch: CandidateBatch) -> NDArray[np.uint64]:
    """A 64-bit hash that isomorphic candidates with the same macro choices share; uint64 (n,).

    Graphs that colour refinement can't tell apart share it too: in a pool of thousands that costs nothing.
    """
    colours = wl_colours(batch.graphs, HASH_ITERATIONS)[:, -1]
    mixed = (colours ^ (colours >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    total = (mixed ^ (mixed >> np.uint64(32))).sum(axis=1, dtype=np.uint64)
    for column in range(batch.macro.shape[1]):
        total = (total ^ batch.macro[:, column].astype(np.uint64)) * np.uint64(0x94D049BB133111EB)
        total ^= total >> np.uint64(31)
    return total


class CandidateIndex:
    """Where candidates stand in a batch.

    Args:
        space: the candidates' space.
        batch: the candidates.
    """

    def __init__(self, space: SearchSpace, batch: CandidateBatch) -> None:
        self.space = space
        self.batch = batch

    @cached_property
    def _rows(self) -> dict[bytes, int]:
        return {key: row for row, key in enumerate(_row_bytes(self.batch))}

    @cached_property
    def _buckets(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for place, value in enumerate(wl_hash(self.batch).tolist()):
            found.setdefault(value, []).append(place)
        return found

    def find(self, candidate: Candidate) -> int | None:
        """The row of a candidate, or of one isomorphic to it; None where there is none."""
        packed = self.space.pack([candidate])
        row = self._rows.get(_row_bytes(packed)[0])
        if row is not None:
            return row
        key = candidate.key()
        places = self._buckets.get(int(wl_hash(packed)[0]), [])
        return next((place for place in places if self.space.unpack(self.batch, place).key() == key), None)


def _row_bytes(batch: CandidateBatch) -> list[bytes]:
    graphs = batch.graphs
    return [
        graphs.ops[row, :size].tobytes() + graphs.successors[row, :size].tobytes() + batch.macro[row].tobytes()
        for row, size in enumerate(graphs.sizes.tolist())
    ]
