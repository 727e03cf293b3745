"""Cells of NAS-Bench-101 as its official table has them."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from gemnet.cell_graph import INPUT, OUTPUT, CellGraph
from nas.spaces.nasbench101 import VOCABULARY


def spec_from_cell(cell: CellGraph) -> tuple[NDArray[np.int8], tuple[str, ...]]:
    """The official model specification of a cell: adjacency matrix (v, v) and operations with both ends."""
    matrix = np.zeros((cell.size, cell.size), dtype=np.int8)
    for i, j in cell.edges:
        matrix[i, j] = 1
    return matrix, cell.labels


def module_hash(cell: CellGraph) -> str:
    """The MD5 fingerprint under which the official table keeps the cell (`graph_util.hash_module`)."""
    codes = {INPUT: -1, OUTPUT: -2} | {op: k for k, op in enumerate(VOCABULARY)}
    readers = [cell.successors(v) for v in range(cell.size)]
    sources = [cell.predecessors(v) for v in range(cell.size)]
    hashes = [
        _md5(str((len(out), len(into), codes[label])))
        for out, into, label in zip(readers, sources, cell.labels, strict=True)
    ]
    for _ in range(cell.size):
        hashes = [
            _md5("|".join(("".join(sorted(hashes[u] for u in into)), "".join(sorted(hashes[u] for u in out)), own)))
            for into, out, own in zip(sources, readers, hashes, strict=True)
        ]
    return _md5(str(sorted(hashes)))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
