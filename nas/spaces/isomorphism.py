"""Which candidates are the same network: hashes of Weisfeiler-Lehman colours and macro choices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.graphs.wl import wl_colours
from nas.spaces.base import CandidateBatch

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


def row_bytes(batch: CandidateBatch) -> list[bytes]:
    graphs = batch.graphs
    return [
        graphs.ops[row, :size].tobytes() + graphs.successors[row, :size].tobytes() + batch.macro[row].tobytes()
        for row, size in enumerate(graphs.sizes.tolist())
    ]
