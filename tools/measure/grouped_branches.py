"""Whether branches of equal window train faster as one grouped convolution, with one norm over all of them.

    python tools/measure/grouped_branches.py [--batch-size 64]

Depthwise 3x3 convolutions with norm that read one image and are summed: one by one, as cells run them, and as one
convolution of as many times the channels, whose result is folded and summed. Forward and backward, channels_last,
float32, one thread, in turns; medians of CPU time. Where the share is above 1, grouping is slower.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gemnet.operations import parse_operation

SHAPES = ((2, 32, 32), (3, 32, 32), (2, 64, 16), (3, 64, 16), (2, 128, 8))
"""Branches, channels and side of the image."""


class OneByOne(nn.Module):
    """A sum of branches."""

    def __init__(self, branches: int, channels: int) -> None:
        super().__init__()
        operation = parse_operation("dw3x3_bn")
        self.branches = nn.ModuleList([operation.build(channels, channels) for _ in range(branches)])

    def forward(self, x: Tensor) -> Tensor:
        """``batch x channels x h x w`` to the same."""
        first, *others = (branch(x) for branch in self.branches)
        for each in others:
            first = first + each
        return first


class Grouped(nn.Module):
    """The same as one convolution and one norm."""

    def __init__(self, branches: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, branches * channels, 3, 1, 1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(branches * channels)

    def forward(self, x: Tensor) -> Tensor:
        """``batch x channels x h x w`` to the same."""
        return self.bn(self.conv(x)).unflatten(1, (x.shape[1], -1)).sum(2)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("branches channels side  one by one ms  grouped")
    for branches, channels, side in SHAPES:
        x = torch.randn(options.batch_size, channels, side, side).to(memory_format=torch.channels_last)
        x.requires_grad_()
        forms = [form(branches, channels).to(memory_format=torch.channels_last) for form in (OneByOne, Grouped)]
        took: tuple[list[float], list[float]] = ([], [])
        for _ in range(options.rounds):
            for form, seconds in zip(forms, took, strict=True):
                started = time.process_time()
                form(x).sum().backward()
                seconds.append(time.process_time() - started)
        apart, together = (median(seconds) for seconds in took)
        print(f"{branches:8} {channels:8} {side:4} {1e3 * apart:14.1f} {together / apart:8.2f}", flush=True)


if __name__ == "__main__":
    main()
