"""Networks of the DARTS space, from their genotypes.

Source: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019 (arXiv 1806.09055), section 2 and
appendix A: a stack of cells of which those at one and at two thirds of the depth halve the resolution and double the
width. Auxiliary heads and drop path belong to the paper's training and are left out.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

import torch
from torch import nn

from gemnet.errors import GenomeError, nearest

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NODES = 4
CELLS = ("normal", "reduce")
Pairs = tuple[tuple[str, int], ...]
_FORM = (
    "the form is Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], "
    "reduce_concat=range(2, 6)) with eight pairs in each list"
)


@dataclass(frozen=True)
class Genotype:
    """A normal and a reduction cell.

    Args:
        normal, reduce: eight pairs each, two for each of the four nodes: an operation, and what it reads: 0 for the
            output of the cell before the last one, 1 for that of the last one, 2 + k for node k.

    Raises:
        GenomeError: another number of pairs, an unknown operation, or a node that reads a thing twice or a later node.

    Example:
        >>> pairs = "[('sep_conv_3x3', 0), ('skip_connect', 1)" + ", ('max_pool_3x3', 0), ('max_pool_3x3', 1)" * 3 + "]"
        >>> str(Genotype.parse(f"Genotype(normal={pairs}, reduce={pairs})"))[:40]
        "Genotype(normal=[('sep_conv_3x3', 0), ('s"
    """

    normal: Pairs
    reduce: Pairs

    def __post_init__(self) -> None:
        for name in CELLS:
            pairs = getattr(self, name)
            if len(pairs) != 2 * NODES:
                raise GenomeError(f"Cell {name} has {len(pairs)} operations; {_FORM}.")
            for op, _ in pairs:
                if op not in OPERATIONS:
                    raise GenomeError(f"Unknown operation {op!r} in {name}.{nearest(str(op), OPERATIONS)}")
            for node in range(NODES):
                reads = [read for _, read in pairs[2 * node : 2 * node + 2]]
                if reads[0] == reads[1] or not 0 <= min(reads) <= max(reads) <= node + 1:
                    raise GenomeError(
                        f"Node {node + 2} of {name} reads {reads}; it reads two different ones of 0 to {node + 1}."
                    )

    @classmethod
    def parse(cls, text: str) -> Genotype:
        """Reads a genotype as DARTS prints it; nothing in it is run.

        Raises:
            GenomeError: another form, or as for the class.
        """
        try:
            call = ast.parse(text.strip(), mode="eval").body
            if not isinstance(call, ast.Call) or call.args:
                raise ValueError
            given = {item.arg: item.value for item in call.keywords}
            cells = {
                name: tuple((str(op), int(read)) for op, read in ast.literal_eval(given.pop(name))) for name in CELLS
            }
            concats = [_listed(given.pop(f"{name}_concat")) for name in CELLS if f"{name}_concat" in given]
            if given:
                raise ValueError
        except (SyntaxError, ValueError, TypeError, KeyError, MemoryError, RecursionError):
            raise GenomeError(f"{text[:80]!r} is no genotype; {_FORM}.") from None
        if any(concat != [2, 3, 4, 5] for concat in concats):
            raise GenomeError("All four nodes make a cell's output: normal_concat and reduce_concat are range(2, 6).")
        return cls(**cells)

    def __str__(self) -> str:
        cells = (f"{name}={list(getattr(self, name))}, {name}_concat=range(2, {NODES + 2})" for name in CELLS)
        return f"Genotype({', '.join(cells)})"


def _listed(node: ast.expr) -> list[int]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        return list(range(*(ast.literal_eval(argument) for argument in node.args)))
    return list(ast.literal_eval(node))


class DARTSNetwork(nn.Module):
    """The network of a genotype: images (n, in_chans, height, width) to logits (n, num_classes).

    Args:
        genotype: its cells.
        num_classes, in_chans: classes told apart, and channels of an image.
        width: channels of a node in the first cells; 36 in the paper's CIFAR-10 network.
        layers: number of cells; 20 there.
    """

    def __init__(
        self, genotype: Genotype, num_classes: int = 10, in_chans: int = 3, width: int = 36, layers: int = 20
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_chans, 3 * width, 3, padding=1, bias=False), nn.BatchNorm2d(3 * width))
        before, last, halved = 3 * width, 3 * width, False
        cells = []
        for layer in range(layers):
            reduces = layer in (layers // 3, 2 * layers // 3)
            width *= 2 if reduces else 1
            pairs = genotype.reduce if reduces else genotype.normal
            cells.append(_Cell(pairs, before, last, width, reduces, halved))
            before, last, halved = last, NODES * width, reduces
        self.cells = nn.ModuleList(cells)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        before = last = self.stem(images)
        for cell in self.cells:
            before, last = last, cell(before, last)
        return self.head(last)


class _Cell(nn.Module):
    """One cell; ``halved`` says that the cell before the last one had twice the resolution."""

    def __init__(self, pairs: Pairs, before: int, last: int, width: int, reduces: bool, halved: bool) -> None:
        super().__init__()
        self.reads = [read for _, read in pairs]
        self.first = _Halve(before, width) if halved else _conv(before, width)
        self.second = _conv(last, width)
        self.ops = nn.ModuleList(_operation(op, width, 2 if reduces and read < 2 else 1) for op, read in pairs)

    def forward(self, before: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        states = [self.first(before), self.second(last)]
        for node in range(NODES):
            one, two = 2 * node, 2 * node + 1
            states.append(self.ops[one](states[self.reads[one]]) + self.ops[two](states[self.reads[two]]))
        return torch.cat(states[2:], dim=1)


class _Halve(nn.Module):
    """Half the resolution by two 1x1 convolutions of stride 2, the second of which begins at the next pixel."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(before, width // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(before, width - width // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(x)
        return self.norm(torch.cat([self.even(x), self.odd(nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:])], dim=1))


class _Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0


def _conv(before: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width))


def _depthwise(width: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    """Activation, depthwise and 1x1 convolution, norm."""
    pad = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(width, width, kernel, stride, pad, dilation, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
    ]


def _operation(name: str, width: int, stride: int) -> nn.Module:
    if name == "none":
        return _Zero(stride)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else _Halve(width, width)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, 1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    kernel = int(name[-1])
    if name.startswith("dil"):
        return nn.Sequential(*_depthwise(width, kernel, stride, 2))
    return nn.Sequential(*_depthwise(width, kernel, stride), *_depthwise(width, kernel, 1))
