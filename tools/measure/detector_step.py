"""What channels_last and our focal loss are worth in a detector's training step on a CPU.

    python tools/measure/detector_step.py [--configs retinanet_gemnet_coco320 faster_rcnn_gemnet_coco320] [--steps 10]

The backbone hands its levels on in channels_last. Here each step is taken again with the images made contiguous at its
entrance, and, of a detector with a focal loss, with MMDetection's own; on drawn images with random boxes. CPU seconds
of one thread, median over the steps. Set GLIBC_TUNABLES=glibc.malloc.hugetlb=1, as tools/train.py does for itself.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gemnet.detection  # before mmdet
from gemnet.detection.channels import fill_channels
from gemnet.training.runner_config import find_runner_config, load_runner_config

BATCH, BOXES, HEIGHT, WIDTH = 8, 9, 240, 320
SHIPPED, CONTIGUOUS, THEIR_LOSS = "as shipped", "contiguous", "MMDetection's focal loss"


def random_batch(generator: torch.Generator) -> dict[str, Any]:
    """Images and boxes as coco320 has them."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    samples = []
    for _ in range(BATCH):
        start = torch.rand(BOXES, 2, generator=generator) * torch.tensor([0.7 * WIDTH, 0.7 * HEIGHT])
        size = 8 + 0.3 * HEIGHT * torch.rand(BOXES, 2, generator=generator)
        about = {"img_shape": (HEIGHT, WIDTH), "ori_shape": (HEIGHT, WIDTH), "scale_factor": (1.0, 1.0)}
        sample = DetDataSample(metainfo=about)
        labels = torch.randint(0, 80, (BOXES,), generator=generator)
        sample.gt_instances = InstanceData(bboxes=torch.cat([start, start + size], dim=1), labels=labels)
        samples.append(sample)
    shape = (BATCH, 3, HEIGHT, WIDTH)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return {"inputs": list(images), "data_samples": samples}


def contiguous(_: Any, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """A hook that undoes channels_last."""
    return (arguments[0].contiguous(memory_format=torch.contiguous_format),)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["retinanet_gemnet_coco320", "faster_rcnn_gemnet_coco320"])
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    for name in options.configs:
        config = load_runner_config(find_runner_config(name))
        fill_channels(config.model)
        detector: Any = MODELS.build(config.model).train()
        optimizer = torch.optim.AdamW(detector.parameters(), 1e-4)
        generator = torch.Generator().manual_seed(0)
        seconds: dict[str, list[float]] = {SHIPPED: [], CONTIGUOUS: []}
        head: Any = getattr(detector, "bbox_head", None)
        ours = getattr(head, "loss_cls", None)
        if isinstance(ours, gemnet.detection.FocalLoss):
            theirs = MODELS.build({**config.model.bbox_head.loss_cls, "type": "FocalLoss"})
            seconds[THEIR_LOSS] = []
        for step in range(options.steps + 2):
            batch = detector.data_preprocessor(random_batch(generator), training=True)
            for variant, times in seconds.items():
                hook = detector.backbone.stem.register_forward_pre_hook(contiguous) if variant == CONTIGUOUS else None
                if THEIR_LOSS in seconds:
                    head.loss_cls = theirs if variant == THEIR_LOSS else ours
                started = time.process_time()
                loss, _ = detector.parse_losses(detector(**batch, mode="loss"))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if step >= 2:  # the first are slower
                    times.append(time.process_time() - started)
                if hook is not None:
                    hook.remove()
        shipped = median(seconds.pop(SHIPPED))
        print(f"{name}: {shipped:.2f} s a step, {SHIPPED}")
        for variant, times in seconds.items():
            print(f"    {variant}: {median(times):.2f} s; ours takes {shipped / median(times):.2f} of it")


if __name__ == "__main__":
    main()
