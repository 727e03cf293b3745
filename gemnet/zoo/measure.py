"""Accuracy and CPU time of published networks, as anybody can measure them again."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn

import gemnet.models  # noqa: F401  (registers its networks with timm)
from gemnet.data.datasets import DataSpec, open_test_images
from gemnet.machine import limited_threads, processor_name
from gemnet.training.loop import TrainingData
from gemnet.training.loop import measure as top1
from gemnet.weights import PackagedWeights, verify_weights
from gemnet.zoo.results import Speed, ZooError

OPENINGS = "test_openings.jsonl"
WARM_UP, REPEATS = 5, 21


def build(name: str, weights: PackagedWeights) -> nn.Module:
    """The network of packaged weights, which need not have been there when `gemnet` was imported.

    Raises:
        GemnetError: the file is damaged or of another network.
    """
    from gemnet.checkpoint import describe_mismatch, load_checkpoint

    model = timm.create_model(name.split(".", 1)[0], num_classes=weights.num_classes)
    state = load_checkpoint(verify_weights(weights))["state_dict"]
    difference = describe_mismatch(model, state)
    if difference:
        raise ZooError(f"{weights.file} does not fit {name}: {difference}.")
    model.load_state_dict(state)
    return model


def measure_accuracy(name: str, weights: PackagedWeights, source: str, log: Path, root: str | None = None) -> float:
    """Top-1 of packaged weights, as they are stored, on the official test images of a data set, in percent.

    Args:
        name: ``<network>.<tag>``.
        weights: the entry of the index.
        source: the data set; see `gemnet.data.datasets.DataSpec`.
        log: file the opening of the test images is written to.
        root: data root.

    Raises:
        ZooError: the data set's classes are not the ones the weights tell apart.
        DataError: it is not there.
    """
    images = open_test_images(DataSpec(source, root, weights.input_size), log, f"zoo: accuracy of {name}")
    if len(images.classes) != weights.num_classes or (weights.classes and weights.classes != images.classes):
        raise ZooError(
            f"{name} tells {weights.num_classes} classes apart ({', '.join(weights.classes[:3])}...), {source!r} has "
            f"{len(images.classes)} ({', '.join(images.classes[:3])}...). Give the data set it was trained on."
        )
    index = torch.arange(len(images))
    data = TrainingData(
        images.images, images.labels, index[:0], index, images.classes, weights.mean, weights.std, images.digest
    )
    return top1(build(name, weights).to(memory_format=torch.channels_last), data)


@torch.no_grad()
def measure_speed(model: nn.Module, side: int, channels: int = 3, batch_size: int = 32) -> Speed:
    """CPU time of one image: one thread, channels_last, float32, eval mode; the median of 21 batches after five.

    Args:
        model: the network; left in eval mode and channels_last.
        side: of the images in pixels.
        channels: of the images.
        batch_size: images at a time.
    """
    model.eval().to(memory_format=torch.channels_last)
    images = torch.randn(batch_size, channels, side, side, generator=torch.Generator().manual_seed(0)).to(
        memory_format=torch.channels_last
    )
    seconds = []
    with limited_threads(1):
        for _ in range(WARM_UP + REPEATS):
            started = time.process_time()  # not of the clock on the wall: others may be at work on the machine
            model(images)
            seconds.append(time.process_time() - started)
    return Speed(
        seconds=float(f"{np.median(seconds[WARM_UP:]) / batch_size:.3g}"),
        batch_size=batch_size,
        processor=processor_name(),
        torch=torch.__version__,
    )
