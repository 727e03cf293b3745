"""Program: the deployed form of a cell: a few modules, and the order in which they read each other's results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gemnet.cell import shrunk, squeeze_cost
from gemnet.layers import Cost, Layer

INPUT = 0
"""The value that a program starts from."""


@dataclass(frozen=True)
class Instruction:
    """One step of a program.

    Args:
        layer: what is done; its kind is that of a layer, or ``se``, ``sum`` or ``concat``.
        reads: values read.
        writes: value written.
        reduction: the program's input is so many times larger than the values read.
        factors: of a sum: what each value is multiplied by.
        module: name of the module that does it; "" for sums and joins.
        fresh: whether the first value of a sum may be overwritten.
        release: values nobody reads after it.
        margin: pixels around the image that it writes for what reads them, in a chain that is padded once.
    """

    layer: Layer
    reads: tuple[int, ...]
    writes: int
    reduction: int = 1
    factors: tuple[float, ...] = ()
    module: str = ""
    fresh: bool = False
    release: tuple[int, ...] = ()
    margin: int = 0

    def cost(self, size: tuple[int, int]) -> Cost:
        """What it costs where the program's input is of ``size`` (height, width)."""
        at, layer = shrunk(size, self.reduction), self.layer
        each = layer.out_channels * math.prod(at)
        if layer.kind == "se":
            return squeeze_cost(layer.out_channels, layer.groups, at)
        if layer.kind == "concat":
            return Cost(traffic=2 * each, passes=1)
        if layer.kind == "sum":
            added, scaled = len(self.reads) - 1, self.factors[0] != 1
            return Cost(traffic=(3 * added + 2 * scaled) * each, passes=added + scaled)
        around = 2 * self.margin * layer.stride
        return layer.cost((at[0] + around, at[1] + around))


class Program(nn.Module):
    """A network's part for inference.

    Args:
        modules: by name, as the instructions call them.
        instructions: in order; the last one's value is the result.
    """

    def __init__(self, modules: Mapping[str, nn.Module], instructions: Sequence[Instruction]) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.instructions = tuple(instructions)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """What the trained module gives for ``x``, ``batch x channels x h x w``."""
        values = {INPUT: x}
        for step in self.instructions:
            read = [values[key] for key in step.reads]
            for key in step.release:
                del values[key]
            if step.module:
                x = self.get_submodule(step.module)(read[0])
            elif step.factors:
                x = _sum(read, step.factors, step.fresh)
            else:
                x = torch.cat(read, 1)
            values[step.writes] = x
        return x

    def extra_repr(self) -> str:
        """For printing."""
        return "\n".join(
            f"{step.writes} = {step.module or step.layer.kind}({', '.join(map(str, step.reads))})"
            for step in self.instructions
        )


def _sum(values: list[Tensor], factors: tuple[float, ...], fresh: bool) -> Tensor:
    total = values[0]
    if factors[0] != 1:
        total, fresh = total * factors[0], True
    for value, factor in zip(values[1:], factors[1:], strict=True):
        total = total.add_(value, alpha=factor) if fresh else torch.add(total, value, alpha=factor)
        fresh = True
    return total
