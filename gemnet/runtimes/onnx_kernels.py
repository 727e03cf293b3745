"""What onnxruntime makes of a deployed network: which sums go into convolutions, and what leaves its blocked layout.

On a CPU onnxruntime (1.32) keeps images in blocks of sixteen channels (eight without AVX-512), in which its
convolutions run. A sum goes into the convolution that writes one of its values, if nobody else reads that; some
activations likewise. Pools and joins stay in blocks only where their channels fill them, the product of a
squeeze-excitation never; where a value is read in the other form its memory is reordered. So what a network takes can
be counted without one being built.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gemnet.cell import lay_out, shrunk
from gemnet.collapse import plan, plan_layers
from gemnet.genome import Genome, LayerSpec
from gemnet.layers import ACTIVATIONS, Layer
from gemnet.operations import parse_operation
from gemnet.program import INPUT, Instruction

BLOCK = 8 if torch.backends.cpu.get_cpu_capability() == "AVX2" else 16
"""Channels that are kept together: as many as fill a vector register of this processor."""
ALIGNED = 4
"""Convolutions of channels that are no multiple of it don't run in blocks."""

FUSED = ("relu", "relu6", "hswish")
"""Activations that are computed along with the convolution before them."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Kernel:
    """One kernel that runs.

    Args:
        layer: what is done; its kind is that of a step, or ``reorder``.
        size: (height, width) of what it writes.
        blocked: whether it runs in blocks of channels.
        sums: whether a convolution adds another value to what it writes.
        activation: computed along with a convolution; "" for none.
    """

    layer: Layer
    size: Size
    blocked: bool
    sums: bool = False
    activation: str = ""

    @property
    def written(self) -> int:
        """Numbers that it writes, with those that fill up blocks."""
        return math.prod(self.size) * (filled(self.layer.out_channels) if self.blocked else self.layer.out_channels)


def filled(channels: int) -> int:
    """Channels filled up to whole blocks."""
    return -(-channels // BLOCK) * BLOCK


class Placed(NamedTuple):
    """A step of a whole network: what it does, the values it reads (0: the images, n: the n-th step's), their size."""

    step: Instruction
    reads: tuple[int, ...]
    size: Size


class Operator(NamedTuple):
    """Likewise an operator of the file that is written, whose sums are of two values."""

    layer: Layer
    reads: tuple[int, ...]
    size: Size


def steps_of(genome: Genome, in_chans: int = 3) -> list[Placed]:
    """The steps of a genome's deployed network between the images and the global pool."""
    found: list[Placed] = []
    size, channels, value = (genome.input_size, genome.input_size), in_chans, 0

    def add(steps: Iterable[Instruction]) -> None:
        nonlocal value
        known = {INPUT: value}
        for step in steps:
            reads = tuple(known[key] for key in step.reads)
            if step.factors == (1.0,):  # nothing is done
                value = reads[0]
            else:
                found.append(Placed(step, reads, shrunk(size, step.reduction)))
                value = len(found)
            known[step.writes] = value

    def run(layers: Sequence[LayerSpec]) -> None:
        nonlocal size, channels
        for each in layers:
            width = each.width or channels
            add(plan_layers(parse_operation(each.op).layers(channels, width, each.stride, 1, genome.activation)))
            size, channels = shrunk(size, each.stride), width

    run(genome.stem)
    planned: dict[tuple[str, int, int, int], tuple[Instruction, ...]] = {}  # blocks of a stage are alike
    for block in genome.blocks():
        key = (block.cell, block.in_channels, block.width, block.stride)
        if key not in planned:
            planned[key] = plan(lay_out(genome.cells[block.cell], *key[1:]), genome.activation)
        add(planned[key])
        size, channels = shrunk(size, block.stride), block.width
    run(genome.head)
    return found


def kernels_of(steps: Sequence[Placed]) -> list[Kernel]:
    """The kernels of a deployed network between the images and the global pool.

    Args:
        steps: as `steps_of` gives them.
    """
    operators, last = _operators(steps)
    readers = Counter(value for each in operators for value in each.reads)
    readers[last] += 1  # the global pool
    layout = _Layout(readers)
    for value, each in enumerate(operators, 1):
        layout.run(value, each)
    return layout.kernels


def _operators(steps: Sequence[Placed]) -> tuple[list[Operator], int]:
    """Operators as they are written, and the value that the last step writes.

    A factor is a convolution, and what is added twice is added once.
    """
    found: list[Operator] = []
    values, sums = {0: 0}, dict[tuple[int, int], int]()

    def add(layer: Layer, reads: tuple[int, ...], size: Size) -> int:
        found.append(Operator(layer, reads, size))
        return len(found)

    for number, (step, reads, size) in enumerate(steps, 1):
        layer, read = step.layer, tuple(values[each] for each in reads)
        if layer.kind != "sum":
            values[number] = add(layer, read, size)
            continue
        factor = replace(layer, kind="conv", groups=layer.out_channels)
        terms = [
            each if times == 1 else add(factor, (each,), size) for each, times in zip(read, step.factors, strict=True)
        ]
        total = terms[0]
        for term in terms[1:]:
            pair = (total, term)
            if pair not in sums:
                sums[pair] = add(layer, pair, size)
            total = sums[pair]
        values[number] = total
    return found, values[len(steps)]


COUNTS = (
    "window MACs",
    "1x1 MACs",
    "depthwise MACs",
    "window writes",
    "1x1 writes",
    "depthwise writes",
    "weights",
    "pools",
    "pools in rows",
    "sums",
    "products",
    "squeeze-excitations",
    "hard-swish",
    "reorders",
    "kernels",
)
"""What `count_kernels` counts: multiply-adds, numbers that kernels write or have as weights, and how often one runs."""


def count_kernels(kernels: Iterable[Kernel]) -> NDArray[np.float64]:
    """What is paid for in a deployed network, finer than its sums of multiply-adds and traffic; one of each `COUNTS`.

    Args:
        kernels: as `kernels_of` gives them.
    """
    found = dict.fromkeys(COUNTS, 0.0)
    for kernel in kernels:
        layer, written = kernel.layer, float(kernel.written)
        found["kernels"] += 1
        if "hswish" in (layer.kind, kernel.activation):
            found["hard-swish"] += written
        if layer.kind == "conv":
            depthwise = 1 < layer.groups == layer.in_channels
            reads = (layer.in_channels if depthwise else filled(layer.in_channels)) // layer.groups
            kind = "depthwise" if depthwise else "1x1" if layer.kernel == 1 else "window"
            found[f"{kind} MACs"] += written * reads * layer.kernel**2
            found[f"{kind} writes"] += written
            found["weights"] += layer.out_channels * layer.in_channels // layer.groups * layer.kernel**2
        elif layer.kind.endswith("_pool"):
            found["pools" if kernel.blocked else "pools in rows"] += written * layer.kernel**2
        elif layer.kind in ("sum", "concat"):
            found["sums"] += written
        elif layer.kind == "se":
            found["products"] += written
            found["squeeze-excitations"] += 1
        elif layer.kind == "reorder":
            found["reorders"] += written
    return np.array(list(found.values()))


class _Layout:
    """Follows values through a network: in which form they are there, and which kernel may still do more.

    Args:
        readers: how many operators read a value.
    """

    def __init__(self, readers: Counter[int]) -> None:
        self.kernels: list[Kernel] = []
        self._readers = readers
        self._forms: dict[int, set[bool]] = {0: {False}}
        self._writer: dict[int, int] = {}

    def run(self, value: int, operator: Operator) -> None:
        """Notes the kernels that an operator takes."""
        layer, reads, size = operator
        if layer.kind == "conv":
            self._convolve(value, layer, reads[0], size)
        elif layer.kind == "sum":
            self._add(value, operator)
        elif layer.kind in ACTIVATIONS:
            place = self._open(reads[0]) if layer.kind in FUSED else None
            if place is None:
                self._write(value, operator, self._written_in_blocks(reads))
            else:
                self._extend(value, place, replace(self.kernels[place], activation=layer.kind))
        else:
            joins = layer.kind == "concat"
            fills = layer.in_channels // len(reads) % BLOCK == 0
            blocked = layer.kind != "se" and fills and (not joins or self._written_in_blocks(reads))
            self._write(value, operator, blocked)

    def _convolve(self, value: int, layer: Layer, read: int, size: Size) -> None:
        each = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        few = layer.groups == 1 and layer.in_channels < BLOCK  # it reads rows and writes blocks
        if layer.groups == 1 or each == (1, 1):
            blocked = layer.out_channels % ALIGNED == 0 and (few or layer.in_channels % ALIGNED == 0)
        else:
            blocked = each[0] % BLOCK == 0 and each[1] % BLOCK == 0
        self._bring(read, blocked and not few)
        self._write(value, Operator(layer, (), size), blocked)

    def _add(self, value: int, operator: Operator) -> None:
        blocked = self._written_in_blocks(operator.reads)
        for each in operator.reads:
            place = self._open(each)
            if blocked and place is not None and not self.kernels[place].sums:
                self._extend(value, place, replace(self.kernels[place], sums=True))
                return
        self._write(value, operator, blocked)

    def _written_in_blocks(self, values: Sequence[int]) -> bool:
        """Whether all these are: what is only read so, after a reorder, is not."""
        return all(each in self._writer and self.kernels[self._writer[each]].blocked for each in values)

    def _open(self, value: int) -> int | None:
        """The convolution that writes a value which nobody else reads, before any activation."""
        place = self._writer.get(value)
        if place is None or self._readers[value] != 1:
            return None
        return place if self.kernels[place].layer.kind == "conv" and not self.kernels[place].activation else None

    def _extend(self, value: int, place: int, kernel: Kernel) -> None:
        self.kernels[place] = kernel
        self._writer[value] = place
        self._forms[value] = {self.kernels[place].blocked}

    def _write(self, value: int, operator: Operator, blocked: bool) -> None:
        for each in operator.reads:
            self._bring(each, blocked)
        self._writer[value] = len(self.kernels)
        self._forms[value] = {blocked}
        self.kernels.append(Kernel(operator.layer, shrunk(operator.size, operator.layer.stride), blocked))

    def _bring(self, value: int, blocked: bool) -> None:
        """Has a value in the form in which it is read."""
        forms = self._forms[value]
        if blocked in forms or value == 0:
            return
        forms.add(blocked)
        writer = self.kernels[self._writer[value]]
        channels = writer.layer.out_channels
        self.kernels.append(Kernel(Layer("reorder", "reorder", channels, channels), writer.size, True))
