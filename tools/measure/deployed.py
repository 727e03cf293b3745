"""What deploying a network is worth for inference on a CPU: kernels, multiply-adds and time.

    python tools/measure/deployed.py [--models gemnet_a_cifar repvgg ...] [--batch-size 1] [--cells 10]

Each network runs as it was trained, with its norms folded (`timm.utils.reparameterize_model`) and deployed, in turns,
in channels_last, float32, one thread; with onnxruntime installed, trained and deployed there too. ``--cells`` adds
random cells of the GEMNet space. CPU seconds of the process, medians over the rounds; times are shares of the trained
network's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gemnet
from gemnet.classics import mobileone, repvgg
from gemnet.network import GEMNet
from gemnet.runtimes.onnx_form import to_onnx
from nas.spaces.gemnet import GEMNetSpace

PUBLISHED = ["gemnet_a_cifar", "gemnet_b_cifar", "gemnet_c_cifar", "gemnet_a", "gemnet_b", "gemnet_c"]
CLASSICS = {"repvgg": repvgg, "mobileone": mobileone}
VIEWS = ("view", "detach", "select", "t", "alias", "_unsafe_view", "empty")


class Kernels(TorchDispatchMode):
    """Counts kernels that run."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ not in VIEWS
        return func(*args, **(kwargs or {}))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=PUBLISHED)
    parser.add_argument("--cells", type=int, default=0, help="random cells of the GEMNet space besides (default: 0)")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    space = GEMNetSpace(form="imagenet")
    drawn = space.sample(options.cells, np.random.default_rng(0))
    genomes = {f"cell {n}": space.genome(space.unpack(drawn, n)) for n in range(options.cells)}
    head = f"{'network':16} {'side':>4} {'kernels':>11} {'M MACs':>15}"
    print(f"{head} {'torch ms':>9} folded deployed {'ort ms':>7} deployed")
    for name in (*options.models, *genomes):
        if name in CLASSICS:
            genome = CLASSICS[name]()
        else:
            genome = genomes[name] if name in genomes else gemnet.genome_for(name)
        model = GEMNet(genome).eval().to(memory_format=torch.channels_last)
        side = genome.input_size
        images = torch.randn(options.batch_size, 3, side, side).to(memory_format=torch.channels_last)
        forms = [model, reparameterize_model(model), gemnet.deploy(model)]
        kernels, macs = zip(*(count(form, images[:1]) for form in (forms[0], forms[2])), strict=True)
        runs: list[Callable[[], Any]] = [partial(form, images) for form in forms]
        runs += [session(form, images) for form in (forms[0], forms[2])]
        took = measure(runs, options.rounds)
        print(
            f"{name:16} {side:4} {kernels[0]:5} {kernels[1]:5} {macs[0] / 1e6:7.1f} {macs[1] / 1e6:7.1f} "
            f"{1e3 * took[0]:9.2f} {took[1] / took[0]:6.2f} {took[2] / took[0]:8.2f} "
            f"{1e3 * took[3]:7.2f} {took[4] / took[3]:8.2f}",
            flush=True,
        )


def count(model: nn.Module, images: Tensor) -> tuple[int, int]:
    """Kernels and multiply-adds for one image."""
    macs = 0

    def add(module: Any, _: Any, out: Tensor) -> None:
        nonlocal macs
        macs += module.weight.numel() * (out[0, 0].numel() if out.ndim == 4 else 1)

    hooks = [each.register_forward_hook(add) for each in model.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    with torch.no_grad(), Kernels() as counted:
        model(images)
    for hook in hooks:
        hook.remove()
    return counted.count, macs


def session(model: nn.Module, images: Tensor) -> Callable[[], Any]:
    """The network in onnxruntime, one thread."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    data = to_onnx(model, (len(images), 3, images.shape[2], images.shape[3])).SerializeToString()
    running = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    feed = {running.get_inputs()[0].name: images.contiguous().numpy()}
    return lambda: running.run(None, feed)


def measure(runs: list[Callable[[], Any]], rounds: int) -> list[float]:
    """CPU seconds of each, in turns; the median over the rounds."""
    took: list[list[float]] = [[] for _ in runs]
    with torch.inference_mode():
        for _ in range(rounds):
            for run, seconds in zip(runs, took, strict=True):
                run()  # brings it back into the caches
                started = time.process_time()
                run()
                seconds.append(time.process_time() - started)
    return [median(seconds) for seconds in took]


if __name__ == "__main__":
    main()
