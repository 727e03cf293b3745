"""Opens whatever names a network: a timm name, a genome, a search's work folder, a folder that timm reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
from torch import nn

import gemnet.models  # noqa: F401  (registers its networks with timm)
from gemnet.errors import GemnetError, nearest
from gemnet.metadata import Metadata
from gemnet.trained import SEARCHED, find_trained


class OpenError(GemnetError):
    """What was named is no network that can be opened."""


@dataclass(frozen=True)
class OpenedNetwork:
    """A network, and how its images are prepared.

    Args:
        name: to show; letters, digits, ``_``, ``-`` and ``.``.
        model: in eval mode.
        metadata: what it expects and says; input size, crop, interpolation, mean and deviation are always known.
        trained: whether the weights are more than a random start.
    """

    name: str
    model: nn.Module
    metadata: Metadata
    trained: bool

    @property
    def in_chans(self) -> int:
        """Channels of its images."""
        return self.metadata.in_chans or 3

    @property
    def side(self) -> int:
        """Side of its images in pixels."""
        assert self.metadata.input_size is not None
        return self.metadata.input_size

    def at(self, side: int) -> OpenedNetwork:
        """The same for images of another size."""
        return replace(self, metadata=self.metadata.replace(input_size=side))


def open_network(source: str, ema: bool = False) -> OpenedNetwork:
    """Opens a network by whatever names it.

    Args:
        source: a name timm knows (weights come with a tag: ``gemnet_a.imagenette96``), or whatever else
            `gemnet.trained.find_trained` finds: a search's or a training's folder, a checkpoint, weights, a genome's
            JSON with its weights beside it, a folder with ``config.json`` and ``model.safetensors``.
        ema: the moving average of the weights, where a checkpoint holds both.

    Raises:
        OpenError: there is no such network.
        GemnetError: the genome is not one, or the weights are of another network.
    """
    if Path(source).expanduser().exists() or source.endswith((".json", ".pth", ".safetensors")):
        return _from_files(source, ema)
    if Path(source).name != source:
        raise OpenError(f"There is no file or folder {source}.")
    if not timm.is_model(source):
        raise OpenError(f"{source!r} is neither a file or folder nor a network that timm knows.{_nearest_name(source)}")
    return _from_timm(source, source, pretrained="." in source)


def _nearest_name(source: str) -> str:
    return nearest(source.split(".", 1)[0], timm.list_models())


def _from_files(source: str, ema: bool) -> OpenedNetwork:
    found = find_trained(source, ema)
    model: Any = found.build()
    if found.weights is not None:
        model.load_state_dict(found.state_dict())
    known = found.metadata
    named = known.genome.name if known.genome is not None else known.arch
    place = Path(source).expanduser().resolve()
    if place.is_dir():  # networks of several searches or trainings may have one name: their folders tell them apart
        named = place.name
    elif named in ("", SEARCHED):
        named = place.parent.name if place.stem == SEARCHED else place.stem
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", named)
    return OpenedNetwork(name, model.eval(), _completed(known, model.pretrained_cfg), found.weights is not None)


def _from_timm(name: str, source: str, pretrained: bool) -> OpenedNetwork:
    try:
        model = timm.create_model(source, pretrained=pretrained)
    except GemnetError:
        raise
    except Exception as error:  # timm and the hub raise errors of many kinds
        text = " ".join(str(error).split())[:300]
        raise OpenError(f"{source!r} can't be built: {type(error).__name__}: {text}") from error
    genome = getattr(model, "genome", None)
    known = Metadata(genome=genome, arch="" if genome is not None else name.split(".", 1)[0])
    return OpenedNetwork(name, model.eval(), _completed(known, model.pretrained_cfg), pretrained)


def _completed(known: Metadata, cfg: Mapping[str, Any]) -> Metadata:
    """What weights say about their images, and timm's configuration of the model where they are silent."""
    size = cfg["input_size"]
    mean, std = known.statistics or (tuple(cfg["mean"]), tuple(cfg["std"]))
    channels = known.in_chans or size[0]
    if len(mean) not in (1, channels):  # timm's own channels, for a network of others
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    return known.replace(
        num_classes=cfg["num_classes"] if known.num_classes is None else known.num_classes,
        in_chans=channels,
        input_size=known.input_size or size[-1],
        crop_pct=known.crop_pct or cfg["crop_pct"],
        interpolation=known.interpolation or cfg["interpolation"],
        mean=mean,
        std=std,
        classes=known.classes or tuple(cfg.get("label_names") or ()),
    )
