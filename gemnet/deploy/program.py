"""Program: the deployed form of a cell: a few modules, and the order in which they read each other's results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

INPUT = 0
"""The value that a program starts from."""


@dataclass(frozen=True)
class Instruction:
    """One step of a program.

    Args:
        reads: values read.
        writes: value written.
        module: name of the module that is applied to the one value read; "" for what is not one.
        factors: without a module, the values are added, each times its factor; empty for values that are joined.
        fresh: whether the first value read may be overwritten.
        release: values nobody reads after it.
    """

    reads: tuple[int, ...]
    writes: int
    module: str = ""
    factors: tuple[float, ...] = ()
    fresh: bool = False
    release: tuple[int, ...] = ()


class Program(nn.Module):
    """A network's part for inference.

    Args:
        modules: by name, as the instructions call them.
        instructions: in order; the last one's value is the result.
    """

    def __init__(self, modules: dict[str, nn.Module], instructions: Sequence[Instruction]) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.instructions = tuple(instructions)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """What the cell gives for ``x``."""
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
            f"{step.writes} = {step.module or ('sum' if step.factors else 'concat')}({', '.join(map(str, step.reads))})"
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
