"""The DARTS space: a normal and a reduction cell, each of four nodes that sum two operations on earlier tensors.

Source: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019 (arXiv 1806.09055). A cell reads
the outputs of the two cells before it; a node's two operations read two different ones of these and of earlier nodes;
the cell's output is the concatenation of its four nodes. `gemnet.darts` has genotypes and networks.

Here each operation is a node, and so is each of the two inputs; the two cells lie side by side
(`nas.spaces.several_cells`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gemnet.cell_graph import FIRST_OP_CODE, INPUT_CODE, OUTPUT_CODE, CellGraph, GraphBatch
from gemnet.darts import CELLS, NODES, OPERATIONS, Genotype
from nas.spaces.base import Candidate, CandidateBatch, SearchSpace, SpaceError

_INPUTS = ("input0", "input1")  # the output of the cell before the last one, and of the last one
_LABELS = (*_INPUTS, *OPERATIONS)
_SIZE = 2 + 2 * NODES  # of a cell: its inputs, and the operations of its nodes
_LAST = len(CELLS) * _SIZE + 1

Genes = NDArray[np.int64]
"""Of n candidates, cell by cell, node by node, the two (operation, what it reads): (n, 2, 4, 2, 2).

What is read is 0 or 1 for the cell's inputs, 2 + k for node k, as in a genotype; the smaller one first.
"""


class DARTS(SearchSpace):
    """All pairs of cells (module docstring). `none` is never drawn, as no genotype of the paper has it.

    Example:
        >>> space = DARTS()
        >>> cell = space.unpack(space.sample(1, np.random.default_rng(0)), 0).cell
        >>> cell_from_genotype(genotype_of(cell)) == cell
        True
    """

    name = "darts"
    vocabulary = tuple(f"{cell}/{label}" for cell in CELLS for label in _LABELS)
    zero_ops = frozenset(f"{cell}/none" for cell in CELLS)
    identity_ops = frozenset({"normal/skip_connect"})  # in a reduction cell it halves the resolution

    def sample(self, n: int, rng: np.random.Generator) -> CandidateBatch:
        """``n`` candidates: operations and pairs of inputs drawn uniformly."""
        genes = np.empty((n, len(CELLS), NODES, 2, 2), dtype=np.int64)
        genes[..., 0] = rng.integers(1, len(OPERATIONS), size=genes.shape[:-1])
        for node in range(NODES):
            genes[:, :, node, 0, 1] = rng.integers(0, node + 2, size=(n, len(CELLS)))
            other = rng.integers(1, node + 2, size=(n, len(CELLS)))
            genes[:, :, node, 1, 1] = (genes[:, :, node, 0, 1] + other) % (node + 2)
        return _batch(genes)

    def mutate(self, parents: CandidateBatch, rng: np.random.Generator, edits: int = 1) -> CandidateBatch:
        """One child for each parent: ``edits`` times another operation, or another thing that it reads."""
        genes, rows = _genes(parents.graphs), np.arange(len(parents))
        for _ in range(edits):
            cell, node, slot = (rng.integers(0, size, len(rows)) for size in (len(CELLS), NODES, 2))
            rewire = (rng.random(len(rows)) < 0.5) & (node > 0)  # the first node reads both inputs in any case
            ops = genes[rows, cell, node, slot, 0]
            step = rng.integers(1, len(OPERATIONS) - 1, len(rows))
            other_op = np.where(ops > 0, (ops - 1 + step) % (len(OPERATIONS) - 1) + 1, step)
            genes[rows, cell, node, slot, 0] = np.where(rewire, ops, other_op)
            own, twin = genes[rows, cell, node, slot, 1], genes[rows, cell, node, 1 - slot, 1]
            # One of the node's other possible inputs: neither its own nor its twin's.
            low, high = np.minimum(own, twin), np.maximum(own, twin)
            pick = rng.integers(0, np.maximum(node, 1))
            pick += pick >= low
            pick += pick >= high
            genes[rows, cell, node, slot, 1] = np.where(rewire, pick, own)
        return _batch(genes)

    def neighbours(self, candidate: Candidate) -> CandidateBatch:
        """The 120 candidates (some may be the same) with one other operation, or with one other thing that it reads."""
        self.check(candidate)
        own = _genes(self.pack([candidate]).graphs)[0]
        found = []
        for cell, node, slot in np.ndindex(own.shape[:-1]):
            op, read = own[cell, node, slot]
            for place, values in ((0, range(1, len(OPERATIONS))), (1, range(node + 2))):
                for value in values:
                    taken = (op,) if place == 0 else (read, own[cell, node, 1 - slot, 1])
                    if value not in taken:
                        found.append(own.copy())
                        found[-1][cell, node, slot, place] = value
        return _batch(np.array(found))

    def check(self, candidate: Candidate) -> None:
        """Raises `SpaceError` where the candidate is no pair of cells of this space."""
        if candidate.macro:
            raise SpaceError(f"The DARTS space has no macro choices, got {dict(candidate.macro)}.")
        _check(candidate.cell)


def cell_from_genotype(genotype: Genotype | str) -> CellGraph:
    """The two cells that a genotype names, as one graph.

    Raises:
        GenomeError: a text that is no genotype.
    """
    found = Genotype.parse(genotype) if isinstance(genotype, str) else genotype
    genes = [[[OPERATIONS.index(op), read] for op, read in getattr(found, name)] for name in CELLS]
    return _batch(np.array(genes).reshape(1, len(CELLS), NODES, 2, 2)).graphs.graph(0)


def genotype_of(cell: CellGraph) -> Genotype:
    """The genotype of a candidate's graph; ``str()`` of it is as DARTS prints it.

    Raises:
        SpaceError: not a graph of this space.
    """
    _check(cell)
    genes = _genes(GraphBatch.from_graphs([cell], DARTS.vocabulary))[0]
    cells = {
        name: tuple((OPERATIONS[op], int(read)) for op, read in genes[number].reshape(-1, 2))
        for number, name in enumerate(CELLS)
    }
    return Genotype(**cells)


def _check(cell: CellGraph) -> None:
    found = None
    if len(cell.ops) == len(CELLS) * _SIZE and set(cell.ops) <= set(DARTS.vocabulary):
        found = _batch(_genes(GraphBatch.from_graphs([cell], DARTS.vocabulary))).graphs.graph(0)
    if found != cell:
        raise SpaceError(
            "A candidate of the DARTS space is the graph of two cells that nas.spaces.darts.cell_from_genotype makes; "
            f"got {len(cell.ops)} nodes and edges {sorted(cell.edges)[:8]}, ..."
        )


def _batch(genes: Genes) -> CandidateBatch:
    """Candidates; of a node's two operations the one that reads the earlier thing comes first."""
    order = np.argsort(genes[..., 1], axis=-1, kind="stable")
    genes = np.take_along_axis(genes, order[..., None], axis=-2)
    n, width = len(genes), _LAST + 1
    ops = np.zeros((n, width), dtype=np.uint8)
    ops[:, 0], ops[:, -1] = INPUT_CODE, OUTPUT_CODE
    successors = np.zeros((n, width), dtype=np.uint32)
    for number in range(len(CELLS)):
        first, code = 1 + number * _SIZE, FIRST_OP_CODE + number * len(_LABELS)
        successors[:, 0] |= np.uint32(0b11 << first)
        ops[:, first : first + 2] = [code, code + 1]
        for node in range(NODES):
            for slot in range(2):
                place = first + 2 + 2 * node + slot
                op, read = genes[:, number, node, slot].T
                ops[:, place] = code + len(_INPUTS) + op
                successors[:, place] |= np.uint32(1 << _LAST)
                for source in range(node + 2):
                    bit = np.where(read == source, np.uint32(1 << place), np.uint32(0))
                    for reader in _places(first, source):
                        successors[:, reader] |= bit
    graphs = GraphBatch(DARTS.vocabulary, np.full(n, width, dtype=np.uint8), ops, successors)
    return CandidateBatch(graphs, np.zeros((n, 0), dtype=np.int16))


def _genes(graphs: GraphBatch) -> Genes:
    genes = np.zeros((len(graphs), len(CELLS), NODES, 2, 2), dtype=np.int64)
    for number in range(len(CELLS)):
        first, code = 1 + number * _SIZE, FIRST_OP_CODE + number * len(_LABELS)
        for node in range(NODES):
            for slot in range(2):
                place = first + 2 + 2 * node + slot
                found = graphs.ops[:, place].astype(np.int64) - code - len(_INPUTS)
                genes[:, number, node, slot, 0] = np.clip(found, 0, len(OPERATIONS) - 1)
                for source in range(node + 2):
                    reads = (graphs.successors[:, _places(first, source)[0]] >> np.uint32(place)) & np.uint32(1)
                    genes[reads > 0, number, node, slot, 1] = source
    return genes


def _places(first: int, source: int) -> Sequence[int]:
    """Nodes of the graph that make what a genotype calls ``source``, of the cell whose nodes begin at ``first``."""
    return (first + source,) if source < 2 else (first + 2 * source - 2, first + 2 * source - 1)
