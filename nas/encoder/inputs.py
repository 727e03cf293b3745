"""What the encoder reads of a graph: labels, adjacency, and where each node lies on the paths from input to output.

Rounds of message passing see a few steps far; a cell of 30 nodes can be 31 edges deep. So every node carries its place
on whole paths with it: longest and shortest path to either end, the number of paths, the share of a random walk.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemnet.cell_graph import FIRST_OP_CODE, GraphBatch
from nas.graphs.effective import without_edges_of

Floats = NDArray[np.float32]
PLACES = 10  # numbers of `place_on_paths` for each node
_FAR = 64.0  # longer than any path; a power of two, so that it can be added and taken away exactly
_BLOCK = 256  # graphs worked on together: their edges fit into a second-level cache


def without_zero_ops(graphs: GraphBatch, zero_ops: Collection[str]) -> GraphBatch:
    """The graphs without nodes that let nothing through, and without what is dead then.

    A graph that no path crosses keeps its input and output only.
    """
    codes = [FIRST_OP_CODE + k for k, op in enumerate(graphs.vocabulary) if op in zero_ops]
    return without_edges_of(graphs, np.isin(graphs.ops, codes)).prune()


@dataclass(frozen=True, eq=False)
class NodeInputs:
    """Arrays of n graphs of at most w nodes.

    Args:
        labels: label codes, 0 pads; int64 (n, w).
        adjacency: ``[g, i, j]`` is 1 for the edge i -> j; float32 (n, w, w).
        places: `place_on_paths`; float32 (n, w, PLACES).
    """

    labels: NDArray[np.int64]
    adjacency: Floats
    places: Floats

    @classmethod
    def of(cls, graphs: GraphBatch, places: Floats | None = None) -> NodeInputs:
        """Arrays of ``graphs``, as wide as the largest of them; ``places`` where they are known."""
        width = int(graphs.sizes.max(initial=2))
        trimmed = GraphBatch(graphs.vocabulary, graphs.sizes, graphs.ops[:, :width], graphs.successors[:, :width])
        adjacency = trimmed.adjacency().astype(np.float32)
        places = place_on_paths(adjacency, graphs.sizes) if places is None else places[:, :width]
        return cls(trimmed.ops.astype(np.int64), adjacency, places)


def place_on_paths(adjacency: Floats, sizes: NDArray[np.uint8]) -> Floats:
    """Where nodes lie between input and output; float32 (n, w, PLACES), all of the order of one.

    For the ways from the input: longest and shortest path (edges / 8), log(1 + number of paths) / 4, visits of a walk
    that takes each edge with equal chance, log(1 + edges into the node); then the same for the ways to the output.
    0 for padding.
    """
    n, width, _ = adjacency.shape
    result = np.empty((n, width, PLACES), dtype=np.float32)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        edges = np.ascontiguousarray(adjacency[start:stop].transpose(1, 2, 0))  # (source, target, graph)
        here = np.concatenate([_from_input(edges), _to_output(edges, sizes[start:stop].astype(np.intp) - 1)])
        result[start:stop] = here.transpose(2, 1, 0)
    return result


def _from_input(edges: Floats) -> Floats:
    """Statistics of the ways from node 0; edges (source, target, graph) to (PLACES / 2, node, graph)."""
    shares = edges / np.maximum(edges.sum(axis=1, keepdims=True), 1)
    walk = _Walk.of(edges.shape[0], edges.shape[2])
    walk.start(0, slice(None))
    for node in range(1, len(edges)):
        walk.step(node, slice(0, node), edges[:node, node], shares[:node, node])
    return walk.places(edges.sum(axis=0))


def _to_output(edges: Floats, ends: NDArray[np.intp]) -> Floats:
    """Statistics of the ways to each graph's last node, walked backwards."""
    shares = edges / np.maximum(edges.sum(axis=0, keepdims=True), 1)
    walk = _Walk.of(edges.shape[0], edges.shape[2])
    for node in range(len(edges) - 1, -1, -1):
        if node < len(edges) - 1:
            walk.step(node, slice(node + 1, None), edges[node, node + 1 :], shares[node, node + 1 :])
        walk.start(node, np.flatnonzero(ends == node))
    return walk.places(edges.sum(axis=1))


@dataclass(frozen=True, eq=False)
class _Walk:
    """One dynamic programme for several statistics of paths, each (node, graph)."""

    longest: Floats
    shortest: Floats
    paths: Floats
    visits: Floats

    @classmethod
    def of(cls, width: int, n: int) -> _Walk:
        longest, paths, visits = np.zeros((3, width, n), dtype=np.float32)
        return cls(longest, np.full((width, n), _FAR, dtype=np.float32), paths, visits)

    def start(self, node: int, graphs: NDArray[np.intp] | slice) -> None:
        self.shortest[node, graphs], self.paths[node, graphs], self.visits[node, graphs] = 0, 1, 1

    def step(self, node: int, before: slice, edges: Floats, shares: Floats) -> None:
        (edges * (self.longest[before] + 1)).max(axis=0, out=self.longest[node])
        # Where there is no edge, the way is longer than any path.
        np.minimum((self.shortest[before] + (1 + _FAR) - _FAR * edges).min(axis=0), _FAR, out=self.shortest[node])
        (edges * self.paths[before]).sum(axis=0, out=self.paths[node])
        (shares * self.visits[before]).sum(axis=0, out=self.visits[node])

    def places(self, neighbours: Floats) -> Floats:
        reached = self.shortest < _FAR
        return np.stack(
            [self.longest / 8, self.shortest / 8 * reached, np.log1p(self.paths) / 4, self.visits, np.log1p(neighbours)]
        )
