"""Weisfeiler-Lehman colour refinement, features and kernel for thousands of labelled DAGs at once.

Depth 0 colours a node by its label; depth t colours it by its own colour at depth t - 1 and the multisets of its
neighbours' colours. A graph's features are how often each colour occurs at each depth; the kernel of two graphs is
the dot product of their features (Shervashidze et al., "Weisfeiler-Lehman Graph Kernels", JMLR 2011).

Two kinds of colour give the same kernel. *Hashed* colours are 64-bit numbers that depend on nothing but the graph:
they agree between processes and machines, so graphs seen later compare with graphs seen before. A multiset is hashed
as the sum of its mixed elements, which turns a refinement step into one product with a sparse block-diagonal
adjacency matrix. *Exact* colours are integers from a dictionary of every (colour, multiset, multiset) met so far:
no collision is possible, at many times the cost. Some pair among a million hashed colours collides with probability
1e-6 (59 bits; the lowest five hold the depth).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from gemnet.cell_graph import INPUT, OUTPUT, CellGraph, GraphBatch
from gemnet.errors import GemnetError
from gemnet.machine import available_cores

Direction = Literal["both", "out"]
Graphs = GraphBatch | Sequence[CellGraph]
Colours = NDArray[np.uint64]

CHUNK = 2048  # graphs refined together: their colours and edges stay in the second-level cache
# Keys that set apart own colour, incoming and outgoing neighbours (the fractional bits of square roots, as in SHA-512).
KEY_OWN, KEY_OUT, KEY_IN = (np.uint64(k) for k in (0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B))
# A column this frequent (as a share of the graphs) costs less in a dense product than pair by pair in a sparse one.
DENSE_SHARE = 1 / 64

DEPTH_MASK = np.uint64(31)  # graphs of 32 nodes are refined as far as they ever will be at depth 31

T = TypeVar("T")
R = TypeVar("R")


class WLError(GemnetError):
    """A setting of the WL kernel that means nothing."""


def wl_colours(graphs: Graphs, iterations: int = 3, direction: Direction = "both") -> Colours:
    """Hashed colours of all nodes at depths 0 to ``iterations``.

    Args:
        graphs: n labelled DAGs.
        iterations: how many times colours are refined.
        direction: "both" refines by predecessors and successors, kept apart by keys; "out" by successors alone.

    Returns:
        uint64 (n, iterations + 1, width); 0 where a graph has no such node. The lowest five bits are the depth. A
        label's colour at depth 0 comes from its name, so batches with different vocabularies compare.

    Raises:
        WLError: a negative number of iterations or one above 31, or an unknown direction.
    """
    _check(iterations, direction)
    return np.concatenate(_map_chunks(lambda part: _hashed_colours(part, iterations, direction), as_batch(graphs)))


def wl_features(graphs: Graphs, iterations: int = 3, direction: Direction = "both") -> csr_array:
    """How often each colour occurs in each graph, at all depths.

    Args:
        graphs: n labelled DAGs.
        iterations: how many times colours are refined.
        direction: "both" or "out", see `wl_colours`.

    Returns:
        float32 (n, number of colours met). Columns mean the same colours within one call only: use `WLVocabulary` for
        columns that stay, and to know the depth of each.
    """
    return WLVocabulary(iterations, direction).fit_transform(graphs)


def wl_kernel(
    graphs: Graphs,
    others: Graphs | None = None,
    iterations: int = 3,
    normalize: bool = True,
    direction: Direction = "both",
) -> NDArray[np.float64]:
    """The WL subtree kernel between two sets of graphs.

    Args:
        graphs: n labelled DAGs, the rows.
        others: m labelled DAGs, the columns; None compares ``graphs`` with themselves.
        iterations: how many times colours are refined (h).
        normalize: divide k(a, b) by sqrt(k(a, a) k(b, b)), so that it lies in [0, 1] and is 1 for a graph and itself.
        direction: "both" or "out", see `wl_colours`. "out" is GraKeL's setting.

    Returns:
        float64 (n, m).
    """
    rows, columns = WLVocabulary(iterations, direction).fit_transform_pair(graphs, others)
    out = np.empty((rows.shape[0], (rows if columns is None else columns).shape[0]))
    for start, block in _kernel_blocks(rows, columns, normalize, _block_rows(out.shape[1])):
        out[start : start + len(block)] = block
    return out


def wl_kernel_rows(
    graphs: Graphs,
    others: Graphs | None = None,
    iterations: int = 3,
    normalize: bool = True,
    direction: Direction = "both",
    block: int | None = None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """`wl_kernel` a few rows at a time, for sets too large for an n x m matrix.

    Args:
        block: rows at a time; None takes as many as fit into 8 MB.

    Yields:
        (first row, float32 (rows, m)).
    """
    rows, columns = WLVocabulary(iterations, direction).fit_transform_pair(graphs, others)
    width = (rows if columns is None else columns).shape[0]
    yield from _kernel_blocks(rows, columns, normalize, block or _block_rows(width))


class WLVocabulary:
    """Colours met so far, each with a column of its own; new graphs are counted against old ones without refitting.

    Args:
        iterations: how many times colours are refined.
        direction: "both" or "out", see `wl_colours`.
    """

    def __init__(self, iterations: int = 3, direction: Direction = "both") -> None:
        _check(iterations, direction)
        self.iterations = iterations
        self.direction = direction
        self._index = _ColourIndex.of([])

    @property
    def colours(self) -> Colours:
        """Colour of each column, ascending, (columns,)."""
        return self._index.colours

    @property
    def depth(self) -> NDArray[np.uint8]:
        """Refinement depth of each column, (columns,)."""
        return (self._index.colours & DEPTH_MASK).astype(np.uint8)

    def __len__(self) -> int:
        return len(self._index.colours)

    def fit(self, graphs: Graphs) -> WLVocabulary:
        """Gives every colour of ``graphs`` a column, in place of all columns before."""
        self._index = _ColourIndex.of(self._count(graphs))
        return self

    def transform(self, graphs: Graphs) -> csr_array:
        """Counts of the known colours; float32 (n, len(self)). Colours without a column are left out."""
        return self._index.matrix(self._count(graphs))

    def fit_transform(self, graphs: Graphs) -> csr_array:
        """`fit` and `transform` in one pass."""
        return self.fit_transform_pair(graphs, None)[0]

    def fit_transform_pair(self, graphs: Graphs, others: Graphs | None) -> tuple[csr_array, csr_array | None]:
        """Columns for the colours of both sets, and the counts of each."""
        first = self._count(graphs)
        second = None if others is None else self._count(others)
        self._index = _ColourIndex.of(first if second is None else first + second)
        return self._index.matrix(first), None if second is None else self._index.matrix(second)

    def _count(self, graphs: Graphs) -> list[_ColourCounts]:
        def count(part: GraphBatch) -> _ColourCounts:
            return _ColourCounts.of(_hashed_colours(part, self.iterations, self.direction))

        return _map_chunks(count, as_batch(graphs))


def as_batch(graphs: Graphs) -> GraphBatch:
    """``graphs`` as one `GraphBatch`; a list's vocabulary is the sorted set of its operations."""
    if isinstance(graphs, GraphBatch):
        return graphs
    return GraphBatch.from_graphs(graphs, sorted({op for graph in graphs for op in graph.ops}))


def label_colours(vocabulary: Sequence[str]) -> Colours:
    """64-bit colour of each label code (padding, input, output, then the vocabulary), from the names alone."""
    names = ("", INPUT, OUTPUT, *vocabulary)
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
    colours = np.array([int.from_bytes(digest, "little") for digest in digests], dtype=np.uint64)
    colours &= ~DEPTH_MASK
    colours[0] = 0
    return colours


# --- colours ---------------------------------------------------------------------------------------------------------


def _check(iterations: int, direction: str) -> None:
    whole = isinstance(iterations, int | np.integer) and not isinstance(iterations, bool)
    if not whole or not 0 <= iterations <= DEPTH_MASK:
        raise WLError(f"WL iterations are a whole number from 0 to {DEPTH_MASK}, got {iterations!r}.")
    if direction not in ("both", "out"):
        raise WLError(f"WL direction is 'both' or 'out', got {direction!r}.")


def _mix(x: Colours) -> Colours:
    """splitmix64's finaliser: a bijection of 64-bit numbers in which every bit depends on every bit."""
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _hashed_colours(batch: GraphBatch, iterations: int, direction: Direction) -> Colours:
    n, width = batch.ops.shape
    result = np.empty((n, iterations + 1, width), dtype=np.uint64)
    result[:, 0] = label_colours(batch.vocabulary)[batch.ops]
    if not iterations:
        return result
    adjacency = _block_adjacency(batch)
    padding = batch.ops == 0
    flat: Colours = result[:, 0].reshape(-1)
    for depth in range(1, iterations + 1):
        total = flat * KEY_OWN
        total += adjacency @ _mix(flat ^ KEY_OUT)
        if direction == "both":
            total += adjacency.T @ _mix(flat ^ KEY_IN)
        flat = _mix(total)
        colours = result[:, depth]
        np.bitwise_and(flat.reshape(n, width), ~DEPTH_MASK, out=colours)
        colours |= np.uint64(depth)
        colours[padding] = 0
        flat[padding.reshape(-1)] = 0
    return result


def _block_adjacency(batch: GraphBatch) -> csr_array:
    """All graphs' adjacency as one block-diagonal matrix of ones; uint64 (n * width, n * width)."""
    n, width = batch.ops.shape
    degrees = np.bitwise_count(batch.successors).reshape(-1).astype(np.int32)
    pointers = np.zeros(n * width + 1, dtype=np.int32)
    np.cumsum(degrees, out=pointers[1:])
    masks = np.ascontiguousarray(batch.successors, dtype="<u4").view(np.uint8)
    bits = np.flatnonzero(np.unpackbits(masks, bitorder="little").view(np.bool_))
    columns = (bits & 31).astype(np.int32)
    columns += np.repeat(np.arange(n, dtype=np.int32) * np.int32(width), degrees.reshape(n, width).sum(axis=1))
    return csr_array((np.ones(len(columns), dtype=np.uint64), columns, pointers), shape=(n * width, n * width))


# --- features --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _ColourCounts:
    """The distinct colours of each graph and how often each occurs: a sparse matrix whose columns have no place yet."""

    colours: Colours  # (total,)
    counts: NDArray[np.float32]  # (total,)
    lengths: NDArray[np.intp]  # (n,) distinct colours of each graph

    @classmethod
    def of(cls, colours: Colours) -> _ColourCounts:
        """Counts of colours (n, depths, width)."""
        ordered = np.sort(colours, axis=2)
        first = np.empty(ordered.shape, dtype=np.bool_)
        first[:, :, 0] = True
        np.not_equal(ordered[:, :, 1:], ordered[:, :, :-1], out=first[:, :, 1:])
        starts = np.flatnonzero(first)
        values = ordered.reshape(-1)[starts]
        counts = np.diff(starts, append=ordered.size).astype(np.float32)
        padded = ordered[:, :, 0] == 0
        lengths = np.count_nonzero(first, axis=(1, 2)) - np.count_nonzero(padded, axis=1)
        if padded.any():
            real = values != 0
            values, counts = values[real], counts[real]
        return cls(values, counts, lengths)


@dataclass(frozen=True, eq=False)
class _ColourIndex:
    """Colours in ascending order, and a table that leads from a colour's leading bits to its place among them."""

    colours: Colours
    table: NDArray[np.int32]
    shift: np.uint64

    @classmethod
    def of(cls, counts: Sequence[_ColourCounts]) -> _ColourIndex:
        ordered = np.concatenate([np.zeros(0, dtype=np.uint64), *(part.colours for part in counts)])
        ordered.sort()
        keep = np.ones(len(ordered), dtype=np.bool_)
        np.not_equal(ordered[1:], ordered[:-1], out=keep[1:])
        ordered = ordered[keep]
        # Hashes spread evenly, so a table with about one bucket for each colour makes a search two or three steps.
        span = int(ordered[-1]).bit_length() if len(ordered) else 1
        bits = min(len(ordered).bit_length(), span)
        shift = np.uint64(span - bits)
        filled = np.bincount((ordered >> shift).view(np.int64), minlength=1 << bits)
        table = np.zeros((1 << bits) + 1, dtype=np.int32)
        np.cumsum(filled, out=table[1:])
        return cls(ordered, table, shift)

    def find(self, colours: Colours) -> NDArray[np.int32]:
        """Column of each colour, -1 where it has none; int32 (total,)."""
        if not len(self.colours):
            return np.full(len(colours), -1, dtype=np.int32)
        bucket = (colours >> self.shift).view(np.int64)
        np.minimum(bucket, len(self.table) - 2, out=bucket)
        place = self.table[bucket]
        last = np.int32(len(self.colours) - 1)
        np.minimum(place, last, out=place)
        searched = np.flatnonzero(self.colours[place] != colours)
        while len(searched):
            searched = searched[(self.colours[place[searched]] < colours[searched]) & (place[searched] < last)]
            place[searched] += 1
        place[self.colours[place] != colours] = -1
        return place

    def matrix(self, counts: Sequence[_ColourCounts]) -> csr_array:
        """Counts in their columns, those of unknown colours left out; float32 (n, columns)."""
        columns = np.concatenate([np.zeros(0, dtype=np.int32), *_map(lambda part: self.find(part.colours), counts)])
        values = np.concatenate([np.zeros(0, dtype=np.float32), *(part.counts for part in counts)])
        pointers = np.concatenate([[0], np.cumsum(np.concatenate([[], *(part.lengths for part in counts)]))]).astype(
            np.int64
        )
        known = columns >= 0
        if not known.all():
            pointers = np.concatenate([[0], np.cumsum(known)])[pointers]
            columns, values = columns[known], values[known]
        small = len(columns) < 2**31
        return csr_array(
            (values, columns, pointers.astype(np.int32)) if small else (values, columns.astype(np.int64), pointers),
            shape=(len(pointers) - 1, len(self.colours)),
        )


# --- kernel ----------------------------------------------------------------------------------------------------------


def _square_norms(features: csr_array) -> NDArray[np.float64]:
    return np.asarray(features.multiply(features).sum(axis=1), dtype=np.float64).reshape(-1)


def _block_rows(columns: int) -> int:
    return max(1, 2**21 // max(columns, 1))


def _kernel_blocks(
    rows: csr_array, columns: csr_array | None, normalize: bool, block: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Blocks of rows @ columns.T: frequent colours by dense products, rare ones pair by pair."""
    row_scale = _scale(rows) if normalize else None
    row_frequency = np.bincount(rows.indices, minlength=rows.shape[1])
    if columns is None:
        columns, column_scale = rows, row_scale
        shared = row_frequency > 1
        # A colour of one graph meets itself on the diagonal only, which is known without a product.
        diagonal = _square_norms(rows).astype(np.float32)
        column_frequency = row_frequency
    else:
        column_scale = _scale(columns) if normalize else None
        column_frequency = np.bincount(columns.indices, minlength=rows.shape[1])
        shared = (row_frequency > 0) & (column_frequency > 0)
        diagonal = None
    frequent = shared & (column_frequency > columns.shape[0] * DENSE_SHARE)
    rare = np.flatnonzero(shared & ~frequent)
    dense_columns = columns[:, np.flatnonzero(frequent)].toarray().T
    dense_rows = rows[:, np.flatnonzero(frequent)]
    rare_rows, rare_columns = rows[:, rare], columns[:, rare].T.tocsr()
    for start in range(0, rows.shape[0], block):
        stop = min(start + block, rows.shape[0])
        out = dense_rows[start:stop].toarray() @ dense_columns
        pairs = rare_rows[start:stop] @ rare_columns
        out.reshape(-1)[np.repeat(np.arange(stop - start) * out.shape[1], np.diff(pairs.indptr)) + pairs.indices] += (
            pairs.data
        )
        if diagonal is not None:
            out[np.arange(stop - start), np.arange(start, stop)] = diagonal[start:stop]
        if row_scale is not None and column_scale is not None:
            _normalise(out, row_scale[start:stop, None], column_scale)
        yield start, out


def _scale(features: csr_array) -> NDArray[np.float32]:
    """1 / sqrt(k(a, a)), rounded up: a graph and itself come to 1 or a little more, and are cut to 1."""
    exact = 1.0 / np.sqrt(_square_norms(features))
    return np.nextafter(exact.astype(np.float32), np.float32(np.inf))


def _normalise(block: NDArray[np.float32], rows: NDArray[np.float32], columns: NDArray[np.float32]) -> None:
    """``block *= rows * columns``, cut at 1, which rounding oversteps; slice by slice, within the cache."""
    step = max(1, 2**16 // max(block.shape[1], 1))
    for start in range(0, len(block), step):
        part = block[start : start + step]
        part *= rows[start : start + step]
        part *= columns
        np.minimum(part, 1.0, out=part)


# --- threads ---------------------------------------------------------------------------------------------------------


def _map(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``function`` of each item, on all cores: NumPy and SciPy let go of the interpreter while they compute."""
    workers = min(available_cores(), len(items))
    if workers <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, items))


def _map_chunks(function: Callable[[GraphBatch], R], batch: GraphBatch) -> list[R]:
    if len(batch) <= CHUNK:
        return [function(batch)]
    return _map(function, [batch.take(slice(k, k + CHUNK)) for k in range(0, len(batch), CHUNK)])
