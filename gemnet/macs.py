"""What a network costs: multiply-adds and parameters, of one genome or of thousands of candidates, without building.

Counted are convolutions and linear layers at a stated input size; norms, activations, pools and sums are not MACs. In
a fixed template the cost of a network is linear in how often each operation occurs in the cell (and how often beside
nothing but the cell's input, where stride or width change there), so a batch of candidates is a product of counts and
coefficients.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemnet.cell import lay_out, reads_input_itself, squeeze_cost
from gemnet.cell_graph import FIRST_OP_CODE, MAX_INNER_NODES, CellGraph, GraphBatch
from gemnet.errors import GemnetError
from gemnet.genome import Block, CellSpec, Genome, LayerSpec
from gemnet.operations import Cost, parse_operation

Size = tuple[int, int]


def macs(
    genome: Genome, input_size: int | Size | None = None, num_classes: int | None = None, in_chans: int = 3
) -> int:
    """Multiply-adds of the genome's network for one image.

    Args:
        genome: the network.
        input_size: side or (height, width) of the image in pixels; the genome's by default.
        num_classes: classes; the genome's by default.
        in_chans: channels of the image.
    """
    return cost(genome, input_size, num_classes, in_chans).macs


def params(genome: Genome, num_classes: int | None = None, in_chans: int = 3) -> int:
    """Parameters of the genome's network; arguments as `macs`."""
    return cost(genome, None, num_classes, in_chans).params


def cost(
    genome: Genome, input_size: int | Size | None = None, num_classes: int | None = None, in_chans: int = 3
) -> Cost:
    """MACs and parameters of the genome's network; arguments as `macs`."""
    frame = _frame(genome, input_size, num_classes, in_chans)
    total = frame.fixed
    for block, size in frame.blocks:
        total += lay_out(genome.cells[block.cell], block.in_channels, block.width, block.stride).cost(size)
    return total


@dataclass(frozen=True)
class _Frame:
    """Cost of stem, head and classifier, and every block with the size of its input."""

    fixed: Cost
    blocks: tuple[tuple[Block, Size], ...]


def _frame(genome: Genome, input_size: int | Size | None, num_classes: int | None, in_chans: int) -> _Frame:
    given = genome.input_size if input_size is None else input_size
    size = (given, given) if isinstance(given, int) else (int(given[0]), int(given[1]))
    if min(size) < 1:
        raise GemnetError(f"An image has at least one pixel a side, got {size}.")
    fixed, channels, size = _layers_cost(genome.stem, in_chans, size)
    blocks = []
    for block in genome.blocks():
        blocks.append((block, size))
        size = _shrunk(size, block.stride)
        channels = block.width
    head, channels, _ = _layers_cost(genome.head, channels, size)
    classes = genome.num_classes if num_classes is None else num_classes
    classifier = Cost(channels * classes, (channels + 1) * classes)
    return _Frame(fixed + head + classifier, tuple(blocks))


def _layers_cost(layers: tuple[LayerSpec, ...], channels: int, size: Size) -> tuple[Cost, int, Size]:
    total = Cost(0, 0)
    for layer in layers:
        width = layer.width or channels
        total += parse_operation(layer.op).cost(channels, width, size, layer.stride)
        channels, size = width, _shrunk(size, layer.stride)
    return total, channels, size


def _shrunk(size: Size, stride: int) -> Size:
    return -(-size[0] // stride), -(-size[1] // stride)


class CostModel:
    """Costs of whole batches of candidates: a cell each, in networks that differ by named discrete choices.

    Args:
        build: makes the genome of a cell and one value of each choice, as ``Template.genome`` does.
        vocabulary: the operations of the batches.
        choices: values of each choice, by the name of ``build``'s argument.
        input_size: side or (height, width) of the image; the genomes' by default.
        num_classes: classes; the genomes' by default.
        in_chans: channels of the image.
        cell: name of the searched cell in the genomes.
    """

    def __init__(
        self,
        build: Callable[..., Genome],
        vocabulary: Sequence[str],
        choices: Mapping[str, Sequence[Any]],
        input_size: int | Size | None = None,
        num_classes: int | None = None,
        in_chans: int = 3,
        cell: str = "cell",
    ) -> None:
        self.vocabulary = tuple(vocabulary)
        self.choices = {name: tuple(values) for name, values in choices.items()}
        self._operations = [parse_operation(op) for op in self.vocabulary]
        self._build, self._cell = build, cell
        self._image = (input_size, num_classes, in_chans)
        shape = tuple(len(values) for values in self.choices.values())
        # Rows: combinations of choices, each filled in when it is first asked for; then macs, params. Columns: per
        # operation, extra per operation beside the input only, adapter (stride and width), edge weights; of the tail
        # one for each number of nodes that the output reads.
        self._shape = shape
        self._known = np.zeros(math.prod(shape), dtype=np.bool_)
        self._linear = np.zeros((len(self._known), 2, 2 * len(self.vocabulary) + 4), dtype=np.int64)
        self._tail = np.zeros((len(self._known), 2, MAX_INNER_NODES + 1), dtype=np.int64)
        self._needs_positions = False
        # Every value of every choice once: what can't be built is to be found out now.
        self._fill(np.array([0], dtype=np.intp))
        for axis, values in enumerate(self.choices.values()):
            step = math.prod(shape[axis + 1 :])
            self._fill(np.arange(1, len(values), dtype=np.intp) * step)

    def _fill(self, rows: NDArray[np.intp]) -> None:
        """Computes the coefficients of combinations that were not asked for before."""
        # One operation that is surely there; its own cost is not used.
        placeholder = CellGraph(("identity",), frozenset({(0, 1), (1, 2)}))
        for row in np.unique(rows[~self._known[rows]]):
            places = np.unravel_index(row, self._shape) if self._shape else ()
            macro = {name: values[int(k)] for (name, values), k in zip(self.choices.items(), places, strict=True)}
            genome = self._build(placeholder, **macro)
            if self._cell not in genome.cells:
                raise GemnetError(f"The genome has no cell {self._cell!r}; it has {', '.join(genome.cells)}.")
            self._linear[row], self._tail[row] = self._coefficients(genome, self._cell, *self._image)
            self._known[row] = True
            self._needs_positions |= bool(
                self._linear[row][:, len(self.vocabulary) :].any() or (self._tail[row] != self._tail[row][:, :1]).any()
            )

    def macs(self, graphs: GraphBatch, macro: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """Multiply-adds of every candidate; int64 (n,).

        Args:
            graphs: the cells, n of them.
            macro: index of the value of each choice; integers (n, number of choices); may be None without choices.
        """
        return self.costs(graphs, macro)[0]

    def params(self, graphs: GraphBatch, macro: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """Parameters of every candidate; int64 (n,)."""
        return self.costs(graphs, macro)[1]

    def costs(
        self, graphs: GraphBatch, macro: NDArray[Any] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """MACs and parameters of every candidate; two int64 (n,)."""
        if graphs.vocabulary != self.vocabulary:
            raise GemnetError(f"The batch has the vocabulary {graphs.vocabulary}, expected {self.vocabulary}.")
        row = self._rows(len(graphs), macro)
        self._fill(row)
        features, outputs = self._features(graphs)
        linear, tail = self._linear[row], self._tail[row, :, outputs]
        if features.shape[1] < linear.shape[2]:
            linear = linear[:, :, : features.shape[1]]
        total = np.einsum("nkf,nf->nk", linear, features) + tail
        return total[:, 0], total[:, 1]

    def _rows(self, n: int, macro: NDArray[Any] | None) -> NDArray[np.intp]:
        """Number of each candidate's combination of choices."""
        rows: NDArray[np.intp] = np.zeros(n, dtype=np.intp)
        if not self.choices:
            return rows
        chosen = np.zeros(0) if macro is None else np.asarray(macro)
        if chosen.shape != (n, len(self.choices)):
            raise GemnetError(f"macro has the shape {chosen.shape}, expected {(n, len(self.choices))}.")
        for column, (name, values) in enumerate(self.choices.items()):
            index = chosen[:, column].astype(np.intp)
            if n and (index.min() < 0 or index.max() >= len(values)):
                raise GemnetError(f"macro choice {name!r} has indices beyond its {len(values)} values.")
            rows = rows * len(values) + index
        return rows

    def _features(self, graphs: GraphBatch) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """What costs are linear in, int64 (n, features), and how many nodes the output reads, at least 1."""
        n, width, kinds = len(graphs), graphs.width, len(self.vocabulary)
        absent = [FIRST_OP_CODE + k for k, op in enumerate(self._operations) if op.is_none]
        last = graphs.sizes.astype(np.uint32) - np.uint32(1)
        alive = np.uint32(1) << last
        for node in range(width - 2, -1, -1):  # nodes that reach the output without crossing a `none`
            reaches = (graphs.successors[:, node] & alive) != 0
            for code in absent:
                reaches &= graphs.ops[:, node] != code
            alive |= reaches.astype(np.uint32) << np.uint32(node)
        positions = np.arange(width, dtype=np.uint32)
        is_alive = (alive[:, None] >> positions & np.uint32(1)).astype(np.bool_)
        counts = np.empty((n, kinds), dtype=np.int64)
        for k in range(kinds):
            counts[:, k] = ((graphs.ops == FIRST_OP_CODE + k) & is_alive).sum(axis=1)
        if not self._needs_positions:
            return counts, np.zeros(n, dtype=np.intp)

        # Bit masks over nodes: who is read by an inner node, by at least one, by at least two.
        by_inner = np.zeros(n, dtype=np.uint32)
        once, twice = np.zeros(n, dtype=np.uint32), np.zeros(n, dtype=np.uint32)
        edges = np.zeros(n, dtype=np.int64)
        output_reads = np.zeros(n, dtype=np.intp)
        for node in range(width - 1):
            targets = np.where(is_alive[:, node], graphs.successors[:, node] & alive, np.uint32(0))
            if node:
                by_inner |= targets
            twice |= once & targets
            once |= targets
            edges += np.bitwise_count(targets)
            output_reads += (targets >> last & np.uint32(1)).astype(np.intp)
        inside = alive & ~(np.uint32(1) | (np.uint32(1) << last))
        of_input = graphs.successors[:, 0] & alive
        only_input = inside & ~by_inner
        alone = (only_input[:, None] >> positions & np.uint32(1)).astype(np.bool_)
        counts_alone = np.empty((n, kinds), dtype=np.int64)
        unable = {True: np.zeros(n, dtype=np.bool_), False: np.zeros(n, dtype=np.bool_)}
        for k, operation in enumerate(self._operations):
            counts_alone[:, k] = ((graphs.ops == FIRST_OP_CODE + k) & alone).sum(axis=1)
            for strides in (False, True):
                if not reads_input_itself(operation, strides, widens=True):
                    unable[strides] |= counts_alone[:, k] > 0
        output = np.uint32(1) << last
        shared = ((of_input & by_inner) != 0) | ((of_input & output) != 0) | (output_reads == 0)
        adapts = np.stack([shared | unable[False], shared | unable[True]], axis=1).astype(np.int64)
        weighs_output = output_reads > 1
        inner_edges = edges - output_reads
        single = np.bitwise_count(once & ~twice & inside).astype(np.int64)
        weights = np.stack([inner_edges - single, np.where(weighs_output, output_reads, 0)], axis=1)
        features = np.concatenate([counts, counts_alone, adapts, weights], axis=1)
        return features, np.maximum(output_reads, 1) - 1

    def _coefficients(
        self, genome: Genome, cell: str, input_size: int | Size | None, num_classes: int | None, in_chans: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        kinds = len(self.vocabulary)
        frame = _frame(genome, input_size, num_classes, in_chans)
        linear = np.zeros((2, 2 * kinds + 4), dtype=np.int64)
        tail = np.zeros((2, MAX_INNER_NODES + 1), dtype=np.int64)
        tail += _as_array(frame.fixed)[:, None]
        repeated = Counter((replace(block, stage=0), size) for block, size in frame.blocks)
        for (block, size), times in repeated.items():
            spec = genome.cells[block.cell]
            layout = lay_out(spec, block.in_channels, block.width, block.stride)
            if block.cell != cell:
                tail += times * _as_array(layout.cost(size))[:, None]
                continue
            inside = _shrunk(size, block.stride)
            strides, widens = block.stride != 1, layout.raw_channels != layout.inner
            for k, operation in enumerate(self._operations):
                if operation.is_none:
                    continue
                usual = _as_array(operation.cost(layout.inner, layout.inner, inside))
                linear[:, k] += times * usual
                if (strides or widens) and reads_input_itself(operation, strides, widens):
                    own = operation.cost(layout.raw_channels, layout.inner, size, block.stride)
                    linear[:, kinds + k] += times * (_as_array(own) - usual)
            if widens:
                adapter = parse_operation("conv1x1_bn").cost(layout.raw_channels, layout.inner, inside)
                linear[:, 2 * kinds + strides] += times * _as_array(adapter)
            if spec.aggregate == "sigmoid_weighted":
                linear[1, 2 * kinds + 2] += times
            if spec.output == "sigmoid_weighted":
                linear[1, 2 * kinds + 3] += times
            if spec.output == "concat":
                for reads in range(1, MAX_INNER_NODES + 2):
                    tail[:, reads - 1] += times * self._around(spec, block, layout.inner, layout.shortcut, size, reads)
            else:
                tail += times * self._around(spec, block, layout.inner, layout.shortcut, size, 1)[:, None]
        return linear, tail

    @staticmethod
    def _around(spec: CellSpec, block: Block, inner: int, shortcut: str, size: Size, reads: int) -> NDArray[np.int64]:
        """Cost of expansion, squeeze-excitation, projection and shortcut, when the output reads so many nodes."""
        inside = _shrunk(size, block.stride)
        joined = inner * (reads if spec.output == "concat" else 1)
        total = squeeze_cost(joined, spec.squeeze_width(joined))
        if spec.expand is not None:
            total += parse_operation(spec.expand).cost(block.in_channels, inner, size)
        if spec.project is not None:
            total += parse_operation(spec.project).cost(joined, block.width, inside)
        if shortcut not in ("none", "identity"):
            total += parse_operation(shortcut.removeprefix("pool_")).cost(block.in_channels, block.width, inside)
        return _as_array(total)


def _as_array(value: Cost) -> NDArray[np.int64]:
    return np.array(value, dtype=np.int64)
