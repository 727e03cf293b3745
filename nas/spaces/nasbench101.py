"""The NAS-Bench-101 cell space: DAGs of at most seven vertices and nine edges, three operations on the vertices.

Source: Ying et al., NAS-Bench-101, ICML 2019 (arXiv 1902.09635), and its code (google-research/nasbench). Vertices
on no path from input to output are pruned, and what is left is a cell; isomorphic cells are one architecture
(423,624 of them, `Candidate.key` tells them apart). The space can't be listed in reasonable time, so `all` is None and
a table is the pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gemnet.cell_graph import FIRST_OP_CODE, INPUT, INPUT_CODE, OUTPUT, OUTPUT_CODE, CellGraph, GraphBatch
from gemnet.errors import nearest
from nas.spaces.base import Candidate, CandidateBatch, SearchSpace, SpaceError

VOCABULARY = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
MAX_VERTICES = 7
MAX_EDGES = 9

# The network around the cell: a 3x3 stem, three stacks of three modules, 2x2 max pooling between them.
_STEM_CHANNELS = 128
_MODULES_PER_STACK = 3
_STACK_SIDES = (32, 16, 8)
_CLASSES = 10

_BACKWARDS = 2.0**40  # more than all edges and operations weigh together in an order that suits a cell


def cell_from_spec(matrix: ArrayLike, ops: Sequence[str]) -> CellGraph:
    """The cell of an official model specification, pruned.

    Args:
        matrix: upper triangular 0/1 adjacency matrix, (v, v).
        ops: label of each vertex, the first ``"input"``, the last ``"output"``.

    Raises:
        SpaceError: breaks a rule of the space.
    """
    adjacency = np.asarray(matrix)
    vertices = len(ops)
    if adjacency.shape != (vertices, vertices):
        raise SpaceError(f"{vertices} operations need a {vertices} x {vertices} matrix, got shape {adjacency.shape}.")
    if vertices < 2 or ops[0] != INPUT or ops[-1] != OUTPUT:
        raise SpaceError(f"The first operation is {INPUT!r} and the last {OUTPUT!r}, got {list(ops)}.")
    if not np.isin(adjacency, (0, 1)).all() or np.tril(adjacency).any():
        raise SpaceError("The adjacency matrix is upper triangular with entries 0 and 1.")
    cell = CellGraph(tuple(ops[1:-1]), frozenset((int(i), int(j)) for i, j in np.argwhere(adjacency)))
    if not cell.is_connected:
        raise SpaceError("No path leads from the input to the output.")
    for op in cell.ops:
        if op not in VOCABULARY:
            raise SpaceError(f"Unknown operation {op!r}.{nearest(op, VOCABULARY)}")
    pruned = GraphBatch.from_graphs([cell], VOCABULARY).prune().graph(0)
    _check(pruned)
    return pruned


def _check(cell: CellGraph) -> None:
    if cell.size > MAX_VERTICES:
        raise SpaceError(f"A NAS-Bench-101 cell has at most {MAX_VERTICES} vertices with both ends, got {cell.size}.")
    if len(cell.edges) > MAX_EDGES:
        raise SpaceError(f"A NAS-Bench-101 cell has at most {MAX_EDGES} edges, got {len(cell.edges)}.")
    for op in cell.ops:
        if op not in VOCABULARY:
            raise SpaceError(f"Unknown operation {op!r}.{nearest(op, VOCABULARY)}")
    if not cell.is_connected:
        raise SpaceError("No path leads from the input to the output.")
    dead = cell.dead_nodes()
    if dead:
        raise SpaceError(
            f"Vertices {list(dead)} lie on no path from input to output; prune them first (cell_from_spec does)."
        )


def _batch(adjacency: NDArray[np.bool_], ops: NDArray[np.integer]) -> tuple[GraphBatch, NDArray[np.bool_]]:
    """Pruned seven-vertex graphs (n, 7, 7) with operation numbers (n, 5), and which of them are valid cells."""
    n = len(adjacency)
    codes = np.empty((n, MAX_VERTICES), dtype=np.uint8)
    codes[:, 0], codes[:, -1] = INPUT_CODE, OUTPUT_CODE
    codes[:, 1:-1] = ops + FIRST_OP_CODE
    successors = (adjacency.astype(np.uint32) << np.arange(MAX_VERTICES, dtype=np.uint32)).sum(axis=2, dtype=np.uint32)
    full = GraphBatch(VOCABULARY, np.full(n, MAX_VERTICES, dtype=np.uint8), codes, successors)
    connected = full.live()[:, 0] if n else np.zeros(0, dtype=np.bool_)
    graphs = full.prune()
    return graphs, connected & (np.bitwise_count(graphs.successors).sum(axis=1) <= MAX_EDGES)


def _spread(graphs: GraphBatch, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Seven-vertex adjacency (n, 7, 7) and operation numbers (n, 5); missing vertices are loose, at random places."""
    n = len(graphs)
    inner = graphs.sizes.astype(np.int64) - 2
    chosen = np.argsort(rng.random((n, MAX_VERTICES - 2)), axis=1)
    used = np.argsort(chosen, axis=1) < inner[:, None]
    place = np.zeros((n, MAX_VERTICES), dtype=np.int64)  # where each old vertex goes
    place[:, 1:-1] = 1 + np.argsort(~used, axis=1, kind="stable")
    place[np.arange(n), inner + 1] = MAX_VERTICES - 1
    ops = rng.integers(0, len(VOCABULARY), size=(n, MAX_VERTICES - 2))
    adjacency = np.zeros((n, MAX_VERTICES, MAX_VERTICES), dtype=np.bool_)
    graph, source, target = graphs.edge_list()
    adjacency[graph, place[graph, source], place[graph, target]] = True
    row, vertex = np.nonzero(graphs.ops >= FIRST_OP_CODE)
    ops[row, place[row, vertex] - 1] = graphs.ops[row, vertex].astype(np.int64) - FIRST_OP_CODE
    return adjacency, ops


class NASBench101(SearchSpace):
    """All cells of NAS-Bench-101 (module docstring)."""

    name = "nasbench101"
    vocabulary = VOCABULARY

    def sample(self, n: int, rng: np.random.Generator) -> CandidateBatch:
        """``n`` cells by the official sampler: all edges and operations of seven vertices at random, until valid."""
        found: list[GraphBatch] = []
        missing = n
        upper = np.triu(np.ones((MAX_VERTICES, MAX_VERTICES), dtype=np.bool_), k=1)
        while missing > 0:
            tries = 4 * missing + 16
            adjacency = rng.integers(0, 2, size=(tries, MAX_VERTICES, MAX_VERTICES)).astype(np.bool_) & upper
            graphs, valid = _batch(adjacency, rng.integers(0, len(VOCABULARY), size=(tries, MAX_VERTICES - 2)))
            found.append(graphs.take(np.flatnonzero(valid)[:missing]))
            missing -= len(found[-1])
        return _candidates(GraphBatch.concat(found) if found else GraphBatch.from_graphs([], VOCABULARY))

    def mutate(self, parents: CandidateBatch, rng: np.random.Generator, edits: int = 1) -> CandidateBatch:
        """One other valid cell for each parent, by the official mutation.

        Each of the 21 possible edges flips with probability ``edits / 7`` and each of the five operations changes with
        probability ``edits / 5``, again until the result is valid and its arrays are not the parent's. Pruned vertices
        come back as loose ones with random operations.
        """
        n = len(parents)
        children = parents.graphs
        todo = np.arange(n)
        edge_chance, op_chance = min(1.0, edits / MAX_VERTICES), min(1.0, edits / (MAX_VERTICES - 2))
        upper = np.triu(np.ones((MAX_VERTICES, MAX_VERTICES), dtype=np.bool_), k=1)
        while todo.size:
            adjacency, ops = _spread(parents.graphs.take(todo), rng)
            adjacency = adjacency ^ ((rng.random(adjacency.shape) < edge_chance) & upper)
            step = rng.integers(1, len(VOCABULARY), size=ops.shape) * (rng.random(ops.shape) < op_chance)
            graphs, valid = _batch(adjacency, (ops + step) % len(VOCABULARY))
            done = np.flatnonzero(valid & ~_same(graphs, parents.graphs.take(todo)))
            merged = GraphBatch.concat([children, graphs.take(done)])
            source = np.arange(n)
            source[todo[done]] = n + np.arange(len(done))
            children = merged.take(source)
            todo = np.delete(todo, done)
        return _candidates(children)

    def neighbours(self, candidate: Candidate) -> CandidateBatch:
        """The cells one edit away, without repeats: an operation changed, an edge added or removed, a vertex inserted.

        What a removal cuts off is pruned. A new vertex (only where there are fewer than seven) reads one vertex and is
        read by one later vertex; without it small cells could never grow.
        """
        self.check(candidate)
        cell = candidate.cell
        last = cell.size - 1
        trials: list[tuple[tuple[str, ...], frozenset[tuple[int, int]]]] = []
        for k, own in enumerate(cell.ops):
            trials += [((*cell.ops[:k], op, *cell.ops[k + 1 :]), cell.edges) for op in VOCABULARY if op != own]
        pairs = [(i, j) for i in range(last) for j in range(i + 1, last + 1)]
        trials += [(cell.ops, cell.edges ^ {pair}) for pair in pairs]
        if cell.size < MAX_VERTICES:
            for i, j in pairs:  # the new vertex takes number j; everything from j on moves up by one
                moved = frozenset((a + (a >= j), b + (b >= j)) for a, b in cell.edges) | {(i, j), (j, j + 1)}
                trials += [((*cell.ops[: j - 1], op, *cell.ops[j - 1 :]), moved) for op in VOCABULARY]
        graphs = GraphBatch.from_graphs([CellGraph(*trial) for trial in trials], VOCABULARY)
        connected = graphs.live()[:, 0]
        graphs = graphs.prune()
        valid = connected & (np.bitwise_count(graphs.successors).sum(axis=1) <= MAX_EDGES)
        seen = {cell.canonical_hash()}
        kept = []
        for index in np.flatnonzero(valid).tolist():
            name = graphs.graph(index).canonical_hash()
            if name not in seen:
                seen.add(name)
                kept.append(index)
        return _candidates(graphs.take(kept))

    def check(self, candidate: Candidate) -> None:
        """Raises `SpaceError` where the candidate is no pruned NAS-Bench-101 cell or carries macro choices."""
        if candidate.macro:
            raise SpaceError(f"NAS-Bench-101 has no macro choices, got {dict(candidate.macro)}.")
        _check(candidate.cell)

    def macs(self, batch: CandidateBatch) -> NDArray[np.float64]:
        """Multiply-adds of the CIFAR-10 network (32x32) with each cell."""
        return _network_total(batch.graphs, bn=0, positions=True)

    def params(self, batch: CandidateBatch) -> NDArray[np.float64]:
        """Trainable parameters of the CIFAR-10 network with each cell: the table's ``trainable_parameters``."""
        return _network_total(batch.graphs, bn=2, positions=False)


def _candidates(graphs: GraphBatch) -> CandidateBatch:
    return CandidateBatch(graphs, np.zeros((len(graphs), 0), dtype=np.int16))


def _same(first: GraphBatch, second: GraphBatch) -> NDArray[np.bool_]:
    """Whether two batches hold equal arrays, row by row; (n,)."""
    same = first.sizes == second.sizes
    shared = min(first.width, second.width)  # equal sizes fit into both
    return (
        same
        & (first.ops[:, :shared] == second.ops[:, :shared]).all(axis=1)
        & (first.successors[:, :shared] == second.successors[:, :shared]).all(axis=1)
    )


@lru_cache
def _orders(inner: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Where each order of the inner vertices puts them, (orders, inner), and what edges and operations weigh there.

    With ``v = inner + 2``, weights of edges are (v * v, orders), those of operations (inner, orders).
    """
    places = np.array(list(permutations(range(1, inner + 1))), dtype=np.int64).reshape(-1, inner)
    ends = np.zeros((len(places), 1), dtype=np.int64)
    source = np.concatenate([ends, places, ends + inner + 1], axis=1)
    x, y = source[:, :, None], source[:, None, :]
    labellings = len(VOCABULARY) ** inner
    edges: NDArray[np.float64] = np.where(x < y, labellings * 2.0 ** (x + y * (y - 1) // 2), _BACKWARDS)
    ops = np.power(float(len(VOCABULARY)), inner - places).astype(np.float64)
    return places, edges.reshape(len(places), -1).T, ops.T


def _first_places(graphs: GraphBatch) -> NDArray[np.int64]:
    """Place of each vertex in the drawing under which the official table keeps the cell, (n, width).

    The authors' enumeration keeps the first drawing of each class: they go by the bits of the matrix (edge x -> y is
    bit ``x + y (y - 1) / 2``), then by the operations in the order of `VOCABULARY`.
    """
    n, width = len(graphs), graphs.width
    found = np.tile(np.arange(width), (n, 1))
    adjacency, sizes = graphs.adjacency(), graphs.sizes.astype(np.int64)
    for size in np.unique(sizes[sizes > 3]).tolist():
        rows = np.flatnonzero(sizes == size)
        places, edges, ops = _orders(size - 2)
        labels = graphs.ops[rows, 1 : size - 1].astype(np.float64) - FIRST_OP_CODE
        drawn = adjacency[rows, :size, :size].reshape(len(rows), -1).astype(np.float64)
        found[rows, 1 : size - 1] = places[np.argmin(drawn @ edges + labels @ ops, axis=1)]
    return found


def _vertex_channels(
    adjacency: NDArray[np.int64], last: NDArray[np.intp], places: NDArray[np.int64], c_out: int
) -> NDArray[np.int64]:
    """Channels of each inner vertex, (n, v): a share of the output's if it reads them, else the widest reader's.

    What is left after equal shares goes to the first by ``places``.
    """
    n, width, _ = adjacency.shape
    rows = np.arange(n)
    to_output = adjacency[rows, :, last].copy()
    to_output[:, 0] = 0
    concatenated = to_output.sum(axis=1)
    share, rest = np.divmod(c_out, np.maximum(concatenated, 1))
    order = (to_output[:, None, :] * (places[:, None, :] <= places[:, :, None])).sum(axis=2)
    channels = np.where(to_output > 0, share[:, None] + (order <= rest[:, None]), 0)
    for v in range(width - 2, 0, -1):
        readers = (adjacency[:, v, :] * channels).max(axis=1)
        channels[:, v] = np.where(to_output[:, v] > 0, channels[:, v], readers)
    return channels


def _network_total(graphs: GraphBatch, bn: int, positions: bool) -> NDArray[np.float64]:
    """Sum over convolutions of weights (+ ``bn`` numbers a channel), times their output positions if asked; (n,)."""
    n = len(graphs)
    rows, last = np.arange(n), graphs.sizes.astype(np.intp) - 1
    adjacency = graphs.adjacency().astype(np.int64)
    from_input = adjacency[:, 0, :].copy()
    input_to_output = from_input[rows, last].astype(np.float64)
    from_input[rows, last] = 0
    threes, ones = graphs.ops == FIRST_OP_CODE, graphs.ops == FIRST_OP_CODE + 1
    total = np.zeros(n)
    # Channels are shared out with a remainder among three or five only: all stacks have a power of two.
    uneven = np.isin(adjacency[rows, 1:, last].sum(axis=1), (3, 5))
    places = np.tile(np.arange(graphs.width), (n, 1))
    places[uneven] = _first_places(graphs.take(uneven))
    c_in = c_out = _STEM_CHANNELS
    for stack, side in enumerate(_STACK_SIDES):
        area = side * side if positions else 1
        c_out = _STEM_CHANNELS << stack
        channels = _vertex_channels(adjacency, last, places, c_out)
        own = channels**2 * (9 * threes + ones) + bn * channels * (threes | ones)
        for _ in range(_MODULES_PER_STACK):
            projected = from_input * (c_in * channels + bn * channels)
            total += area * ((own + projected).sum(axis=1) + input_to_output * (c_in * c_out + bn * c_out))
            c_in = c_out
    stem = (9 * 3 * _STEM_CHANNELS + bn * _STEM_CHANNELS) * (_STACK_SIDES[0] ** 2 if positions else 1)
    return total + stem + c_out * _CLASSES + (0 if positions else _CLASSES)
