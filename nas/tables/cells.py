"""Cells from the columns that hold them, in the forms of `nas.tables.read`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemnet.cell_graph import FIRST_OP_CODE, INPUT_CODE, OUTPUT_CODE, CellGraph, GraphBatch
from gemnet.errors import GenomeError, GraphError
from gemnet.strict_json import JsonError, parse_json
from nas.spaces.base import Candidate, CandidateBatch, Choice, SearchSpace, SpaceError
from nas.spaces.darts import DARTS, cell_from_genotype
from nas.spaces.nasbench101 import MAX_EDGES, MAX_VERTICES
from nas.spaces.nasbench101 import VOCABULARY as VOCABULARY_101
from nas.spaces.nasbench201 import VOCABULARY as VOCABULARY_201
from nas.spaces.nasbench201 import cell_from_arch
from nas.spaces.several_cells import join_cells
from nas.tables.table import TableError


def from_arch_strings(name: str, strings: NDArray[Any]) -> CandidateBatch:
    """Cells of NAS-Bench-201's architecture strings, (n,); ``name`` is the table's, for messages."""
    cells = []
    for row, text in enumerate(strings):
        try:
            cells.append(cell_from_arch(str(text)))
        except SpaceError as error:
            raise TableError(f"Row {row} of table {name!r}: {error}") from None
    return CandidateBatch(GraphBatch.from_graphs(cells, VOCABULARY_201), np.zeros((len(cells), 0), dtype=np.int16))


def from_genotypes(name: str, texts: NDArray[Any]) -> CandidateBatch:
    """Cells of a column of the DARTS space's genotypes, (n,)."""
    cells = []
    for row, text in enumerate(texts):
        try:
            cells.append(cell_from_genotype(str(text)))
        except GenomeError as error:
            raise TableError(f"Row {row} of table {name!r}: {error}") from None
    return CandidateBatch(GraphBatch.from_graphs(cells, DARTS.vocabulary), np.zeros((len(cells), 0), dtype=np.int16))


def from_adjacency_bits(name: str, sizes: NDArray[Any], bits: NDArray[Any], ops: NDArray[Any]) -> CandidateBatch:
    """Cells of NAS-Bench-101's columns ``n``, ``adj_bits`` and ``ops``, each (n,)."""
    for column, values in (("n", sizes), ("adj_bits", bits)):
        if values.dtype.kind not in "iu":
            held = next((repr(value) for value in values.tolist() if type(value) is not int), values.dtype)
            raise TableError(
                f"Column {column!r} of table {name!r} holds {held}; beside 'ops' it has whole numbers, as in "
                "NAS-Bench-101. Give a table of another form columns of other names."
            )
    ops = np.array(["" if digits is None else str(digits) for digits in ops.tolist()], dtype=object)
    for row, (size, digits) in enumerate(zip(sizes.tolist(), ops.tolist(), strict=True)):
        if not 2 <= size <= MAX_VERTICES or len(digits) != size - 2 or set(digits) - set("012"):
            raise TableError(
                f"Row {row} of table {name!r}: a NAS-Bench-101 cell has 2 to {MAX_VERTICES} vertices and a digit 0, 1 "
                f"or 2 for each inner one, got n = {size} and ops = {digits!r}."
            )
    n = len(sizes)
    codes = np.zeros((n, MAX_VERTICES), dtype=np.uint8)
    codes[:, 0] = INPUT_CODE
    for row, digits in enumerate(ops.tolist()):
        codes[row, 1 : len(digits) + 1] = [FIRST_OP_CODE + int(d) for d in digits]
        codes[row, len(digits) + 1] = OUTPUT_CODE
    shifts = np.arange(MAX_VERTICES, dtype=np.int64) * MAX_VERTICES
    successors = ((bits.astype(np.int64)[:, None] >> shifts) & (2**MAX_VERTICES - 1)).astype(np.uint32)
    graphs = GraphBatch(VOCABULARY_101, sizes.astype(np.uint8), codes, successors)
    places = np.arange(MAX_VERTICES)
    inside = places < sizes[:, None]
    allowed = np.where(inside, (2 ** sizes[:, None].astype(np.int64) - 1) & ~(2 ** (places + 1) - 1), 0)
    rules = {
        "an edge is a loop, runs backwards or leaves the cell": (successors & ~allowed.astype(np.uint32)).any(axis=1),
        "a vertex lies on no path from input to output": (graphs.live() != inside).any(axis=1),
        f"it has more than {MAX_EDGES} edges": np.bitwise_count(successors).sum(axis=1) > MAX_EDGES,
    }
    for reason, broken in rules.items():
        if broken.any():
            raise TableError(f"Row {int(np.argmax(broken))} of table {name!r} is no NAS-Bench-101 cell: {reason}.")
    return CandidateBatch(graphs, np.zeros((n, 0), dtype=np.int16))


def from_graphs(
    name: str, texts: NDArray[Any], macros: Sequence[tuple[tuple[str, Choice], ...]], base: SearchSpace | None
) -> list[CellGraph]:
    """Cells of a column of JSON, (n,): one, or several by their names. Each is one of ``base`` where that is given.

    Args:
        name: the table's, for messages.
        texts: the column.
        macros: macro choices of each row.
        base: the space that the candidates are to be of; or None.
    """
    cells = []
    for row, (text, macro) in enumerate(zip(texts, macros, strict=True)):
        try:
            data = parse_json(text) if isinstance(text, str | bytes) else text
            if isinstance(data, dict) and data and all(isinstance(cell, dict) for cell in data.values()):
                cells.append(join_cells({str(key): CellGraph.from_json(cell) for key, cell in data.items()}))
            else:
                cells.append(CellGraph.from_json(data))
            if base is not None:
                base.check(Candidate(cells[-1], macro))
        except (GraphError, SpaceError, JsonError) as error:
            raise TableError(f"Row {row} of table {name!r}, column 'graph': {error}") from None
    return cells
