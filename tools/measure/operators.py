"""What operations cost in onnxruntime, as multiples of the time of a 1x1 convolution on the same map.

    python tools/measure/operators.py [--maps 32x56 64x28 128x14 256x7] [--operations conv3x3_bn_act dw5x5_bn_act]

Four of an operation in a row on maps of channels x side, one image, one thread; norms folded. All operations of a map
are run in turns, and the CPU time of each call is divided by that of the 1x1 convolution in the same turn; median over
the turns. The last column is multiply-adds for that time, as a multiple of the 1x1 convolution's.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from timm.utils import reparameterize_model
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gemnet.operations import parse_operation
from gemnet.runtimes.onnx_form import run, session, to_onnx

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
        images = np.random.default_rng(0).standard_normal((1, channels, side, side), dtype=np.float32)
        sessions = [_session(name, channels, side) for name in names]
        seconds = np.empty((options.rounds, len(names)))
        for turn in range(-2, options.rounds):  # the first turns warm up
            for place, each in enumerate(sessions):
                run(each, images)
                started = time.process_time()
                run(each, images)
                seconds[turn, place] = time.process_time() - started
        macs = np.array([parse_operation(name).cost(channels, channels, (side, side)).macs for name in names])
        ratios = np.median(seconds / seconds[:, :1], axis=0)
        for name, ratio, own in zip(names, ratios, macs / macs[0], strict=True):
            print(f"{text:>8} {name:22} {ratio:6.2f} {own / ratio:12.2f}", flush=True)


def _session(name: str, channels: int, side: int) -> object:
    operation = parse_operation(name)
    layers = nn.Sequential(*(operation.build(channels, channels) for _ in range(IN_A_ROW))).eval()
    return session(to_onnx(reparameterize_model(layers), (1, channels, side, side)).SerializeToString())


if __name__ == "__main__":
    main()
