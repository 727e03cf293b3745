"""Structural features: what a cell's graph says about the function it computes, for thousands of graphs at once.

In the manner of GRAF (Kadlecova et al., "Surprisingly Strong Performance Prediction with Neural Graph Features", ICML
2024), on the *effective* graph (`nas.graphs.effective`) instead of the drawn one. So cells that compute
the same function get the same features in nearly all cases, whatever the space and its vocabulary.

Added to GRAF's counts, degrees and path lengths: numbers of paths, and walks. How many operations of each kind a
backward walk meets, and which operation follows which, weighs what feeds the output directly against what drowns in a
sum.

All statistics are dynamic programmes in topological order, which is the order of node numbers, vectorised over graphs:
arrays are laid out (node, statistic, graph), so that every step is a contiguous pass.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from gemnet.cell_graph import FIRST_OP_CODE, INPUT, OUTPUT, GraphBatch
from gemnet.errors import GraphError
from nas.graphs.effective import Edges, EffectiveGraphs

Floats = NDArray[np.float32]

# Graphs worked on together: at 30 nodes the arrays of one block then fit into a second-level cache.
_BLOCK = 512
_PAIRS_UP_TO = 4  # real operations: with more, pairs of operations are left out of the subsets
_FAR = 64  # more than any path is long


def structural_features(
    graphs: GraphBatch, zero_ops: Collection[str] = (), identity_ops: Collection[str] = ()
) -> Floats:
    """Features of each graph; float32 (n, f), columns as `feature_names` says.

    Args:
        graphs: the graphs.
        zero_ops: operations that let nothing through.
        identity_ops: operations that change nothing.
    """
    vocabulary = graphs.vocabulary
    real = _real_ops(vocabulary, zero_ops, identity_ops)
    columns = len(feature_names(vocabulary, zero_ops, identity_ops))
    result = np.empty((len(graphs), columns), dtype=np.float32)
    codes = {name: FIRST_OP_CODE + k for k, name in enumerate(vocabulary)}
    real_codes = [codes[op] for op in real]
    by_size = np.argsort(graphs.sizes, kind="stable")  # small graphs together need few columns
    for start in range(0, len(graphs), _BLOCK):
        rows = by_size[start : start + _BLOCK]
        width = int(graphs.sizes[rows[-1]])
        block = GraphBatch(vocabulary, graphs.sizes[rows], graphs.ops[rows, :width], graphs.successors[rows, :width])
        result[rows] = _block_features(EffectiveGraphs.of(block, zero_ops, identity_ops), real_codes)
    return result


def feature_names(
    vocabulary: Collection[str], zero_ops: Collection[str] = (), identity_ops: Collection[str] = ()
) -> tuple[str, ...]:
    """The name ``group/what`` of each column of `structural_features`.

    Groups: ``count`` of nodes of an operation; ``longest`` and ``shortest`` input-output path, counted in nodes of a
    subset of operations (-1 without any path); ``paths``, log(1 + number) of paths through nothing but a subset;
    ``cut``, whether there is no path at all; ``backward`` and ``forward``, nodes of an operation met by a random walk
    from the output or from the input; ``reads``, edges into nodes of an operation; ``ends``, edges of the input, into
    the output, between both, in all, and in all counted once; ``edge``, edges from one label to another; ``step``, how
    often a backward walk takes such an edge.
    """
    real = _real_ops(tuple(vocabulary), zero_ops, identity_ops)
    subsets = ["+".join(real[k] for k in subset) for subset in _subsets(len(real))]
    pairs = [f"{a}>{b}" for a in (INPUT, *real) for b in (OUTPUT, *real)]
    table = {
        "count": real,
        "longest": subsets,
        "shortest": subsets,
        "paths": ["(none)", *subsets],
        "cut": ["cut"],
        "backward": real,
        "forward": real,
        "reads": real,
        "ends": ["from input", "into output", "input>output", "all", "all once"],
        "edge": pairs,
        "step": pairs,
    }
    return tuple(f"{group}/{what}" for group, names in table.items() for what in names)


def _real_ops(vocabulary: tuple[str, ...], zero_ops: Collection[str], identity_ops: Collection[str]) -> tuple[str, ...]:
    both = set(zero_ops) & set(identity_ops)
    if both:
        raise GraphError(f"{sorted(both)[0]!r} is named as a zero and as an identity operation; it can be one of them.")
    return tuple(op for op in vocabulary if op not in zero_ops and op not in identity_ops)


def _subsets(ops: int) -> list[tuple[int, ...]]:
    """Subsets of operations worth a path statistic: single ones, pairs (in small vocabularies), all but one, all."""
    sizes = {1, ops - 1, ops} | ({2} if ops <= _PAIRS_UP_TO else set())
    return [subset for size in sorted(sizes - {0, -1}) for subset in combinations(range(ops), size)]


def _block_features(graphs: EffectiveGraphs, real_codes: list[int]) -> Floats:
    ops, weights, edges, last = graphs.ops, graphs.weights, graphs.edges, graphs.last
    width, n = ops.shape
    rows = np.arange(n)
    labels = np.stack([ops == code for code in real_codes]) if real_codes else np.zeros((0, width, n), dtype=np.bool_)
    subsets = _subsets(len(real_codes))
    member = np.zeros((len(subsets), len(real_codes)), dtype=np.bool_)
    for row, subset in enumerate(subsets):
        member[row, list(subset)] = True

    lengths, connected = _path_lengths(labels, weights, edges, member, last)
    paths = _path_numbers(labels, weights, edges, member, last)
    met, steps = graphs.backward_walk()
    backward, forward = (
        np.einsum("kwn,wn->kn", labels.astype(np.float32), chance) for chance in (met, graphs.forward_walk())
    )
    into = weights.sum(axis=0)  # (width, n)
    ends = np.stack(
        [
            weights[0].sum(axis=0),
            into[last, rows],
            weights[0, last, rows],
            into.sum(axis=0),
            np.count_nonzero(weights, axis=(0, 1)),
        ]
    )
    counts = labels.sum(axis=1, dtype=np.float32)
    reads = np.einsum("kwn,wn->kn", labels.astype(np.float32), into)
    by_label = _by_labels(ops, weights, steps, real_codes)
    parts = [counts, lengths, np.log1p(paths), ~connected[None], backward, forward, reads, ends, *by_label]
    return np.concatenate([part.astype(np.float32) for part in parts]).T


def _path_lengths(
    labels: NDArray[np.bool_],
    weights: Floats,
    edges: Edges,
    member: NDArray[np.bool_],
    last: NDArray[np.intp],
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Longest, then shortest path in nodes of each subset, (2 s, n), -1 without any path; and whether there is one."""
    _, width, n = labels.shape
    s = len(member)
    # One maximum serves both: lengths are kept as 1 + length and as _FAR - length, and 0 says unreached.
    best = np.zeros((width, 2 * s + 1, n), dtype=np.uint8)
    best[0, :s], best[0, s:] = 1, _FAR
    for j, sources in edges:
        for i in sources:
            there = np.where(weights[i, j] > 0, np.uint8(255), np.uint8(0))
            np.maximum(best[j], best[i] & there, out=best[j])
        if s:
            inside = (member[:, :, None] & labels[None, :, j]).any(axis=1)
            best[j, :s] += inside
            best[j, s : 2 * s] -= inside
    final = best[last, :, np.arange(n)].T.astype(np.int16)
    connected = final[-1] > 0
    lengths = np.concatenate([final[:s] - 1, _FAR - final[s : 2 * s]])
    return np.where(connected, lengths, -1).astype(np.int16), connected


def _path_numbers(
    labels: NDArray[np.bool_],
    weights: Floats,
    edges: Edges,
    member: NDArray[np.bool_],
    last: NDArray[np.intp],
) -> Floats:
    """Number of paths through no inner node at all, then through nodes of each subset only; (1 + s, n)."""
    _, width, n = labels.shape
    number = np.zeros((width, 1 + len(member), n), dtype=np.float32)
    number[0] = 1
    for j, sources in edges:
        for i in sources:
            number[j] += number[i] * weights[i, j]
        allowed = (member[:, :, None] & labels[None, :, j]).any(axis=1)
        number[j, 1:] *= allowed | (last == j)
        number[j, 0] *= last == j
    return number[last, :, np.arange(n)].T


def _by_labels(ops: NDArray[np.uint8], weights: Floats, steps: Floats, real_codes: list[int]) -> list[Floats]:
    """Sums of ``weights`` and of ``steps`` over the edges between each pair of labels; twice ((1 + k) ** 2, n)."""
    n, kinds = ops.shape[1], len(real_codes) + 1
    number = np.zeros(256, dtype=np.intp)  # input and output are both 0: nothing leads into the one or out of the other
    number[real_codes] = np.arange(1, kinds)
    column = number[ops]
    i, j, graph = np.nonzero(weights)
    place = (column[i, graph] * kinds + column[j, graph]) * n + graph
    return [
        np.bincount(place, values[i, j, graph], minlength=kinds * kinds * n).reshape(-1, n).astype(np.float32)
        for values in (weights, steps)
    ]
