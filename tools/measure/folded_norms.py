"""What folding the norms into the convolutions is worth for inference on a CPU.

    python tools/measure/folded_norms.py [--models gemnet_a_cifar gemnet_a] [--batch-size 32]

Each network is run as it was trained and, in turns with it, as `timm.utils.reparameterize_model` makes it of it:
batches in channels_last, float32, one thread. CPU seconds, median over the rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import timm
import torch
from timm.utils import reparameterize_model

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gemnet  # noqa: F401 - makes the names known


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["gemnet_a_cifar", "gemnet_b_cifar", "gemnet_a", "gemnet_b"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'network':16} {'side':>4} {'ms an image':>12} {'folded':>8} {'ratio':>6}")
    for name in options.models:
        model = timm.create_model(name).eval().to(memory_format=torch.channels_last)
        side = min(model.default_cfg["input_size"][1], 96)
        images = torch.randn(options.batch_size, 3, side, side).to(memory_format=torch.channels_last)
        forms = (model, reparameterize_model(model))
        seconds: tuple[list[float], list[float]] = ([], [])
        with torch.inference_mode():
            for _ in range(options.rounds + 1):
                for form, taken in zip(forms, seconds, strict=True):
                    started = time.process_time()
                    form(images)
                    taken.append(time.process_time() - started)
        plain, folded = (1e3 * median(taken[1:]) / options.batch_size for taken in seconds)  # the first warms up
        print(f"{name:16} {side:4} {plain:12.2f} {folded:8.2f} {folded / plain:6.2f}")


if __name__ == "__main__":
    main()
