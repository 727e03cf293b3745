"""Accuracy and CPU time of published networks, as anybody can measure them again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn

import gemnet.models  # noqa: F401  (registers its networks with timm)
from gemnet.checkpoint import describe_mismatch, load_checkpoint
from gemnet.data.datasets import DataSpec, open_test_images
from gemnet.machine import processor_name
from gemnet.runtimes.export import for_inference
from gemnet.runtimes.latency import Call, Runtime, in_turns
from gemnet.runtimes.onnx_form import to_onnx
from gemnet.runtimes.packages import is_installed, require
from gemnet.training.images import TrainingData
from gemnet.training.loop import measure as top1
from gemnet.weights import PackagedWeights, verify_weights
from gemnet.zoo.results import Speed, ZooError

OPENINGS = "test_openings.jsonl"
ROUNDS = 9
"""Turns of each network; a turn is the fastest of three calls."""


def build(name: str, weights: PackagedWeights) -> nn.Module:
    """The network of packaged weights, which need not have been there when `gemnet` was imported.

    Raises:
        GemnetError: the file is damaged or of another network.
    """
    model = timm.create_model(name.split(".", 1)[0], num_classes=weights.num_classes)
    state = load_checkpoint(verify_weights(weights))["state_dict"]
    difference = describe_mismatch(model, state)
    if difference:
        raise ZooError(f"{weights.file} does not fit {name}: {difference}.")
    model.load_state_dict(state)
    return model


def measure_accuracy(name: str, weights: PackagedWeights, source: str, log: Path) -> float:
    """Top-1 of packaged weights, as they are stored, on the official test images of a data set, in percent.

    Args:
        name: ``<network>.<tag>``.
        weights: the entry of the index.
        source: the data set; see `gemnet.data.datasets.DataSpec`.
        log: file the opening of the test images is written to.

    Raises:
        ZooError: the data set's classes are not the ones the weights tell apart.
        DataError: it is not there.
    """
    images = open_test_images(DataSpec(source, None, weights.input_size), log, f"zoo: accuracy of {name}")
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


def measure_speeds(
    networks: Sequence[tuple[nn.Module, int, int]], batch_size: int = 32, rounds: int | None = None
) -> list[Speed]:
    """CPU time of one image in one thread, float32: of all networks in turns, so that nothing favours one.

    In PyTorch in channels_last; deployed in onnxruntime, where that is installed, one image at a time and
    ``batch_size``. Each is the median over the turns.

    Args:
        networks: each with side and channels of its images; left in eval mode and channels_last.
        batch_size: images at a time.
        rounds: turns of each; None for `ROUNDS`.
    """
    if not networks:
        return []
    deployed = all(map(is_installed, ("onnx", "onnxruntime")))
    calls: list[Call] = []
    sizes: list[int | None] = []
    for model, side, channels in networks:
        model.eval()
        several, one = (batch_size, channels, side, side), (1, channels, side, side)
        calls.append(Runtime("torch").call(model, several))
        sizes.append(None)
        if deployed:
            smaller = for_inference(model)
            files = [to_onnx(smaller, shape).SerializeToString() for shape in (one, several)]
            calls += [
                Runtime("onnxruntime").call(file, shape) for file, shape in zip(files, (one, several), strict=True)
            ]
            sizes[-1] = len(files[0])
    each = in_turns(calls, rounds or ROUNDS).cpu
    medians = np.median(each, axis=1).reshape(len(networks), -1) / 1000
    return [
        Speed(
            seconds=float(f"{times[0] / batch_size:.3g}"),
            batch_size=batch_size,
            processor=processor_name(),
            torch=torch.__version__,
            onnx_single=float(f"{times[1]:.3g}") if deployed else None,
            onnx_batch=float(f"{times[2] / batch_size:.3g}") if deployed else None,
            onnxruntime=require("onnxruntime").__version__ if deployed else "",
            onnx_bytes=size,
        )
        for times, size in zip(medians, sizes, strict=True)
    ]
