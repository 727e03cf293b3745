"""What a network costs: multiply-adds, parameters, memory traffic and passes, of one genome or of thousands of
candidates, without building.

MACs, traffic and passes are those of the deployed network (`gemnet.deploy`), as papers state them for networks that are
trained in another form than they are used in; parameters are those of the trained one, which a file of weights holds.
MACs are multiply-adds of convolutions and linear layers at a stated input size; activations, pools and sums are none.

In a fixed template the cost of a network in which only norms are folded is linear in how often each operation occurs in
the cell (and how often beside nothing but the cell's input, where stride or width change there), so a batch of
candidates is a product of counts and coefficients. Candidates in which more may collapse are laid out one by one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemnet.cell import CellLayout, cost_of_reading, lay_out, reads_input_itself, shrunk
from gemnet.cell_graph import FIRST_OP_CODE, MAX_INNER_NODES, CellGraph, GraphBatch
from gemnet.collapse import plan, plan_layers
from gemnet.errors import GemnetError
from gemnet.genome import Block, CellSpec, Genome, LayerSpec
from gemnet.layers import Cost, changed
from gemnet.operations import parse_operation
from gemnet.program import Instruction

Size = tuple[int, int]
PARTS = len(Cost._fields)
_REMEMBERED = 200_000
"""Candidates laid out whose costs are kept."""
CHANGES = ((False, True), (True, True), (True, False))
"""What happens to the input of a DAG that does not keep its size: (strides, widens)."""


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
    """Everything the genome's network costs; arguments as `macs`."""
    frame = _frame(genome, input_size, num_classes, in_chans)
    trained = frame.fixed + _cost_as_trained(genome, frame)
    return (frame.fixed + _cost_as_run(genome, frame))._replace(params=trained.params)


def trained_cost(
    genome: Genome, input_size: int | Size | None = None, num_classes: int | None = None, in_chans: int = 3
) -> Cost:
    """What the genome's network costs with its cells as they are trained, not deployed; arguments as `macs`."""
    frame = _frame(genome, input_size, num_classes, in_chans)
    return frame.fixed + _cost_as_trained(genome, frame)


def _cost_as_trained(genome: Genome, frame: _Frame) -> Cost:
    """Cost of all cells in the form in which they are trained."""
    total = Cost()
    for (block, size), times in _repeated(frame).items():
        own = lay_out(genome.cells[block.cell], block.in_channels, block.width, block.stride).cost(size)
        total += Cost(*(times * part for part in own))
    return total


def _cost_as_run(genome: Genome, frame: _Frame) -> Cost:
    """Cost of all cells, parameters left out."""
    plans = {name: _Plans(spec, genome.activation) for name, spec in genome.cells.items()}
    total = Cost()
    for (block, size), times in _repeated(frame).items():
        total += Cost(*(times * part for part in plans[block.cell].cost(block, size)))
    return total


class _Plans:
    """Costs of the blocks that a cell makes up as deployed; blocks that differ in widths alone are planned once.

    Args:
        spec: the cell.
        activation: what ``act`` means.
    """

    def __init__(self, spec: CellSpec, activation: str) -> None:
        self.spec, self.activation = spec, activation
        self._parts = lay_out(spec, 8, 8, 1).joined // spec.inner_width(8, 8) if spec.output == "concat" else 1
        self._known: dict[tuple[int, ...], tuple[tuple[int, ...], tuple[Instruction, ...]]] = {}

    def cost(self, block: Block, size: Size) -> Cost:
        """Cost of a block on an input of ``size``, parameters left out."""
        spec = self.spec
        inner = spec.inner_width(block.in_channels, block.width)
        joined = inner * self._parts
        widths = (block.in_channels, inner, block.width, joined, spec.squeeze_width(joined))
        alike = (block.stride, *(widths.index(width) for width in widths))
        old, steps = self._known.get(alike, ((), ()))
        if not steps:
            old, steps = widths, plan(lay_out(spec, block.in_channels, block.width, block.stride), self.activation)
            groups = {step.layer.groups for step in steps if step.layer.groups not in (1, step.layer.in_channels)}
            # Groups of some channels each are as many as go into the width; whether maps of one channel and of all go
            # together depends on the width where that is next to nothing.
            if groups <= {widths[-1]} and min(widths[:-1]) >= 8:
                self._known[alike] = widths, steps
        new = {1: 1, **dict(zip(old, widths, strict=True))}
        total = Cost()
        for step in steps:
            layer = step.layer
            if old != widths:
                channels = (new[layer.in_channels], new[layer.out_channels])
                layer = changed(layer, in_channels=channels[0], out_channels=channels[1], groups=new[layer.groups])
                step = changed(step, layer=layer)
            total += step.cost(size)
        return total._replace(params=0)


def _as_run(steps: Iterable[Instruction], size: Size, params: int) -> Cost:
    """Cost of a program, with the parameters of what it was made of."""
    return sum((step.cost(size) for step in steps), Cost())._replace(params=params)


def _repeated(frame: _Frame) -> Counter[tuple[Block, Size]]:
    """How often each block occurs with the same sizes."""
    return Counter((replace(block, stage=0), size) for block, size in frame.blocks)


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
        size = shrunk(size, block.stride)
        channels = block.width
    head, channels, size = _layers_cost(genome.head, channels, size)
    classes = genome.num_classes if num_classes is None else num_classes
    pool = Cost(traffic=channels * (math.prod(size) + 1), passes=1)
    classifier = Cost(channels * classes, (channels + 1) * classes, channels + classes, 1) if classes else Cost()
    return _Frame(fixed + head + pool + classifier, tuple(blocks))


@lru_cache(maxsize=1024)
def _layers_cost(layers: tuple[LayerSpec, ...], channels: int, size: Size) -> tuple[Cost, int, Size]:
    total = Cost()
    for layer in layers:
        width = layer.width or channels
        operation = parse_operation(layer.op)
        steps = plan_layers(operation.layers(channels, width, layer.stride))
        total += _as_run(steps, size, operation.cost(channels, width, size, layer.stride).params)
        channels, size = width, shrunk(size, layer.stride)
    return total, channels, size


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
        self._laid_out: dict[tuple[bytes, int], Cost] = {}
        self._build, self._cell = build, cell
        self._image = (input_size, num_classes, in_chans)
        shape = tuple(len(values) for values in self.choices.values())
        # Rows: combinations of choices, each filled in when it is first asked for; then the parts of a cost. Columns:
        # per operation, extra per operation beside the input only, adapter for each of `CHANGES`, what inner
        # nodes with several inputs read, and how many such nodes there are; of the tail one for each number of nodes
        # that the output reads.
        self._shape = shape
        self._known = np.zeros(math.prod(shape), dtype=np.bool_)
        self._linear_around = False  # in any combination so far
        self._linear = np.zeros((len(self._known), PARTS, 2 * len(self.vocabulary) + len(CHANGES) + 2), dtype=np.int64)
        self._tail = np.zeros((len(self._known), PARTS, MAX_INNER_NODES + 1), dtype=np.int64)
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
            genome = self._genome(placeholder, int(row))
            if self._cell not in genome.cells:
                raise GemnetError(f"The genome has no cell {self._cell!r}; it has {', '.join(genome.cells)}.")
            self._linear[row], self._tail[row], linear_around = self._coefficients(genome)
            self._linear_around |= linear_around
            self._known[row] = True
            linear, tail = self._linear[row, :2], self._tail[row, :2]
            self._needs_positions |= bool(linear[:, len(self.vocabulary) :].any() or (tail != tail[:, :1]).any())

    def macs(self, graphs: GraphBatch, macro: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """Multiply-adds of every candidate; int64 (n,).

        Args:
            graphs: the cells, n of them.
            macro: index of the value of each choice; integers (n, number of choices); may be None without choices.
        """
        return self.macs_and_params(graphs, macro)[:, 0]

    def params(self, graphs: GraphBatch, macro: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """Parameters of every candidate; int64 (n,)."""
        return self.macs_and_params(graphs, macro)[:, 1]

    def macs_and_params(self, graphs: GraphBatch, macro: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """Both of every candidate, in the time that either takes; int64 (n, 2)."""
        return self._sum(graphs, macro, 2, self._needs_positions)

    def costs(self, graphs: GraphBatch, macro: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """Everything every candidate costs; int64 (n, 4), columns as in `Cost`.

        MACs and parameters are exact. So are traffic and passes of candidates that are laid out one by one; in others
        they are near: identities, `none` and dead nodes count as nodes that are run, and factors that no weights can
        take do not count.
        """
        return self._sum(graphs, macro, PARTS, positions=True)

    def _sum(self, graphs: GraphBatch, macro: NDArray[Any] | None, parts: int, positions: bool) -> NDArray[np.int64]:
        """The first ``parts`` parts of every candidate's cost."""
        if graphs.vocabulary != self.vocabulary:
            raise GemnetError(f"The batch has the vocabulary {graphs.vocabulary}, expected {self.vocabulary}.")
        row = self._rows(len(graphs), macro)
        self._fill(row)
        features, outputs = self._features(graphs, positions or self._needs_positions)
        linear, tail = self._linear[:, :parts, : features.shape[1]][row], self._tail[row, :parts, outputs]
        total: NDArray[np.int64] = np.einsum("nkf,nf->nk", linear, features) + tail
        for each in np.flatnonzero(self._may_collapse(graphs)).tolist():
            own = self._of_one(graphs, each, int(row[each]))
            total[each, 0] = own.macs
            total[each, 2:] = own[2:parts]
        return total

    def _of_one(self, graphs: GraphBatch, place: int, row: int) -> Cost:
        """Cost of the network of one candidate, laid out; parameters are not those of its cells."""
        key = (graphs.ops[place].tobytes() + graphs.successors[place].tobytes(), row)
        found = self._laid_out.get(key)
        if found is None:
            if len(self._laid_out) >= _REMEMBERED:
                self._laid_out.clear()
            genome = self._genome(graphs.graph(place), row)
            frame = _frame(genome, *self._image)
            found = frame.fixed + _cost_as_run(genome, frame)
            self._laid_out[key] = found
        return found

    def _genome(self, cell: CellGraph, row: int) -> Genome:
        """The network of a cell and a combination of choices."""
        places = np.unravel_index(row, self._shape) if self._shape else ()
        macro = {name: values[int(k)] for (name, values), k in zip(self.choices.items(), places, strict=True)}
        return self._build(cell, **macro)

    def _may_collapse(self, graphs: GraphBatch) -> NDArray[np.bool_]:
        """Of which candidates the MACs may be others than with norms folded alone; bool (n,)."""
        alive = self._alive(graphs)
        nodes = np.arange(graphs.width, dtype=np.uint32)
        is_alive = (alive[:, None] >> nodes & np.uint32(1)).astype(np.bool_)

        def where(wanted: Iterable[bool]) -> NDArray[np.bool_]:
            codes = [FIRST_OP_CODE + k for k, yes in enumerate(wanted) if yes]
            found: NDArray[np.bool_] = np.isin(graphs.ops, codes) & is_alive
            return found

        passing = where(operation.is_identity for operation in self._operations)
        windows = where(operation.collapse == "window" for operation in self._operations)
        collapsing = where(operation.collapse == "any" for operation in self._operations)
        may: NDArray[np.bool_] = np.asarray(collapsing.any(axis=1), dtype=np.bool_)
        may |= self._linear_around | ~where(not operation.is_identity for operation in self._operations).any(axis=1)
        rows = np.flatnonzero(~may & (windows.sum(axis=1) > 1))
        # Windows are added where they read the same and are read by the same, identities read past.
        one, inside = np.uint64(1), alive[rows, None]
        direct = np.where(is_alive[rows], graphs.take(rows).predecessors() & inside, 0).astype(np.uint64)
        starved = is_alive[rows] & (direct == 0)  # nodes that read zeros, in the shape of the cell's input
        sources, readers = np.zeros_like(direct), np.zeros_like(direct)
        for node in range(1, graphs.width):
            for earlier in range(node):
                read = np.where(passing[rows, earlier], sources[:, earlier], one << np.uint64(earlier))
                sources[:, node] |= np.where(direct[:, node] >> np.uint64(earlier) & one, read, 0)
            own = np.where(passing[rows, node], 0, one << np.uint64(node))
            for earlier in range(node):
                readers[:, earlier] |= np.where(sources[:, node] >> np.uint64(earlier) & one, own, 0)
        alike = np.where(windows[rows], readers << np.uint64(32) | sources, nodes.astype(np.uint64))
        alike.sort(axis=1)
        may[rows] = (alike[:, 1:] == alike[:, :-1]).any(axis=1) | starved[:, 1:].any(axis=1)
        return may

    def _alive(self, graphs: GraphBatch) -> NDArray[np.uint32]:
        """Bit masks of the nodes that reach the output without crossing a `none`; (n,)."""
        absent = [FIRST_OP_CODE + k for k, op in enumerate(self._operations) if op.is_none]
        alive: NDArray[np.uint32] = np.uint32(1) << (graphs.sizes.astype(np.uint32) - np.uint32(1))
        for node in range(graphs.width - 2, -1, -1):
            reaches = (graphs.successors[:, node] & alive) != 0
            for code in absent:
                reaches &= graphs.ops[:, node] != code
            alive |= reaches.astype(np.uint32) << np.uint32(node)
        return alive

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

    def _features(self, graphs: GraphBatch, positions: bool) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """What costs are linear in, int64 (n, features), and how many nodes the output reads beyond the first.

        Without ``positions`` only how often each operation occurs.
        """
        n, width, kinds = len(graphs), graphs.width, len(self.vocabulary)
        last = graphs.sizes.astype(np.uint32) - np.uint32(1)
        alive = self._alive(graphs)
        nodes = np.arange(width, dtype=np.uint32)
        is_alive = (alive[:, None] >> nodes & np.uint32(1)).astype(np.bool_)
        counts = np.empty((n, kinds), dtype=np.int64)
        for k in range(kinds):
            counts[:, k] = ((graphs.ops == FIRST_OP_CODE + k) & is_alive).sum(axis=1)
        if not positions:
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
        alone = (only_input[:, None] >> nodes & np.uint32(1)).astype(np.bool_)
        counts_alone = np.empty((n, kinds), dtype=np.int64)
        unable = [np.zeros(n, dtype=np.bool_) for _ in CHANGES]
        for k, operation in enumerate(self._operations):
            counts_alone[:, k] = ((graphs.ops == FIRST_OP_CODE + k) & alone).sum(axis=1)
            for change, (strides, widens) in enumerate(CHANGES):
                if not reads_input_itself(operation, strides, widens):
                    unable[change] |= counts_alone[:, k] > 0
        output = np.uint32(1) << last
        shared = ((of_input & by_inner) != 0) | ((of_input & output) != 0) | (output_reads == 0)
        adapts = np.stack([shared | some for some in unable], axis=1).astype(np.int64)
        inner_edges = edges - output_reads
        single = np.bitwise_count(once & ~twice & inside).astype(np.int64)
        several = np.bitwise_count(twice & inside).astype(np.int64)
        readers = np.stack([inner_edges - single, several], axis=1)
        features = np.concatenate([counts, counts_alone, adapts, readers], axis=1)
        return features, np.maximum(output_reads, 1) - 1

    def _coefficients(self, genome: Genome) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
        """A row of the coefficients, and whether a convolution without activation precedes searched cells' nodes."""
        kinds = len(self.vocabulary)
        frame = _frame(genome, *self._image)
        linear_around = False
        linear = np.zeros((PARTS, 2 * kinds + len(CHANGES) + 2), dtype=np.int64)
        tail = np.zeros((PARTS, MAX_INNER_NODES + 1), dtype=np.int64)
        tail += _as_array(frame.fixed)[:, None]
        for (block, size), times in _repeated(frame).items():
            layout = lay_out(genome.cells[block.cell], block.in_channels, block.width, block.stride)
            if block.cell != self._cell:
                own = _Plans(layout.spec, genome.activation).cost(block, size)
                tail += times * _as_array(own._replace(params=layout.cost(size).params))[:, None]
                continue
            inside = shrunk(size, block.stride)
            strides, widens = block.stride != 1, layout.raw_channels != layout.inner
            linear_around |= widens or _ends_linear(layout.spec.expand)
            for k, operation in enumerate(self._operations):
                if operation.is_none:
                    continue
                usual = _as_array(operation.cost(layout.inner, layout.inner, inside))
                linear[:, k] += times * usual
                if (strides or widens) and reads_input_itself(operation, strides, widens):
                    own = operation.cost(layout.raw_channels, layout.inner, size, block.stride)
                    linear[:, kinds + k] += times * (_as_array(own) - usual)
            if strides or widens:
                column = 2 * kinds + CHANGES.index((strides, widens))
                linear[:, column] += times * _as_array(layout.cost_of_adapting(size))
            # From two inputs on, reading is linear in their number.
            two, three = (self._reading(layout, layout.spec.aggregate, reads, inside) for reads in (2, 3))
            linear[:, -2] += times * (three - two)
            linear[:, -1] += times * (two - 2 * (three - two))
            two, three = (self._reading(layout, layout.spec.output, reads, inside) for reads in (2, 3))
            tail[:, 1:] += times * (two[:, None] + (three - two)[:, None] * np.arange(MAX_INNER_NODES))
            if layout.spec.output == "concat":
                for reads in range(1, MAX_INNER_NODES + 2):
                    tail[:, reads - 1] += times * _as_array(layout.cost_around(size, reads))
            else:
                tail += times * _as_array(layout.cost_around(size, 1))[:, None]
        return linear, tail, linear_around

    @staticmethod
    def _reading(layout: CellLayout, how: str, reads: int, size: Size) -> NDArray[np.int64]:
        return _as_array(cost_of_reading(how, reads, layout.inner, size))


def _ends_linear(operation: str | None) -> bool:
    """Whether what an operation writes is linear in something, so that what reads it may be one with it."""
    return operation is not None and parse_operation(operation).layers(8, 8)[-1].is_linear


def _as_array(value: Cost) -> NDArray[np.int64]:
    return np.array(value, dtype=np.int64)
