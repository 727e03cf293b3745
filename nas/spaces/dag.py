"""Random DAGs and small edits of them, thousands at a time on bit masks.

Everything here keeps one promise: no dead nodes. Each inner node lies on a path from input to output.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gemnet.cell_graph import FIRST_OP_CODE, INPUT_CODE, MAX_NODES, OUTPUT_CODE, GraphBatch

U32 = np.uint32
ONE = np.uint32(1)


def sample_dags(
    n: int,
    vocabulary: tuple[str, ...],
    rng: np.random.Generator,
    max_nodes: int,
) -> GraphBatch:
    """Random subgraphs of the complete DAG.

    The number of inner nodes is log-uniform in 1..max_nodes, since small cells train alike well and large ones would
    otherwise crowd them out; the chance of an edge is log-uniform too, from a chain's to one half; each cell draws how
    often it uses each operation from a Dirichlet(1/2) distribution, so that cells of one or two operations come as
    often as mixed ones. A node that would read nothing reads a random earlier node; one that nothing reads is read by
    the output.

    Args:
        n: number of graphs.
        vocabulary: operations of inner nodes.
        rng: source of randomness.
        max_nodes: most inner nodes, at most 30.

    Returns:
        n graphs without dead nodes.
    """
    inner = (
        np.floor(np.exp(rng.uniform(np.log(min(1.5, max_nodes)), np.log(max_nodes + 1), n)))
        .astype(np.int64)
        .clip(1, max_nodes)
    )
    width = max_nodes + 2
    last = inner + 1
    column = np.arange(width)
    weights = rng.gamma(0.5, size=(n, len(vocabulary))) + 1e-12
    cumulative = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
    picks = (rng.random((n, width, 1)) > cumulative[:, None, :]).sum(axis=2).clip(max=len(vocabulary) - 1)
    ops = np.where(column[None] < last[:, None], picks + FIRST_OP_CODE, 0).astype(np.uint8)
    ops[:, 0] = INPUT_CODE
    ops[np.arange(n), last] = OUTPUT_CODE

    chance = np.exp(rng.uniform(np.log(1.0 / (inner + 1)), np.log(0.5)))
    predecessors = np.zeros((n, width), dtype=U32)
    for node in range(1, width):
        bits = rng.random((n, node), dtype=np.float32) < chance[:, None]
        bits &= (node <= last)[:, None]
        predecessors[:, node] = bits @ (ONE << np.arange(node, dtype=U32))
        orphan = (predecessors[:, node] == 0) & (node < last)
        predecessors[orphan, node] = ONE << rng.integers(0, node, orphan.sum()).astype(U32)
    successors = _transposed(predecessors)
    loose = (successors == 0) & (column[None] < last[:, None])
    successors |= np.where(loose, (ONE << last.astype(U32))[:, None], U32(0))
    return GraphBatch(vocabulary, (last + 1).astype(np.uint8), ops, successors)


def _transposed(masks: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Successor masks from predecessor masks (or back); uint32 (n, width)."""
    width = masks.shape[1]
    result = np.zeros_like(masks)
    for j in range(width):
        for i in range(j):
            result[:, i] |= ((masks[:, j] >> U32(i)) & ONE) << U32(j)
    return result


def _random_bit(masks: NDArray[np.uint32], rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.uint32]]:
    """A random set bit of each row of masks: its column in the row (n,) and its place in the mask (n,)."""
    rows = np.arange(len(masks))
    counts = np.bitwise_count(masks).astype(np.int64)
    cumulative = counts.cumsum(axis=1)
    nth = (rng.random(len(masks)) * cumulative[:, -1]).astype(np.int64)
    column = (cumulative <= nth[:, None]).sum(axis=1)
    nth -= cumulative[rows, column] - counts[rows, column]
    bits = (masks[rows, column][:, None] >> np.arange(32, dtype=U32)) & ONE
    place = (bits.cumsum(axis=1) <= nth[:, None]).sum(axis=1)
    return column, place.astype(U32)


def change_op(graphs: GraphBatch, rng: np.random.Generator) -> GraphBatch:
    """Gives one random inner node of each graph another operation."""
    n, rows = len(graphs), np.arange(len(graphs))
    kinds = len(graphs.vocabulary)
    inner = graphs.sizes.astype(np.int64) - 2
    node = 1 + rng.integers(0, np.maximum(inner, 1), n)
    ops = graphs.ops.copy()
    step = rng.integers(1, max(kinds, 2), n)
    old = ops[rows, node].astype(np.int64) - FIRST_OP_CODE
    changed = (FIRST_OP_CODE + (old + step) % kinds).astype(np.uint8)
    ops[rows, node] = np.where(inner > 0, changed, ops[rows, node])
    return GraphBatch(graphs.vocabulary, graphs.sizes, ops, graphs.successors)


def flip_edge(graphs: GraphBatch, rng: np.random.Generator) -> GraphBatch:
    """Adds or removes one random edge of each graph; nodes that die by it are removed too.

    Additions and removals are equally frequent, so that sparse graphs don't only grow. A graph that would lose its
    last path from input to output stays as it is.
    """
    n, width, rows = len(graphs), graphs.width, np.arange(len(graphs))
    column = np.arange(width, dtype=U32)
    inside = ((U32(2) << (graphs.sizes.astype(U32) - ONE)) - ONE)[:, None]  # one bit a node
    absent = ~graphs.successors & inside & (U32(0xFFFFFFFE) << column)
    absent[column[None] >= graphs.sizes[:, None]] = 0
    remove = (rng.random(n) < 0.5) | (absent == 0).all(axis=1)
    source, target = _random_bit(np.where(remove[:, None], graphs.successors, absent), rng)
    successors = graphs.successors.copy()
    successors[rows, source] ^= ONE << target
    pruned = GraphBatch(graphs.vocabulary, graphs.sizes, graphs.ops, successors).prune()
    return _where(pruned.sizes > 2, pruned, graphs)


def add_node(graphs: GraphBatch, rng: np.random.Generator, max_nodes: int) -> GraphBatch:
    """Puts a new node on one random edge of each graph; half the time the edge stays beside it.

    Graphs that already have ``max_nodes`` inner nodes get a `change_op` instead.
    """
    full = graphs.sizes >= max_nodes + 2
    n, rows = len(graphs), np.arange(len(graphs))
    width = min(graphs.width + 1, MAX_NODES)
    padded = _widened(graphs, width)
    source, place = _random_bit(padded.successors, rng)
    keep = rng.random(n) < 0.5
    below = (ONE << place) - ONE
    old = padded.successors
    # The new node takes the target's number: everything from the target on moves up by one.
    moved = (old & below[:, None]) | ((old & ~below[:, None]) << ONE)
    column = np.arange(width)
    origin = np.where(column[None] > place[:, None], column[None] - 1, column[None])
    successors = np.take_along_axis(moved, origin, axis=1)
    ops = np.take_along_axis(padded.ops, origin, axis=1).copy()
    new, target = place.astype(np.intp), ONE << (place + ONE)
    ops[rows, new] = FIRST_OP_CODE + rng.integers(0, len(graphs.vocabulary), n)
    successors[rows, new] = target
    successors[rows, source] |= ONE << place
    successors[rows, source] &= np.where(keep, U32(0xFFFFFFFF), ~target)
    grown = GraphBatch(
        graphs.vocabulary, np.where(full, padded.sizes, padded.sizes + 1).astype(np.uint8), ops, successors
    )
    return _where(~full, grown, change_op(graphs, rng))


def remove_node(graphs: GraphBatch, rng: np.random.Generator) -> GraphBatch:
    """Removes one random inner node of each graph, joining what it read to what read it.

    Graphs with one inner node get a `change_op` instead.
    """
    n, width, rows = len(graphs), graphs.width, np.arange(len(graphs))
    inner = graphs.sizes.astype(np.int64) - 2
    node = 1 + rng.integers(0, np.maximum(inner, 1), n)
    bit = node.astype(U32)
    own = graphs.successors[rows, node]
    old = graphs.successors
    reads = ((old >> bit[:, None]) & ONE).astype(np.bool_)
    joined = old | np.where(reads, own[:, None], U32(0))
    below = (ONE << bit) - ONE
    moved = (joined & below[:, None]) | ((joined >> ONE) & ~below[:, None])
    column = np.arange(width)
    origin = np.minimum(np.where(column[None] >= node[:, None], column[None] + 1, column[None]), width - 1)
    successors = np.take_along_axis(moved, origin, axis=1)
    ops = np.take_along_axis(graphs.ops, origin, axis=1).copy()
    outside = column[None] >= (graphs.sizes.astype(np.int64) - 1)[:, None]
    successors[outside] = 0
    ops[outside] = 0
    shrunk = GraphBatch(graphs.vocabulary, (graphs.sizes - 1).astype(np.uint8), ops, successors)
    return _where(inner > 1, shrunk, change_op(graphs, rng))


def edit(graphs: GraphBatch, rng: np.random.Generator, max_nodes: int) -> GraphBatch:
    """One random edit of each graph: an operation, an edge, a node more, a node less."""
    kind = rng.choice(4, size=len(graphs), p=[0.35, 0.35, 0.15, 0.15])
    parts, index = [], []
    for k in range(4):
        rows = np.flatnonzero(kind == k)
        if rows.size == 0:
            continue
        some = graphs.take(rows)
        if k == 0:
            parts.append(change_op(some, rng))
        elif k == 1:
            parts.append(flip_edge(some, rng))
        elif k == 2:
            parts.append(add_node(some, rng, max_nodes))
        else:
            parts.append(remove_node(some, rng))
        index.append(rows)
    if not parts:
        return graphs
    return GraphBatch.concat(parts).take(np.argsort(np.concatenate(index), kind="stable"))


def without_detours(graphs: GraphBatch, identity: str) -> GraphBatch:
    """The graphs without identity nodes that change nothing, where nodes take the mean of what they read.

    An identity that reads one value only, however many copies of it, is that value again. The mean of copies of one
    value is that value, so a node that reads nothing but copies of an operation's result reads the result itself, as
    does a node that reads one copy among other things. Several copies among other things stay, since each adds to a
    weight: the node reads the value itself and its first copies, whichever it read before. An identity that takes the
    mean of different values goes where that is all its readers read.

    A copy of the graph's input stays where a node that is no identity reads nothing else: a node that reads the input
    alone strides by its own operation, while an identity's reader gets the input pooled. Beside other things the input
    comes pooled, too, as its copy does.

    Args:
        graphs: cells whose nodes take means.
        identity: name of the operation that changes nothing; graphs without it come back as they are.
    """
    if identity not in graphs.vocabulary:
        return graphs
    code = FIRST_OP_CODE + graphs.vocabulary.index(identity)
    rows = np.flatnonzero((graphs.ops == code).any(axis=1))
    if not rows.size:
        return graphs
    some = graphs.take(rows)
    passive, edges = some.ops == code, some.adjacency().copy()
    moving = np.arange(len(some))
    while moving.size:
        part = edges[moving]
        _read_originals(part, passive[moving])
        _read_what_a_mean_reads(part, passive[moving])
        changed = (part != edges[moving]).any(axis=(1, 2))
        edges[moving] = part
        moving = moving[changed]
    successors = (edges.astype(U32) << np.arange(some.width, dtype=U32)).sum(axis=2, dtype=U32)
    direct = GraphBatch(some.vocabulary, some.sizes, some.ops, successors).prune()
    place = np.arange(len(graphs))
    place[rows] = len(graphs) + np.arange(len(rows))
    return GraphBatch.concat([graphs, direct]).take(place)


def _read_originals(edges: NDArray[np.bool_], passive: NDArray[np.bool_]) -> None:
    """Makes nodes read values rather than copies of them; edges (n, w, w), which nodes are identities (n, w)."""
    n, width = passive.shape
    original = np.tile(np.arange(width), (n, 1))  # the node whose value a node repeats: itself, if it is no copy
    for node in range(1, width):
        reads, values = edges[:, :node, node], original[:, :node]
        low = np.where(reads, values, width).min(axis=1)
        same = low == np.where(reads, values, -1).max(axis=1)
        of_input = (values == 0) & (np.arange(node) > 0)
        a_copy = np.where((reads & of_input).any(axis=1), of_input.argmax(axis=1), 0)
        alone = np.where((low == 0) & ~passive[:, node], a_copy, low)
        reads[same] = False
        reads[same, alone[same]] = True
        original[:, node] = np.where(same & passive[:, node], low, node)
        copies = reads & ~same[:, None] & (values != np.arange(node))
        rows = np.flatnonzero(copies.any(axis=1))
        some, some_values = reads[rows], values[rows]
        for value in np.unique(some_values[copies[rows]]):
            repeats = some_values == value  # the value itself comes first, then its copies
            count = (some & repeats).sum(axis=1, keepdims=True)
            some = np.where(repeats, np.cumsum(repeats, axis=1) <= count, some)
        reads[rows] = some


def _read_what_a_mean_reads(edges: NDArray[np.bool_], passive: NDArray[np.bool_]) -> None:
    """Makes nodes that read nothing but one identity read what it reads, if there is no other reader of it."""
    for node in np.flatnonzero(passive.any(axis=0)):
        readers, sources = edges[:, node], edges[:, :, node]
        alone = ~(readers & (edges.sum(axis=1) > 1)).any(axis=1)
        rows = np.flatnonzero(passive[:, node] & alone & (sources.sum(axis=1) > 1))
        for reader in np.flatnonzero(readers[rows].any(axis=0)):
            some = rows[readers[rows, reader]]
            edges[some, :, reader] = sources[some]


def _widened(graphs: GraphBatch, width: int) -> GraphBatch:
    pad = ((0, 0), (0, width - graphs.width))
    return GraphBatch(graphs.vocabulary, graphs.sizes, np.pad(graphs.ops, pad), np.pad(graphs.successors, pad))


def _where(choose: NDArray[np.bool_], first: GraphBatch, second: GraphBatch) -> GraphBatch:
    """Row by row ``first`` where ``choose``, else ``second``."""
    width = max(first.width, second.width)
    a, b = _widened(first, width), _widened(second, width)
    return GraphBatch(
        first.vocabulary,
        np.where(choose, a.sizes, b.sizes),
        np.where(choose[:, None], a.ops, b.ops),
        np.where(choose[:, None], a.successors, b.successors),
    )
