"""Mean and deviation of a detector's images as part of its state: what was trained with them is fed with them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gemnet.metadata import DETECTOR, Metadata

MEAN, STD = "image_mean", "image_std"
"""Buffers of the module that normalises; one value a channel, in [0, 1] and in the order RGB."""


def register_statistics(module: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    """Gives a module the buffers ``image_mean`` and ``image_std``."""
    for name, values in ((MEAN, mean), (STD, std)):
        module.register_buffer(name, torch.as_tensor([float(value) for value in values]))


def restore_statistics(module: nn.Module, state: dict[str, Any], prefix: str) -> None:
    """Completes a state that was saved without statistics by the module's own, and says so.

    Args:
        module: with the buffers of `register_statistics`.
        state: the state dict that is being loaded, changed in place.
        prefix: of the module's keys.
    """
    for name in (MEAN, STD):
        if prefix + name not in state:
            own = getattr(module, name)
            if name == MEAN:
                warnings.warn(
                    "These weights don't say how images were normalised when they were trained; the detector's own "
                    f"mean {_listed(own)} is kept. Build it with weights=... or image_mean=... as it was then.",
                    stacklevel=2,
                )
            state[prefix + name] = own.clone()


def saved_statistics(state: Mapping[str, Any], prefix: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Mean and deviation in a state dict; None where it holds none."""
    if prefix + MEAN in state and prefix + STD in state:
        return state[prefix + MEAN], state[prefix + STD]
    return None


def _listed(values: torch.Tensor) -> str:
    return "(" + ", ".join(f"{float(value):.3f}" for value in values) + ")"


def is_detector(model: nn.Module) -> bool:
    """Whether a network is a detector of MMDetection."""
    return any(kind.__name__ == "BaseDetector" for kind in type(model).__mro__)


def detector_metadata(model: nn.Module, images: Mapping[str, Any]) -> Metadata:
    """What the weights of MMDetection's detectors say about themselves when they are saved.

    Args:
        model: the detector.
        images: ``metainfo`` of the data set it is trained on.
    """
    preprocessor: Any = getattr(model, "data_preprocessor", None)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    if getattr(preprocessor, "_enable_normalize", False):
        mean, std = (
            tuple(round(float(value) / 255, 6) for value in part.flatten())
            for part in (preprocessor.mean, preprocessor.std)
        )
        if not getattr(preprocessor, "_channel_conversion", False):  # trained on BGR, the order images are read in
            mean, std = mean[::-1], std[::-1]
    classes = tuple(map(str, images.get("classes") or ()))
    return Metadata(
        fingerprint=genome_in(model), mean=mean, std=std, classes=classes, notes={DETECTOR: type(model).__name__}
    )


def genome_in(model: nn.Module) -> str:
    """Fingerprint of the genome of a classifier or a detector's backbone; "" where it is no GEMNet."""
    places = (model, getattr(model, "network", None), getattr(model, "backbone", None))
    found = (getattr(getattr(place, "genome", None), "fingerprint", "") for place in places)
    return next(filter(None, found), "")
