"""What operations cost in onnxruntime, as multiples of the time of a 1x1 convolution on the same map.

    python tools/measure/operators.py [--maps 32x56 64x28 128x14 256x7] [--operations conv3x3_bn_act dw5x5_bn_act]

Four of an operation in a row on maps of channels x side, one image, one thread; norms folded. All operations of a map
are run in turns, and the CPU time of each call is divided by that of the 1x1 convolution in the same turn; median over
the turns. The last column is multiply-adds for that time, as a multiple of the 1x1 convolution's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from timm.utils import reparameterize_model
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gemnet.operations import parse_operation
from gemnet.runtimes.latency import Call, Runtime, in_turns

IN_A_ROW = 4
BASE = "conv1x1_bn_act"
OPERATIONS = (
    "dw3x3_bn_act",
    "dw5x5_bn_act",
    "dw7x7_bn_act",
    "conv3x3_bn_act",
    "conv3x3w16_bn_act",
    "conv3x3w32_bn_act",
    "conv1x1_bn",
    "conv1x1_bn_hswish",
    "dw3x3_bn_hswish",
    "avg_pool_3x3",
    "max_pool_3x3",
)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", nargs="+", default=["32x56", "64x28", "128x14", "256x7"])
    parser.add_argument("--operations", nargs="+", default=list(OPERATIONS))
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    print(f"{'map':>8} {'operation':22} {'time':>6} {'MACs for it':>12}")
    for text in options.maps:
        channels, side = (int(part) for part in text.split("x"))
        names = [BASE, *(name for name in options.operations if name != BASE)]
        ratios = in_turns([_call(name, channels, side) for name in names], options.rounds).ratios()
        macs = np.array([parse_operation(name).cost(channels, channels, (side, side)).macs for name in names])
        for name, ratio, own in zip(names, ratios, macs / macs[0], strict=True):
            print(f"{text:>8} {name:22} {ratio:6.2f} {own / ratio:12.2f}", flush=True)


def _call(name: str, channels: int, side: int) -> Call:
    operation = parse_operation(name)
    layers = nn.Sequential(*(operation.build(channels, channels) for _ in range(IN_A_ROW))).eval()
    return Runtime().call(reparameterize_model(layers), (1, channels, side, side))


if __name__ == "__main__":
    main()
