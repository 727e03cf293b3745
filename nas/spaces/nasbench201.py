"""The NAS-Bench-201 cell space: six edges, five operations, 15,625 cells.

Source: Dong and Yang, NAS-Bench-201, ICLR 2020 (arXiv 2001.00326). A cell there is a complete DAG of four nodes whose
six edges carry operations. Here each of those edges is a node, in the order in which the architecture string names
them, so that all cells share one set of edges and differ in their labels only:

    |op(0->1)~0|+|op(0->2)~0|op(1->2)~1|+|op(0->3)~0|op(1->3)~1|op(2->3)~2|

Two cells are the same candidate when the strings are the same. That different strings may compute the same function
(`none` cuts, `skip_connect` forwards) is a property apart: `functional_class`.
"""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from gemnet.cell_graph import FIRST_OP_CODE, INPUT_CODE, OUTPUT_CODE, CellGraph, GraphBatch
from gemnet.classics import NASBENCH201_EDGES, NASBENCH201_OPERATIONS, nasbench201_names
from gemnet.errors import GemnetError, nearest
from nas.spaces.base import Candidate, CandidateBatch, SearchSpace, SpaceError

VOCABULARY = tuple(NASBENCH201_OPERATIONS)
EDGES_OF_CELL = NASBENCH201_EDGES
_NODES = len(EDGES_OF_CELL)

CELL_EDGES = CellGraph.from_edge_ops((i, j, "none") for i, j in EDGES_OF_CELL).edges
_SUCCESSORS = np.zeros(_NODES + 2, dtype=np.uint32)
for _i, _j in CELL_EDGES:
    _SUCCESSORS[_i] |= np.uint32(1 << _j)

# The network around the cell: width and number of positions of its three stages, five cells in each.
_STAGES = ((16, 32 * 32), (32, 16 * 16), (64, 8 * 8))
_CELLS_PER_STAGE = 5


def cell_from_arch(arch: str) -> CellGraph:
    """The cell that an architecture string names.

    Raises:
        SpaceError: the string has another form, or names an unknown operation.
    """
    try:
        return CellGraph(nasbench201_names(arch), CELL_EDGES)
    except GemnetError as error:
        raise SpaceError(str(error)) from None


def arch_from_cell(cell: CellGraph) -> str:
    """The architecture string of a cell.

    Raises:
        SpaceError: not a cell of this space.
    """
    _check(cell)
    a, b, c, d, e, f = cell.ops
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def functional_class(cell: CellGraph) -> str:
    """The benchmark's own name for the function a cell computes: `none` is nothing, `skip_connect` is what it reads.

    The official rule (`Structure.to_unique_str(consider_zero=True)`), under which the 15,625 cells fall into 6,466
    classes. It writes down sums of expressions, so it does not tell a shared convolution from two equal ones, and it
    keeps the place of what is cut.

    Raises:
        SpaceError: not a cell of this space.
    """
    _check(cell)
    nodes = ["0"]
    for target in (1, 2, 3):
        terms = []
        for op, (source, end) in zip(cell.ops, EDGES_OF_CELL, strict=True):
            if end != target:
                continue
            if op == "none" or nodes[source] == "#":
                terms.append("#")
            elif op == "skip_connect":
                terms.append(nodes[source])
            else:
                terms.append(f"({nodes[source]})@{op}")
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


def _check(cell: CellGraph) -> None:
    if cell.edges != CELL_EDGES or len(cell.ops) != _NODES:
        raise SpaceError(
            "A NAS-Bench-201 cell has six operation nodes and always the same edges "
            f"(nas.spaces.nasbench201.CELL_EDGES); got {len(cell.ops)} nodes and edges {sorted(cell.edges)}."
        )
    for op in cell.ops:
        if op not in VOCABULARY:
            raise SpaceError(f"Unknown operation {op!r}.{nearest(op, VOCABULARY)}")


def _batch(codes: NDArray[np.integer]) -> CandidateBatch:
    """Candidates from operation numbers, (n, 6)."""
    n = len(codes)
    ops = np.zeros((n, _NODES + 2), dtype=np.uint8)
    ops[:, 0], ops[:, -1] = INPUT_CODE, OUTPUT_CODE
    ops[:, 1:-1] = codes + FIRST_OP_CODE
    graphs = GraphBatch(VOCABULARY, np.full(n, _NODES + 2, dtype=np.uint8), ops, np.tile(_SUCCESSORS, (n, 1)))
    return CandidateBatch(graphs, np.zeros((n, 0), dtype=np.int16))


def _codes(graphs: GraphBatch) -> NDArray[np.int64]:
    return graphs.ops[:, 1 : _NODES + 1].astype(np.int64) - FIRST_OP_CODE


class NASBench201(SearchSpace):
    """All cells of NAS-Bench-201 (module docstring)."""

    name = "nasbench201"
    vocabulary = VOCABULARY
    zero_ops = frozenset({"none"})
    identity_ops = frozenset({"skip_connect"})

    def sample(self, n: int, rng: np.random.Generator) -> CandidateBatch:
        """``n`` cells, each operation drawn uniformly."""
        return _batch(rng.integers(0, len(VOCABULARY), size=(n, _NODES)))

    def mutate(self, parents: CandidateBatch, rng: np.random.Generator, edits: int = 1) -> CandidateBatch:
        """One child for each parent: ``edits`` different edges get another operation (the benchmark's own mutation)."""
        n, rows = len(parents), np.arange(len(parents))
        codes = _codes(parents.graphs)
        order = rng.permuted(np.tile(np.arange(_NODES), (n, 1)), axis=1)
        for k in range(min(edits, _NODES)):
            step = rng.integers(1, len(VOCABULARY), size=n)
            codes[rows, order[:, k]] = (codes[rows, order[:, k]] + step) % len(VOCABULARY)
        return _batch(codes)

    def neighbours(self, candidate: Candidate) -> CandidateBatch:
        """The 24 cells with one other operation, by edge, then by operation."""
        self.check(candidate)
        own = [VOCABULARY.index(op) for op in candidate.cell.ops]
        codes = [[*own[:k], op, *own[k + 1 :]] for k in range(_NODES) for op in range(len(VOCABULARY)) if op != own[k]]
        return _batch(np.array(codes))

    def check(self, candidate: Candidate) -> None:
        """Raises `SpaceError` where the candidate is no NAS-Bench-201 cell or carries macro choices."""
        if candidate.macro:
            raise SpaceError(f"NAS-Bench-201 has no macro choices, got {dict(candidate.macro)}.")
        _check(candidate.cell)

    def all(self) -> CandidateBatch:
        """The 15,625 cells; the last edge's operation varies fastest."""
        return _batch(np.array(list(product(range(len(VOCABULARY)), repeat=_NODES))))

    def macs(self, batch: CandidateBatch) -> NDArray[np.float64]:
        """Multiply-adds of the CIFAR-10 network (32x32) with this cell. Dead convolutions are run too, and count."""
        return self._total(batch, bn=0, positions=True)

    def params(self, batch: CandidateBatch) -> NDArray[np.float64]:
        """Parameters of the CIFAR-10 network with this cell: the table's ``params_c10``."""
        return self._total(batch, bn=2, positions=False)

    def _total(self, batch: CandidateBatch, bn: int, positions: bool) -> NDArray[np.float64]:
        """Sum over all convolutions of weights (+ ``bn`` numbers a channel), times their output positions if asked."""

        def conv(c_in: int, c_out: int, kernel: int, area: int, norm: bool = True) -> int:
            return (kernel**2 * c_in * c_out + (bn * c_out if norm else 0)) * (area if positions else 1)

        total = conv(3, 16, 3, 32 * 32) + 64 * 10  # stem, classifier
        total += 0 if positions else 10 + bn * 64  # the classifier's bias, the norm before it
        for (narrow, _), (wide, area) in pairwise(_STAGES):
            total += conv(narrow, wide, 3, area) + conv(wide, wide, 3, area) + conv(narrow, wide, 1, area, norm=False)
        codes = _codes(batch.graphs)
        result = np.full(len(codes), float(total))
        for op, kernel in (("nor_conv_3x3", 3), ("nor_conv_1x1", 1)):
            one = _CELLS_PER_STAGE * sum(conv(width, width, kernel, area) for width, area in _STAGES)
            result += one * (codes == VOCABULARY.index(op)).sum(axis=1)
        return result
