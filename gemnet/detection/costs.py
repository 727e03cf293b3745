"""What a trained detector takes for an image: multiply-adds, parameters, CPU time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gemnet.checkpoint import load_checkpoint, state_dict_of
from gemnet.detection.config import complete_config
from gemnet.machine import limited_threads

IMAGES = 16
"""Development images that are measured, one at a time."""


@dataclass(frozen=True)
class Costs:
    """For one image, the mean over some images of the data set at the size they are tested at.

    Args:
        macs: multiply-adds of convolutions and matrix products in the backbone.
        params: the backbone's parameters.
        detector_macs: multiply-adds of the whole detector, backbone included.
        detector_params: its parameters.
        seconds: CPU time of one thread from the loaded image to boxes, suppression included; median of the images.
    """

    macs: float
    params: int
    detector_macs: float
    detector_params: int
    seconds: float


def measure_costs(config: Config, checkpoint: str) -> Costs:
    """Measures a trained detector on development images.

    Args:
        config: the detector's config.
        checkpoint: its weights; how many boxes must be sorted out depends on them.
    """
    from mmdet.registry import DATASETS, MODELS

    init_default_scope(config.get("default_scope", "mmdet"))
    trained = load_checkpoint(checkpoint)
    complete_config(config, trained)
    config.model.backbone.init_cfg = None
    detector: Any = MODELS.build(config.model).eval()
    detector.load_state_dict(state_dict_of(trained))
    images = DATASETS.build(config.val_dataloader.dataset)
    batches = [pseudo_collate([images[number]]) for number in range(min(IMAGES, len(images)))]
    with torch.no_grad(), limited_threads(1):
        detector.test_step(batches[0])
        times = []
        for batch in batches:
            started = time.process_time()
            detector.test_step(batch)
            times.append(time.process_time() - started)
        backbone, whole = 0, 0
        for batch in batches:
            with FlopCounterMode(display=False) as counter:
                detector.test_step(batch)
            counts = counter.get_flop_counts()
            whole += sum(counts["Global"].values())
            backbone += sum(counts[f"{type(detector).__name__}.backbone"].values())
    each = 2 * len(batches)  # two operations are one multiply-add
    return Costs(backbone / each, _parameters(detector.backbone), whole / each, _parameters(detector), median(times))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
