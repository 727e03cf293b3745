"""Labelled DAGs: one (`CellGraph`) and many (`GraphBatch`).

A cell has an input node, up to 30 inner nodes that each carry an operation, and an output node. This module knows
graphs, not rules: what is a valid cell is the search space's business.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from gemnet.canonical import canonical_order
from gemnet.errors import GraphError, nearest

MAX_INNER_NODES = 30
MAX_NODES = MAX_INNER_NODES + 2  # with input and output: one row of adjacency is one 32-bit mask
INPUT, OUTPUT = "input", "output"
PAD_CODE, INPUT_CODE, OUTPUT_CODE, FIRST_OP_CODE = 0, 1, 2, 3
MAX_OPERATIONS = 256 - FIRST_OP_CODE
_PAIRS = {pair: pair for pair in itertools.combinations(range(MAX_INNER_NODES + 2), 2)}


@dataclass(frozen=True)
class CellGraph:
    """One labelled DAG.

    Node 0 is the cell's input, nodes 1..n carry ``ops[0..n-1]``, node n + 1 is the output.

    Args:
        ops: names of the inner nodes' operations, at most 30.
        edges: pairs (i, j) of node numbers with i < j; nodes are numbered in a topological order, so a cycle
            can't be written down.

    Raises:
        GraphError: too many nodes, an edge out of range or against the order.
    """

    ops: tuple[str, ...]
    edges: frozenset[tuple[int, int]]

    def __post_init__(self) -> None:
        ops = tuple(self.ops)
        # Names and pairs are shared by all cells: a search may hold a hundred thousand of them.
        edges = frozenset(_PAIRS.get((int(i), int(j)), (int(i), int(j))) for i, j in self.edges)
        if len(ops) > MAX_INNER_NODES:
            raise GraphError(f"A cell has at most {MAX_INNER_NODES} inner nodes, got {len(ops)}. Remove nodes.")
        for op in ops:
            if not isinstance(op, str) or not op or op in (INPUT, OUTPUT):
                raise GraphError(f"An operation is a non-empty name other than 'input' and 'output', got {op!r}.")
        last = len(ops) + 1
        for i, j in edges:
            if i == j:
                raise GraphError(f"Edge ({i}, {j}) is a loop; a cell is a DAG. Remove it.")
            if not (0 <= i <= last and 0 <= j <= last):
                raise GraphError(f"Edge ({i}, {j}) leaves the cell: nodes are 0 (input) to {last} (output).")
            if i > j:
                raise GraphError(
                    f"Edge ({i}, {j}) runs backwards, which may close a cycle. "
                    "Number nodes in topological order (i < j)."
                )
        object.__setattr__(self, "ops", tuple(sys.intern(str(op)) for op in ops))
        object.__setattr__(self, "edges", edges)

    @property
    def size(self) -> int:
        """Number of nodes, input and output included."""
        return len(self.ops) + 2

    @property
    def labels(self) -> tuple[str, ...]:
        """Label of every node: ``("input", *ops, "output")``."""
        return (INPUT, *self.ops, OUTPUT)

    @cached_property
    def _successor_masks(self) -> array[int]:
        """Bit j of item i says that there is the edge i -> j; four bytes each, as a search holds very many cells."""
        masks = array("I", [0]) * self.size
        for i, j in self.edges:
            masks[i] |= 1 << j
        return masks

    @cached_property
    def _predecessor_masks(self) -> array[int]:
        masks = array("I", [0]) * self.size
        for i, j in self.edges:
            masks[j] |= 1 << i
        return masks

    def successors(self, node: int) -> tuple[int, ...]:
        """Nodes that read ``node``, ascending."""
        return _bits(self._successor_masks[node])

    def predecessors(self, node: int) -> tuple[int, ...]:
        """Nodes that ``node`` reads, ascending."""
        return _bits(self._predecessor_masks[node])

    def dead_nodes(self) -> tuple[int, ...]:
        """Inner nodes that lie on no path from input to output."""
        forward = 1
        for node in range(1, self.size):
            if self._predecessor_masks[node] & forward:
                forward |= 1 << node
        backward = 1 << (self.size - 1)
        for node in range(self.size - 2, -1, -1):
            if self._successor_masks[node] & backward:
                backward |= 1 << node
        return tuple(v for v in range(1, self.size - 1) if not (forward >> v & 1 and backward >> v & 1))

    @property
    def is_connected(self) -> bool:
        """Whether any path leads from the input to the output."""
        reached = 1
        for node in range(1, self.size):
            if self._predecessor_masks[node] & reached:
                reached |= 1 << node
        return bool(reached >> (self.size - 1) & 1)

    def canonical(self) -> CellGraph:
        """The representative of this graph's isomorphism class: isomorphic graphs give the same object."""
        order = canonical_order(self.labels, self._successor_masks)
        position = {node: place for place, node in enumerate(order)}
        labels = self.labels
        return CellGraph(
            ops=tuple(labels[v] for v in order[1:-1]),
            edges=frozenset((position[i], position[j]) for i, j in self.edges),
        )

    @cached_property
    def _canonical_hash(self) -> str:
        form = self.canonical()
        text = json.dumps([form.ops, sorted(form.edges)], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def canonical_hash(self) -> str:
        """32 hex digits that isomorphic graphs share and others don't (sha256 of the canonical form)."""
        return self._canonical_hash

    def to_json(self) -> dict[str, Any]:
        """``{"ops": [...], "edges": [[i, j], ...]}``, edges sorted."""
        return {"ops": list(self.ops), "edges": [list(edge) for edge in sorted(self.edges)]}

    @classmethod
    def from_json(cls, data: Any) -> CellGraph:
        """Reads what `to_json` wrote, or ``{"edges": [[i, j, op], ...]}``: operations on edges (`from_edge_ops`).

        Raises:
            GraphError: a key is missing, unknown or of the wrong type.
        """
        if not isinstance(data, dict):
            raise GraphError(f"A cell is a mapping with 'ops' and 'edges', got {type(data).__name__}.")
        if "ops" not in data and isinstance(data.get("edges"), list):
            return cls._with_edge_ops(data)
        for key in data:
            if key not in ("ops", "edges"):
                raise GraphError(f"Unknown key {key!r} in a cell.{nearest(str(key), ('ops', 'edges'))}")
        for key in ("ops", "edges"):
            if not isinstance(data.get(key), list):
                raise GraphError(f"A cell needs a list under {key!r}, got {data.get(key)!r}.")
        edges = []
        for edge in data["edges"]:
            if not (isinstance(edge, list | tuple) and len(edge) == 2 and all(type(v) is int for v in edge)):
                raise GraphError(f"An edge is a pair of node numbers [i, j], got {edge!r}.")
            edges.append((edge[0], edge[1]))
        return cls(ops=tuple(data["ops"]), edges=frozenset(edges))

    @classmethod
    def from_edge_ops(cls, edges: Iterable[tuple[int, int, str]]) -> CellGraph:
        """The cell whose *edges* carry the operations, as in NAS-Bench-201: each edge becomes a node here.

        Args:
            edges: (i, j, op) with i < j; 0 is the input, the largest number the output. A node sums what leads to it.

        Raises:
            GraphError: no edges, an edge twice, or one that runs backwards.
        """
        ordered = sorted(edges, key=lambda edge: (edge[1], edge[0]))
        pairs = [(i, j) for i, j, _ in ordered]
        if not pairs:
            raise GraphError("A cell with operations on its edges has at least one edge.")
        for i, j in pairs:
            if not 0 <= i < j:
                raise GraphError(f"Edge ({i}, {j}) runs backwards; number nodes in topological order from 0 (i < j).")
            if pairs.count((i, j)) > 1:
                raise GraphError(f"Edge ({i}, {j}) is there twice; an edge carries one operation.")
        last = pairs[-1][1]
        found = {
            (a + 1, b + 1) for a, (_, end) in enumerate(pairs) for b, (start, _) in enumerate(pairs) if end == start
        }
        found |= {(0, a + 1) for a, (start, _) in enumerate(pairs) if start == 0}
        found |= {(a + 1, len(pairs) + 1) for a, (_, end) in enumerate(pairs) if end == last}
        return cls(tuple(op for _, _, op in ordered), frozenset(found))

    @classmethod
    def _with_edge_ops(cls, data: dict[str, Any]) -> CellGraph:
        for key in data:
            if key != "edges":
                raise GraphError(f"Unknown key {key!r} in a cell.{nearest(str(key), ('ops', 'edges'))}")
        for edge in data["edges"]:
            if not (
                isinstance(edge, list | tuple)
                and len(edge) == 3
                and all(type(v) is int for v in edge[:2])
                and isinstance(edge[2], str)
            ):
                raise GraphError(f"Without 'ops', an edge carries its operation: [i, j, \"op\"]; got {edge!r}.")
        return cls.from_edge_ops([(i, j, op) for i, j, op in data["edges"]])

    def to_networkx(self) -> nx.DiGraph:
        """A ``networkx.DiGraph`` whose nodes carry ``label``."""
        graph = nx.DiGraph()
        graph.add_nodes_from((node, {"label": label}) for node, label in enumerate(self.labels))
        graph.add_edges_from(self.edges)
        return graph

    @classmethod
    def from_networkx(cls, graph: nx.DiGraph) -> CellGraph:
        """Reads a ``networkx.DiGraph`` whose nodes carry ``label``, one of them "input" and one "output".

        Raises:
            GraphError: a cycle, a missing label, not exactly one input and one output, or edges into the input.
        """
        labels = {node: data.get("label") for node, data in graph.nodes(data=True)}
        unlabelled = [node for node, label in labels.items() if label is None]
        if unlabelled:
            raise GraphError(f"Node {unlabelled[0]!r} has no 'label' attribute; every node needs one.")
        ends = {end: [node for node, label in labels.items() if label == end] for end in (INPUT, OUTPUT)}
        for end, nodes in ends.items():
            if len(nodes) != 1:
                raise GraphError(f"A cell has exactly one node labelled {end!r}, got {len(nodes)}.")
        source, sink = ends[INPUT][0], ends[OUTPUT][0]
        if graph.in_degree(source) or graph.out_degree(sink):
            raise GraphError("Nothing may lead into the input or out of the output of a cell.")
        try:
            order = [node for node in nx.topological_sort(graph) if node not in (source, sink)]
        except nx.NetworkXUnfeasible:
            cycle = nx.find_cycle(graph)
            raise GraphError(f"The graph has a cycle ({', '.join(str(edge[:2]) for edge in cycle)}).") from None
        number = {node: place for place, node in enumerate([source, *order, sink])}
        return cls(
            ops=tuple(str(labels[node]) for node in order),
            edges=frozenset((number[i], number[j]) for i, j in graph.edges),
        )


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Many labelled DAGs as arrays.

    Args:
        vocabulary: operation names; code ``3 + k`` in ``ops`` is ``vocabulary[k]``.
        sizes: nodes of each graph, input and output included; uint8 (n,).
        ops: label code of each node; uint8 (n, width). 0 pads, 1 is the input (node 0), 2 the output (node
            ``sizes - 1``).
        successors: bit j of ``successors[g, i]`` says that graph g has the edge i -> j; uint32 (n, width).
    """

    vocabulary: tuple[str, ...]
    sizes: NDArray[np.uint8]
    ops: NDArray[np.uint8]
    successors: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def width(self) -> int:
        """Columns of the arrays: at least the size of the largest graph."""
        return int(self.ops.shape[1])

    @classmethod
    def from_graphs(cls, graphs: Iterable[CellGraph], vocabulary: Sequence[str]) -> GraphBatch:
        """Packs graphs.

        Raises:
            GraphError: a graph uses an operation outside the vocabulary, or that has more than a byte tells apart.
        """
        if len(vocabulary) > MAX_OPERATIONS:
            raise GraphError(
                f"There are {len(vocabulary)} operations; {MAX_OPERATIONS} is the most. Make what differs by a number "
                "a choice of its own."
            )
        items = list(graphs)
        code = {INPUT: INPUT_CODE, OUTPUT: OUTPUT_CODE} | {op: FIRST_OP_CODE + k for k, op in enumerate(vocabulary)}
        width = max((graph.size for graph in items), default=2)
        sizes = np.array([graph.size for graph in items], dtype=np.uint8)
        ops = np.zeros((len(items), width), dtype=np.uint8)
        successors = np.zeros((len(items), width), dtype=np.uint32)
        for row, graph in enumerate(items):
            try:
                ops[row, : graph.size] = [code[label] for label in graph.labels]
            except KeyError as error:
                raise GraphError(f"Unknown operation {error.args[0]!r}.{nearest(error.args[0], vocabulary)}") from None
            successors[row, : graph.size] = graph._successor_masks
        return cls(tuple(vocabulary), sizes, ops, successors)

    def graph(self, index: int) -> CellGraph:
        """Graph ``index`` as a `CellGraph`."""
        size = int(self.sizes[index])
        names = self.vocabulary
        ops = tuple(names[code - FIRST_OP_CODE] for code in self.ops[index, 1 : size - 1].tolist())
        masks = self.successors[index, :size].tolist()
        return CellGraph(ops, frozenset((i, j) for i, mask in enumerate(masks) for j in _bits(mask)))

    def take(self, index: NDArray[Any] | Sequence[int] | slice) -> GraphBatch:
        """The graphs at ``index`` (integers, a slice or a boolean mask)."""
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.size == 0:
                index = index.astype(np.intp)
        return GraphBatch(self.vocabulary, self.sizes[index], self.ops[index], self.successors[index])

    @staticmethod
    def concat(batches: Sequence[GraphBatch]) -> GraphBatch:
        """The graphs of all batches, in order.

        Raises:
            GraphError: no batch, or different vocabularies.
        """
        if not batches:
            raise GraphError("Nothing to concatenate: give at least one batch.")
        first = batches[0]
        for batch in batches:
            if batch.vocabulary != first.vocabulary:
                raise GraphError(f"Vocabularies differ: {first.vocabulary} and {batch.vocabulary}.")
        width = max(batch.width for batch in batches)
        pad = [((0, 0), (0, width - batch.width)) for batch in batches]
        return GraphBatch(
            first.vocabulary,
            np.concatenate([batch.sizes for batch in batches]),
            np.concatenate([np.pad(batch.ops, p) for batch, p in zip(batches, pad, strict=True)]),
            np.concatenate([np.pad(batch.successors, p) for batch, p in zip(batches, pad, strict=True)]),
        )

    @cached_property
    def _predecessors(self) -> NDArray[np.uint32]:
        masks = np.zeros_like(self.successors)
        for i in range(self.width):
            row = self.successors[:, i]
            for j in range(i + 1, self.width):
                masks[:, j] |= ((row >> np.uint32(j)) & np.uint32(1)) << np.uint32(i)
        return masks

    def predecessors(self) -> NDArray[np.uint32]:
        """Bit i of ``[g, j]`` says that graph g has the edge i -> j; uint32 (n, width)."""
        return self._predecessors

    def adjacency(self) -> NDArray[np.bool_]:
        """Dense adjacency; bool (n, width, width), ``[g, i, j]`` for the edge i -> j."""
        bits = np.unpackbits(
            self.successors.astype("<u4").view(np.uint8).reshape(len(self), self.width, 4), axis=2, bitorder="little"
        )
        return bits[:, :, : self.width].astype(np.bool_)

    def edge_list(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """All edges as (graph, source, target) index arrays, sorted by graph, then source, then target."""
        graph, source, target = np.nonzero(self.adjacency())
        return graph, source, target

    def live(self) -> NDArray[np.bool_]:
        """Nodes on a path from input to output; bool (n, width). The ends count as live when connected."""
        predecessors, rows = self.predecessors(), np.arange(len(self))
        forward = np.ones(len(self), dtype=np.uint32)
        for node in range(1, self.width):
            reached = (predecessors[:, node] & forward) != 0
            forward |= reached.astype(np.uint32) << np.uint32(node)
        last = self.sizes.astype(np.uint32) - np.uint32(1)
        backward = np.uint32(1) << last
        for node in range(self.width - 2, -1, -1):
            reaches = (self.successors[rows, node] & backward) != 0
            backward |= reaches.astype(np.uint32) << np.uint32(node)
        both = forward & backward
        return ((both[:, None] >> np.arange(self.width, dtype=np.uint32)) & 1).astype(np.bool_)

    def prune(self) -> GraphBatch:
        """The graphs without their dead nodes. A graph no path crosses keeps its input and output only."""
        keep = self.live()
        rows = np.arange(len(self))
        keep[:, 0] = True
        keep[rows, self.sizes.astype(np.intp) - 1] = True
        order = np.argsort(~keep, axis=1, kind="stable")  # kept nodes first, in their old order
        sizes = keep.sum(axis=1)
        width = int(sizes.max(initial=2))
        order = order[:, :width]
        inside = np.arange(width) < sizes[:, None]
        ops = np.where(inside, np.take_along_axis(self.ops, order, axis=1), PAD_CODE).astype(np.uint8)
        old = np.take_along_axis(self.successors, order, axis=1)
        successors = np.zeros((len(self), width), dtype=np.uint32)
        for place in range(width):
            bit = (old >> order[:, place : place + 1].astype(np.uint32)) & np.uint32(1)
            successors |= np.where(inside[:, place : place + 1], bit << np.uint32(place), np.uint32(0))
        successors[~inside] = 0
        return GraphBatch(self.vocabulary, sizes.astype(np.uint8), ops, successors)


def _bits(mask: int) -> tuple[int, ...]:
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return tuple(found)
