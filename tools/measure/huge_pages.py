"""What huge pages are worth in a training on a CPU (Linux).

    python tools/measure/huge_pages.py [--repeats 3]

Search and comparison start their workers, and tools/train.py itself, with THP_MEM_ALLOC_ENABLE=1, which has PyTorch ask
the kernel for huge pages. Here processes with and without it take turns; each trains on random 32x32 images, batches of
128, one thread. CPU seconds a step, the least of 12 steps, and of the repeats the median.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

VARIABLE = "THP_MEM_ALLOC_ENABLE"
NETWORKS = ("gemnet_a_cifar", "mobilenetv2")


def step_seconds(network: str) -> float:
    """Of this process's setting."""
    import torch
    import torch.nn.functional as F

    from gemnet.models import genome_for
    from gemnet.network import GEMNet
    from gemnet.sources import Images
    from nas.studies.comparison.peers import MobileNetSource

    torch.set_num_threads(1)
    if network == "mobilenetv2":
        model = MobileNetSource("mobilenetv2", 0.4, reduction=8).build(Images(32, 3, 10))
    else:
        model = GEMNet(genome_for(network), num_classes=10)
    model.train().to(memory_format=torch.channels_last)
    images = torch.randn(128, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (128,))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    times = []
    for _ in range(14):
        started = time.process_time()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time() - started)
    return min(times[2:])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", choices=NETWORKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(step_seconds(options.child))
        return
    for network in NETWORKS:
        seconds: dict[str, list[float]] = {"0": [], "1": []}
        for _ in range(options.repeats):
            for setting, found in seconds.items():
                line = [sys.executable, __file__, "--child", network]
                output = subprocess.run(
                    line, env={**os.environ, VARIABLE: setting}, check=True, capture_output=True, text=True
                )
                found.append(float(output.stdout))
        without, with_pages = median(seconds["0"]), median(seconds["1"])
        print(
            f"{network}: {1000 * with_pages:.0f} ms, without {1000 * without:.0f} ms, ratio {with_pages / without:.2f}"
        )


if __name__ == "__main__":
    main()
