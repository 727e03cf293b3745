"""Puts trained weights into the package: a safetensors file named by its sha256, and its entry in the index."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

import gemnet.weights
from gemnet.checkpoint import describe_mismatch, load_checkpoint, state_dict_of
from gemnet.data.decoded import CROP_PCT, INTERPOLATION
from gemnet.files import write_named, write_text
from gemnet.metadata import metadata_of, save_weights
from gemnet.network import GEMNet
from gemnet.registered import genome_for
from gemnet.weights import PackagedWeights, packaged_weights
from gemnet.zoo.results import ZooError

PRECISIONS = {"float16": torch.float16, "float32": torch.float32}


def write_weights(
    source: Path,
    name: str,
    description: str,
    input_size: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    precision: str = "float16",
) -> PackagedWeights:
    """Writes weights into `gemnet.weights`; no name stands for them until `enter_weights`.

    Args:
        source: safetensors or mmengine checkpoint of the bare network or of a
            `gemnet.classification.model.ImageClassifier`.
        name: ``<architecture>.<tag>``, such as ``gemnet_a_cifar.cifar10``.
        description: what they were trained on.
        input_size: side of the images in pixels.
        mean: of each channel; read from the file where it says so, else the architecture's own.
        std: likewise.
        classes: names of the classes; read from the file where it says so.
        precision: of convolution and matrix weights, ``float16`` or ``float32``; all else stays float32.

    Returns:
        The entry for the index.

    Raises:
        ZooError: a malformed name, weights of another network, values that are not finite.
        GemnetError: no such architecture, or a file that can't be read.
    """
    arch, _, tag = name.partition(".")
    if not tag or not tag.replace("_", "").isalnum() or tag == "untrained":
        raise ZooError(f"name is {name!r}, expected <architecture>.<tag>, such as gemnet_a_cifar.cifar10.")
    genome = genome_for(arch)
    checkpoint = load_checkpoint(source)
    state = _bare(state_dict_of(checkpoint))
    about = metadata_of(checkpoint, source)
    if about.fingerprint not in ("", genome.fingerprint):
        raise ZooError(
            f"{source} belongs to another genome (fingerprint {about.fingerprint}) than {arch!r} has now "
            f"({genome.fingerprint}). Put the genome it was trained with into gemnet/genomes/{arch}.json first."
        )
    head = state.get("classifier.weight")
    num_classes = int(head.shape[0]) if head is not None else 0
    with torch.device("meta"):
        model = GEMNet(genome, num_classes=num_classes, device="meta")
    difference = describe_mismatch(model, state)
    if difference:
        raise ZooError(f"{source} does not fit {arch!r}: {difference}.")
    classes = tuple(about.classes if classes is None else classes)
    if classes and len(classes) != num_classes:
        raise ZooError(f"{source} tells {num_classes} classes apart, {len(classes)} are named.")
    default = timm.get_pretrained_cfg(arch)
    mean = _triple("mean", mean or about.mean or default.mean)
    std = _triple("std", std or about.std or default.std)
    crop_pct, interpolation = about.crop_pct or CROP_PCT, about.interpolation or INTERPOLATION
    said = about.replace(
        genome=genome,
        fingerprint="",
        num_classes=num_classes,
        in_chans=3,
        input_size=input_size,
        crop_pct=crop_pct,
        interpolation=interpolation,
        mean=mean,
        std=std,
        classes=classes,
        notes={"precision": precision, "name": name},
    )
    exact = stored(state, precision, source)
    path, digest = write_named(gemnet.weights.FOLDER, name, lambda draft: save_weights(draft, exact, said))
    return PackagedWeights(
        file=path.name,
        sha256=digest,
        fingerprint=genome.fingerprint,
        num_classes=num_classes,
        input_size=input_size,
        mean=mean,
        std=std,
        crop_pct=crop_pct,
        interpolation=interpolation,
        description=description,
        classes=classes,
        precision=precision,
    )


def discard_weights(entry: PackagedWeights) -> None:
    """Removes weights that were written, unless a name stands for them."""
    packaged_weights.cache_clear()
    if entry.file not in {known.file for known in packaged_weights().values()}:
        entry.path.unlink(missing_ok=True)


def withdraw_weights(name: str) -> None:
    """Takes weights out of the package.

    Raises:
        GemnetError: there are none under this name.
    """
    gemnet.weights.find_weights(name)
    enter_weights(name, None)


def _bare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the network alone; `gemnet.classification.model.ImageClassifier` puts a prefix before them."""
    inside = {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}
    return inside or state


def stored(state: Mapping[str, Tensor], precision: str, source: Path) -> dict[str, Tensor]:
    """Contiguous tensors in the wanted precision. Norms, biases and statistics are small, and stay exact."""
    if precision not in PRECISIONS:
        raise ZooError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}.")
    kind = PRECISIONS[precision]
    found = {}
    for key, value in state.items():
        exact = value.detach().cpu()
        if exact.is_floating_point():
            exact = exact.to(kind if exact.ndim > 1 else torch.float32)
            if not torch.isfinite(exact).all():
                raise ZooError(f"{source}: {key} is not finite in {precision}. Was the training sound?")
        found[key] = exact.contiguous()
    return found


def enter_weights(name: str, entry: PackagedWeights | None) -> None:
    """Has a name stand for weights that were written, or for none; a file that no name stands for is removed."""
    packaged_weights.cache_clear()
    entries = dict(packaged_weights())
    old = entries.pop(name, None)
    if entry is not None:
        entries[name] = entry
    data: dict[str, Any] = {key: asdict(entries[key]) for key in sorted(entries)}
    write_text(gemnet.weights.FOLDER / "index.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    packaged_weights.cache_clear()
    if old is not None and old.file not in {entry.file for entry in entries.values()}:
        old.path.unlink(missing_ok=True)


def _triple(name: str, values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) != 3:
        raise ZooError(f"{name} has {len(values)} values; published networks see 3 channels.")
    return float(values[0]), float(values[1]), float(values[2])
