"""How many images a second a training step takes, and what its time goes into.

    python tools/measure/training_step.py [--models gemnet_a gemnet_a_cifar ...] [--cells 10] [--batch-size 32]

Published networks (those of the ImageNet form at 96x96) and random cells of the GEMNet space at 32x32: forward,
backward and an SGD step in channels_last, float32, one thread, all networks in turns; medians of CPU time. Shares are
of the forward pass alone: in batch norms, in sums and means of what nodes read, in depthwise and other convolutions.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gemnet
from gemnet.cell import Cell
from gemnet.network import GEMNet
from nas.spaces.gemnet import GEMNetSpace

PUBLISHED = ["gemnet_a", "gemnet_b", "gemnet_c", "gemnet_a_cifar", "gemnet_b_cifar", "gemnet_c_cifar"]
LARGE = 96
"""Side of the images of networks that are for larger ones."""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=PUBLISHED)
    parser.add_argument("--cells", type=int, default=10, help="random cells besides (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    space = GEMNetSpace()
    drawn = space.sample(options.cells, np.random.default_rng(0))
    genomes = {name: gemnet.genome_for(name) for name in options.models}
    genomes |= {f"cell {row}": space.genome(space.unpack(drawn, row)) for row in range(options.cells)}
    steps: dict[str, Callable[[], None]] = {}
    shares: dict[str, dict[str, float]] = {}
    for name, genome in genomes.items():
        model = GEMNet(genome).to(memory_format=torch.channels_last).train()
        side = min(genome.input_size, LARGE)
        images = torch.randn(options.batch_size, 3, side, side).to(memory_format=torch.channels_last)
        shares[name] = forward_shares(model, images)
        steps[name] = training_step(model, images)
    took: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.rounds + 1):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if number:  # the first warms up
                took[name].append(time.process_time() - started)
    kinds = ("norms", "sums", "depthwise", "dense")
    print(f"{'network':16} {'images/s':>9}  of the forward pass: " + " ".join(f"{kind:>9}" for kind in kinds))
    for name, seconds in took.items():
        each = " ".join(f"{shares[name].get(kind, 0):9.0%}" for kind in kinds)
        print(f"{name:16} {options.batch_size / median(seconds):9.1f} {'':21} {each}", flush=True)


def training_step(model: nn.Module, images: Tensor) -> Callable[[], None]:
    """A function that trains a model for one step on ten classes."""
    labels = torch.arange(len(images)) % 10
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)

    def step() -> None:
        loss = nn.functional.cross_entropy(model(images)[:, :10], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def forward_shares(model: nn.Module, images: Tensor) -> dict[str, float]:
    """Share of kinds of layers in the CPU time of a forward pass."""
    spent: defaultdict[str, float] = defaultdict(float)
    started: list[float] = []

    def begin(*_: object) -> None:
        started.append(time.process_time())

    def end(module: nn.Module, *_: object) -> None:
        kind = "norms"
        if isinstance(module, nn.Conv2d):
            kind = "depthwise" if module.groups == module.in_channels > 1 else "dense"
        spent[kind] += time.process_time() - started.pop()

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            hooks += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
        elif isinstance(module, Cell):
            module._read = _timed(module._read, spent)  # type: ignore[method-assign]  # timed, until it is deleted below
    for _ in range(2):  # the first warms up
        spent.clear()
        whole = time.process_time()
        model(images)
        whole = time.process_time() - whole
    for hook in hooks:
        hook.remove()
    for module in model.modules():
        if isinstance(module, Cell):
            del module._read
    return {kind: seconds / whole for kind, seconds in spent.items()}


def _timed(function: Callable[..., Tensor], spent: defaultdict[str, float]) -> Callable[..., Tensor]:
    def call(*arguments: object) -> Tensor:
        started = time.process_time()
        result = function(*arguments)
        spent["sums"] += time.process_time() - started
        return result

    return call


if __name__ == "__main__":
    main()
