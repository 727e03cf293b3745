"""The effective graph: what a cell computes once zeros are cut and identities are nothing but edges; walks over it.

A zero operation (`none`) takes its edges with it, nodes on no path from input to output go, and an identity
(`skip_connect`) is replaced by edges from all it reads to all that read it. Two edges that fall together count twice,
since a sum then holds the same tensor twice.

A *backward walk* starts at the output and goes to one of the predecessors at random, as often as edges lead there,
until it meets the input; so it follows each summand with its share. A *forward walk* goes from the input to readers.

Arrays are laid out (node, ..., graph), so that every step of a dynamic programme over nodes is a contiguous pass.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemnet.cell_graph import FIRST_OP_CODE, CellGraph, GraphBatch

Floats = NDArray[np.float32]
Edges = list[tuple[int, list[int]]]


def without_edges_of(graphs: GraphBatch, nodes: NDArray[np.bool_]) -> GraphBatch:
    """The graphs without the edges into and out of ``nodes`` (n, w)."""
    if not nodes.any():
        return graphs
    gone = (nodes.astype(np.uint32) << np.arange(graphs.width, dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
    successors = np.where(nodes, np.uint32(0), graphs.successors & ~gone[:, None])
    return GraphBatch(graphs.vocabulary, graphs.sizes, graphs.ops, successors)


def without_dead_weight(graphs: GraphBatch, zero_ops: Collection[str]) -> GraphBatch:
    """The graphs with zeros in place of all that zeros cut off: the same functions, at the cost of what they need."""
    codes = [FIRST_OP_CODE + k for k, op in enumerate(graphs.vocabulary) if op in zero_ops]
    if not codes:
        return graphs
    dead = ~without_edges_of(graphs, np.isin(graphs.ops, codes)).live() & (graphs.ops >= FIRST_OP_CODE)
    ops = np.where(dead, np.uint8(codes[0]), graphs.ops)
    return GraphBatch(graphs.vocabulary, graphs.sizes, ops, graphs.successors)


@dataclass(frozen=True, eq=False)
class EffectiveGraphs:
    """The effective graphs of n graphs of at most w nodes.

    Args:
        ops: label codes, 0 for what is gone; uint8 (w, n).
        weights: how many edges lead from i to j; float32 (w, w, n).
        last: the output node of each graph (n,).
        edges: (j, [i, ...]) for each node j that an edge leads to in any graph, in topological order.
    """

    ops: NDArray[np.uint8]
    weights: Floats
    last: NDArray[np.intp]
    edges: Edges

    @classmethod
    def of(cls, graphs: GraphBatch, zero_ops: Collection[str], identity_ops: Collection[str]) -> EffectiveGraphs:
        """Effective graphs, given the operations that let nothing through and those that change nothing."""
        zero, identity = (
            np.isin(graphs.ops, [FIRST_OP_CODE + k for k, op in enumerate(graphs.vocabulary) if op in chosen])
            for chosen in (zero_ops, identity_ops)
        )
        width = graphs.width
        graphs = without_edges_of(graphs, zero)
        live = graphs.live()
        kept = (live.astype(np.uint32) << np.arange(width, dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
        successors = np.ascontiguousarray(np.where(live, graphs.successors & kept[:, None], np.uint32(0)).T)
        weights = np.zeros((width, width, len(graphs)), dtype=np.float32)
        for i in range(width - 1):
            for j in range(i + 1, width):
                weights[i, j] = (successors[i] >> np.uint32(j)) & np.uint32(1)
        through = (identity & live).T
        for v in range(1, width - 1):
            here = through[v]
            if here.any():
                into = weights[:v, v] * here
                weights[:v, v + 1 :] += into[:, None] * weights[v, v + 1 :]
                weights[:v, v] -= into
                weights[v, v + 1 :] *= ~here
        ops = np.ascontiguousarray(np.where(live & ~identity, graphs.ops, 0).T)
        sources = ((j, [i for i in range(j) if weights[i, j].any()]) for j in range(1, width))
        return cls(ops, weights, graphs.sizes.astype(np.intp) - 1, [(j, found) for j, found in sources if found])

    def backward_walk(self) -> tuple[Floats, Floats]:
        """The chance that a backward walk meets each node (w, n), and that it takes each edge (w, w, n)."""
        chance = np.zeros(self.ops.shape, dtype=np.float32)
        chance[self.last, np.arange(len(self.last))] = 1
        into = self.weights.sum(axis=0)
        steps = np.zeros_like(self.weights)
        for j, sources in reversed(self.edges):
            share = chance[j] / np.maximum(into[j], 1)
            for i in sources:
                steps[i, j] = share * self.weights[i, j]
                chance[i] += steps[i, j]
        return chance, steps

    def forward_walk(self) -> Floats:
        """The chance that a forward walk meets each node; (w, n)."""
        chance = np.zeros(self.ops.shape, dtype=np.float32)
        chance[0] = 1
        out = np.maximum(self.weights.sum(axis=1), 1)
        for j, sources in self.edges:
            for i in sources:
                chance[j] += chance[i] / out[i] * self.weights[i, j]
        return chance


def effective_cell(
    cell: CellGraph, zero_ops: Collection[str] = (), identity_ops: Collection[str] = ()
) -> tuple[CellGraph, dict[tuple[int, int], float]]:
    """The effective graph of one cell, and of each edge the chance that a backward walk takes it.

    Where nodes take means, that chance is the edge's share in the output. What the graph leaves aside is that an
    identity pools its input in a cell of stride 2.
    """
    graphs = GraphBatch.from_graphs([cell], sorted(set(cell.ops)))
    found = EffectiveGraphs.of(graphs, zero_ops, identity_ops)
    last = int(found.last[0])
    kept = [0, *(node for node in range(1, last) if found.ops[node, 0]), last]
    place = {node: k for k, node in enumerate(kept)}
    steps = found.backward_walk()[1][:, :, 0]
    shares = {(place[int(i)], place[int(j)]): float(steps[i, j]) for i, j in np.argwhere(found.weights[:, :, 0] > 0)}
    return CellGraph(tuple(cell.labels[node] for node in kept[1:-1]), frozenset(shares)), shares
