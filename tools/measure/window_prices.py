"""What windows take, depthwise and dense, beside sums and pools: what `gemnet.linear_map.PASS` is read from.

    python tools/measure/window_prices.py [--channels 64] [--side 28]

Eight alike layers in a row, in onnxruntime and in torch (channels_last), float32, one thread, in turns; CPU
microseconds of a layer, medians over the rounds. A pass is worth as many multiply-adds a channel and pixel as make
two windows in a row take as long as the one that they become.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deployed import measure, session

LAYERS = 8


class Doubled(nn.Module):
    """A sum of two images."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` and its positive part."""
        return x + torch.relu(x)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--side", type=int, default=28)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    c = options.channels
    kinds: dict[str, Callable[[], nn.Module]] = {
        "nothing": nn.Identity,
        **{f"dw{k}x{k}": partial(nn.Conv2d, c, c, k, 1, k // 2, groups=c) for k in (1, 3, 5, 7, 9)},
        **{f"conv{k}x{k}": partial(nn.Conv2d, c, c, k, 1, k // 2) for k in (1, 3)},
        "avg_pool_3x3": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        "sum and relu": Doubled,
    }
    images = torch.randn(1, c, options.side, options.side).to(memory_format=torch.channels_last)
    runs: list[Callable[[], Any]] = []
    for make in kinds.values():
        model = nn.Sequential(nn.Conv2d(c, c, 1), *(make() for _ in range(LAYERS))).eval()
        model = model.to(memory_format=torch.channels_last)
        runs += [session(model, images), partial(model, images)]
    took = measure(runs, options.rounds)
    print(f"{c} channels, {options.side}x{options.side}; microseconds  {'onnxruntime':>12} {'torch':>8}")
    for place, name in enumerate(kinds):
        if place:
            each = [1e6 * (took[2 * place + runtime] - took[runtime]) / LAYERS for runtime in (0, 1)]
            print(f"{name:40} {each[0]:12.0f} {each[1]:8.0f}")


if __name__ == "__main__":
    main()
