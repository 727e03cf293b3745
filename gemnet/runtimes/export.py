"""Exports a network for a runtime: deployed, checked against PyTorch on real images, in a folder that stands alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from timm.utils import reparameterize_model
from torch import nn

from gemnet.deploy import deploy
from gemnet.errors import GemnetError, nearest
from gemnet.network import GEMNet
from gemnet.runtimes.formats import FORMATS, ExportTask, Predict, one_by_one
from gemnet.runtimes.images import Images, Labelled, photographs
from gemnet.runtimes.int8_speed import Int8Speed, compare_speed
from gemnet.runtimes.networks import OpenedNetwork
from gemnet.runtimes.onnx_form import DIMENSIONS

TOLERANCE = 1e-4
"""What an exported network's logits may differ by from PyTorch's, as a share of the largest."""
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}
"""What runs the formats that can be quantised."""
CHECKED = 32
"""Images on which they are compared, at most."""


class ExportError(GemnetError):
    """A network that can't be exported as asked, or does not give what it gives in PyTorch."""


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Args:
        folder: all of it.
        file: the network.
        difference: greatest difference from PyTorch's logits, as a share of the largest, before quantisation.
        accuracies: top-1 in percent of PyTorch's network and of the file, where labelled images were given.
        speed: what int8 saves, or costs; None in float32.
    """

    folder: Path
    file: Path
    difference: float
    accuracies: tuple[float, float] | None
    speed: Int8Speed | None = None


def for_inference(model: nn.Module) -> nn.Module:
    """The same function with fewer operations: GEMNet's deployed form, timm's own folding for other networks."""
    return deploy(model) if isinstance(model, GEMNet) else reparameterize_model(model).eval()


def check_request(
    network: OpenedNetwork, to: str, folder: Path, dynamic: Sequence[str], int8: bool, has_images: bool
) -> None:
    """Refuses what can't be exported, before anything takes time; arguments and errors as `export_for_runtime`."""
    if to not in FORMATS:
        raise ExportError(f"There is no format {to!r}.{nearest(to, FORMATS)}")
    for name in dynamic:
        if name not in DIMENSIONS:
            raise ExportError(f"--dynamic takes {' and '.join(DIMENSIONS)}, joined by a comma; got {name!r}.")
    if int8 and not has_images:
        raise ExportError(
            "--int8 needs --images FOLDER, with a folder of images for each class: ranges of values are taken from "
            "some of them, and the accuracy before and after is measured on the others."
        )
    if not network.metadata.num_classes:
        raise ExportError(f"{network.name} has no classifier; what is exported gives a logit a class.")
    if folder.name in ("", ".."):
        raise ExportError(f"--out {folder} has no name. Name a folder that is not there yet, or is empty.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} is there already and not empty. Choose another --out, or move it away.")


def export_for_runtime(
    network: OpenedNetwork,
    to: str,
    folder: Path,
    dynamic: Sequence[str] = (),
    int8: bool = False,
    labelled: Labelled | None = None,
) -> Exported:
    """Writes a folder with the deployed network.

    Args:
        network: what to export.
        to: one of `FORMATS`.
        folder: where to; must not exist, or be empty.
        dynamic: ``batch``, ``size`` or both: what stays open. Otherwise one image of the network's size goes in.
        int8: whether weights and activations are quantised.
        labelled: images to compare and measure with; two photographs, and no accuracies, by default.

    Raises:
        ExportError: an unknown format, a folder that holds something, no images to calibrate with, logits that differ.
        GemnetError: the network can't be deployed or written, or a package is missing.
    """
    check_request(network, to, folder, dynamic, int8, labelled is not None)
    task = ExportTask(network.name, for_inference(network.model), network.metadata, tuple(dynamic))
    draft = first = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        file, predict = FORMATS[to](task, draft)
        in_torch = one_by_one(_in_torch(network.model))
        images = photographs(network.metadata) if labelled is None else labelled.images[:CHECKED]
        sizes = [images]
        if "size" in dynamic:  # windows with a stride end elsewhere there
            sizes.append(np.pad(images, [(0, 0), (0, 0), (0, 1), (0, 1)]))
        difference = max(_difference(in_torch(each), predict(each)) for each in sizes)
        if not difference <= TOLERANCE:
            raise ExportError(
                f"The exported network's logits differ from PyTorch's by {difference:.1e} of the largest; rounding "
                f"accounts for {TOLERANCE:.0e}. Nothing was written."
            )
        accuracies, speed = None, None
        if labelled is not None:
            if int8:
                before, draft = file, draft / "int8"
                draft.mkdir()
                file, predict = FORMATS[to](replace(task, calibration=labelled.calibration), draft)
                speed = compare_speed(before, file, task.shape, RUNTIMES[to])
            accuracies = accuracy(in_torch, labelled), accuracy(predict, labelled)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    finally:
        shutil.rmtree(first, ignore_errors=True)
    return Exported(folder, folder / file.name, difference, accuracies, speed)


def accuracy(predict: Predict, labelled: Labelled) -> float:
    """Top-1 accuracy in percent."""
    return 100 * float(np.mean(predict(labelled.images).argmax(axis=1) == labelled.labels))


def _difference(expected: Images, found: Images) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _in_torch(model: nn.Module) -> Predict:
    def predict(images: Images) -> Images:
        with torch.inference_mode():
            found: Images = model(torch.from_numpy(images)).numpy()
        return found

    return predict
