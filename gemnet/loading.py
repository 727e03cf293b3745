"""Weights into a network, and with them what the network is to be fed.

`timm.create_model(..., checkpoint_path=...)` calls timm's own ``load_checkpoint``, which reads tensors alone: the model
would say that it wants its name's usual images. `teach_timm` has it call `load_weights` for networks of ours; all
others are loaded as ever.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from gemnet.checkpoint import (
    CheckpointError,
    aligned,
    describe_mismatch,
    has_average,
    load_checkpoint,
    state_dict_of,
)
from gemnet.metadata import Metadata
from gemnet.network import GEMNet
from gemnet.private_timm import load_checkpoints_with, loader_of_checkpoints
from gemnet.timm_checkpoints import said_by


def load_weights(model: GEMNet, source: str | os.PathLike[str], ema: bool = False) -> Metadata:
    """Loads weights that must fit, whatever program packed them, and sets the model's timm configuration by them.

    Args:
        model: the network.
        source: a ``.safetensors`` or ``.pth`` file.
        ema: the moving average of the weights.

    Returns:
        What the weights say about themselves.

    Raises:
        CheckpointError: no such file, damaged, unsafe, or of another network.
    """
    return _load(model, load_checkpoint(source), source, ema)


def _load(model: GEMNet, checkpoint: Mapping[str, Any], source: str | os.PathLike[str], ema: bool) -> Metadata:
    about = said_by(checkpoint, source)
    check_genome(about, model.genome.fingerprint, source)
    weights = aligned(state_dict_of(checkpoint, ema), model.state_dict())
    difference = describe_mismatch(model, weights)
    if difference:
        hints = [
            f"{name}={said}"
            for name, said, has in (
                ("num_classes", about.num_classes, model.num_classes),
                ("in_chans", about.in_chans, model.in_chans),
            )
            if said not in (None, has)
        ]
        hint = f" Build the network with {' and '.join(hints)}." if hints else ""
        raise CheckpointError(f"{source}: these are not the weights of this network: {difference}.{hint}")
    model.load_state_dict(weights)
    describe_images(model, about)
    return about


def check_genome(about: Metadata, fingerprint: str, source: object) -> None:
    """Refuses weights that say they are of another genome.

    Raises:
        CheckpointError: they are.
    """
    if about.fingerprint not in ("", fingerprint):
        raise CheckpointError(
            f"{source}: these are the weights of another network: they were trained with genome {about.fingerprint}, "
            f"this one has {fingerprint}. Give the genome they belong to."
        )


def describe_images(model: Any, about: Metadata) -> None:
    """Sets a model's timm configuration (size, crop, mean, std, class names) to what its weights were trained with."""
    before = getattr(model, "pretrained_cfg", None) or {}
    model.pretrained_cfg = model.default_cfg = {**before, **about.pretrained_cfg()}


def teach_timm() -> None:
    """Has timm load weights into networks of ours as `load_weights` does. May be called again."""
    original = loader_of_checkpoints()
    if getattr(original, "of_gemnet", False):
        return

    @functools.wraps(original)
    def load(model: nn.Module, checkpoint_path: str, use_ema: bool = True, *args: Any, **options: Any) -> Any:
        # Loose or converting loads are for those who know what they do: timm's own way.
        if not isinstance(model, GEMNet) or args or set(options) - {"device", "weights_only"}:
            return original(model, checkpoint_path, use_ema, *args, **options)
        checkpoint = load_checkpoint(checkpoint_path)
        _load(model, checkpoint, checkpoint_path, use_ema and has_average(checkpoint))
        return nn.modules.module._IncompatibleKeys([], [])

    load.of_gemnet = True  # type: ignore[attr-defined]  # a mark, looked for above
    load_checkpoints_with(load)
