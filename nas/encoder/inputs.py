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

Floats = NDArray[np.float32]
PLACES = 10  # numbers of `place_on_paths` for each node
_FAR = 40.0  # longer than any path


def without_zero_ops(graphs: GraphBatch, zero_ops: Collection[str]) -> GraphBatch:
    """The graphs without nodes that let nothing through, and without what is dead then.

    A graph that no path crosses keeps its input and output only.
    """
    codes = [FIRST_OP_CODE + k for k, op in enumerate(graphs.vocabulary) if op in zero_ops]
    if codes:
        zero = np.isin(graphs.ops, codes)
        masks = (zero.astype(np.uint32) << np.arange(graphs.width, dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
        successors = np.where(zero, np.uint32(0), graphs.successors & ~masks[:, None])
        graphs = GraphBatch(graphs.vocabulary, graphs.sizes, graphs.ops, successors)
    return graphs.prune()


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

    For the way from the input: longest and shortest path (edges / 8), log(number of paths) / 4, visits of a walk that
    takes each edge with equal chance, log(1 + neighbours); the same for the way to the output. 0 for padding.
    """
    n, width, _ = adjacency.shape
    ends = sizes.astype(np.intp) - 1
    forward = np.ascontiguousarray(adjacency.transpose(1, 2, 0))  # (source, target, graph)
    # Renumbered from each graph's own output backwards, the way to the output is the way from node 0 again.
    reverse = np.maximum(ends[:, None] - np.arange(width), 0)
    rows = np.arange(n)[:, None, None]
    flipped = adjacency[rows, reverse[:, None, :], reverse[:, :, None]]
    inside = np.arange(width)[None, :] <= ends[:, None]
    flipped = flipped * (inside[:, :, None] & inside[:, None, :])
    backward = np.ascontiguousarray(flipped.transpose(1, 2, 0), dtype=np.float32)
    result = np.empty((n, width, PLACES), dtype=np.float32)
    result[:, :, : PLACES // 2] = _from_first(forward).transpose(2, 1, 0)
    from_output = _from_first(backward).transpose(2, 1, 0)
    result[:, :, PLACES // 2 :] = from_output[np.arange(n)[:, None], reverse]
    result *= inside[:, :, None]
    return result


def _from_first(edges: Floats) -> Floats:
    """Statistics of the ways from node 0 along edges (source, target, graph); (PLACES / 2, node, graph)."""
    width, _, n = edges.shape
    shares = edges / np.maximum(edges.sum(axis=1, keepdims=True), 1)
    longest = np.zeros((width, n), dtype=np.float32)
    shortest = np.full((width, n), _FAR, dtype=np.float32)
    paths = np.zeros((width, n), dtype=np.float32)
    visits = np.zeros((width, n), dtype=np.float32)
    shortest[0], paths[0], visits[0] = 0, 1, 1
    for j in range(1, width):
        into = edges[:j, j]
        longest[j] = (into * (longest[:j] + 1)).max(axis=0)
        shortest[j] = (shortest[:j] + 1 + (1 - into) * _FAR).min(axis=0)
        paths[j] = (into * paths[:j]).sum(axis=0)
        visits[j] = (shares[:j, j] * visits[:j]).sum(axis=0)
    return np.stack(
        [
            longest / 8,
            np.minimum(shortest, _FAR) / 8 * (shortest < _FAR),
            np.log1p(paths) / 4,
            visits,
            np.log1p(edges.sum(axis=0)),
        ]
    )
