"""Distillation: a trained network whose logits a training learns from beside the labels.

Hinton et al. 2015 (arXiv:1503.02531). The teacher sees the same augmented images as the student, as it was trained to
see them: normalised by its own mean and deviation, at its own size. Only its logits are used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo
from torch import Tensor
from torch.nn import functional as F

from gemnet.checkpoint import aligned, describe_mismatch, load_checkpoint, state_dict_of
from gemnet.errors import GemnetError, nearest
from gemnet.metadata import Metadata, metadata_of
from gemnet.registered import registered_names
from gemnet.trained import find_trained

IMAGENET_CLASSES = 1000


class TeacherError(GemnetError):
    """A teacher that isn't there, or whose classes are not those of the images."""


@dataclass(frozen=True)
class Distillation:
    """Whom a training learns from, and how much.

    Args:
        network: a tag of the zoo (``gemnet_a.imagenette96``), a checkpoint, the work folder of a search or a training,
            or a timm name.
        checkpoint: weights of a timm name; None for those timm fetches.
        weight: share of the teacher in the loss; the labels have the rest.
        temperature: logits are divided by it; the higher, the more the unlikely classes tell.
        side: of the images the teacher sees, in pixels; None for what it was trained at.
        classes: index of each of the images' classes among the teacher's; None where names say it: the same names, or
            WordNet's (``n01440764``) for a network that tells ImageNet's thousand classes apart.

    Raises:
        TeacherError: a value out of range.
    """

    network: str
    checkpoint: str | None = None
    weight: float = 0.5
    temperature: float = 2.0
    side: int | None = None
    classes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, least, most in (("weight", 0, 1), ("temperature", 0.1, 100)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not least <= value <= most:
                raise TeacherError(f"teacher.{name} lies between {least} and {most}, got {value!r}.")
        if self.side is not None and not 8 <= self.side <= 4096:
            raise TeacherError(f"teacher.side is a number of pixels from 8 to 4096, got {self.side!r}.")

    def identity(self) -> dict[str, Any]:
        """What results depend on, as plain data: the weights by their content, wherever they lie.

        Raises:
            GemnetError: there are no such weights.
        """
        file = _weights_file(self)
        content = {"sha256": _sha256(str(file), file.stat().st_mtime_ns)} if file else {"network": self.network}
        return {
            **{key: value for key, value in asdict(self).items() if key not in ("network", "checkpoint")},
            **content,
        }


class Teacher:
    """A trained network in eval mode, with the loss that it adds.

    Args:
        options: whom to learn from.
        classes: names of the images' classes, in the order of the student's logits.
        channels: of the images.

    Raises:
        TeacherError: no such network or weights, or its classes are not those of the images.
        GemnetError: weights that can't be read.
    """

    def __init__(self, options: Distillation, classes: Sequence[str], channels: int) -> None:
        self.options = options
        network, about = _load(options)
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        made_for: Any = getattr(network, "pretrained_cfg", None) or {}
        self.channels = about.in_chans or 3
        if channels not in (1, self.channels):
            raise TeacherError(
                f"Teacher {options.network!r} sees {self.channels} channels, the images have {channels}."
            )
        mean, std = about.statistics or (made_for.get("mean"), made_for.get("std"))
        if mean is None or std is None:
            raise TeacherError(f"Teacher {options.network!r} doesn't say how its images were normalised.")
        self.mean, self.std = (torch.tensor(values)[None, :, None, None] for values in (mean, std))
        self.side = options.side or about.input_size or int(made_for.get("input_size", (0, 0, 0))[1])
        self.places = torch.tensor(_class_places(options, about, network.num_classes, classes))

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self  # never changed: copies of a student have the same teacher

    @torch.no_grad()
    def logits(self, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """What the teacher says of a student's images; float32 (n, classes of the student).

        Args:
            images: float32 (n, channels, side, side), normalised for the student.
            mean: that was taken off them, in [0, 1]; broadcasts over the images.
            std: they were divided by.
        """
        if self.places.device != images.device:
            self.network.to(images.device)
            self.mean, self.std, self.places = (each.to(images.device) for each in (self.mean, self.std, self.places))
        images = images * std + mean
        if images.shape[1] != self.channels:
            images = images.expand(-1, self.channels, -1, -1)
        images = (images - self.mean) / self.std
        if self.side and images.shape[2] != self.side:
            smaller = self.side < images.shape[2]
            images = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=smaller)
        found: Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return found[:, self.places].to(torch.float32)

    def loss(self, label_loss: Tensor, logits: Tensor, taught: Tensor) -> Tensor:
        """The whole loss: the labels', and the divergence from the teacher at the temperature, times its square.

        Args:
            label_loss: from the labels.
            logits: of the student (n, classes).
            taught: of the teacher (n, classes).
        """
        weight, temperature = self.options.weight, self.options.temperature
        student = F.log_softmax(logits / temperature, 1)
        divergence = F.kl_div(student, F.log_softmax(taught / temperature, 1), reduction="batchmean", log_target=True)
        return (1 - weight) * label_loss + weight * temperature**2 * divergence


def _load(options: Distillation) -> tuple[Any, Metadata]:
    """The network with its weights, and what these say about themselves."""
    name = options.network
    if options.checkpoint is None and (Path(name).expanduser().exists() or name.split(".")[0] in registered_names()):
        trained = find_trained(name)
        network = trained.build()
        network.load_state_dict(trained.state_dict())
        return network, trained.metadata
    if not timm.is_model(name.split(".")[0]):
        raise TeacherError(
            f"There is no teacher {name!r}: neither a file, a folder, a tag nor a name of timm's."
            f"{nearest(name.split('.')[0], timm.list_models())}"
        )
    if options.checkpoint is None:
        try:
            return timm.create_model(name, pretrained=True), Metadata()
        except Exception as error:  # no network, no such weights, a hub that is down
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise TeacherError(
                f"The weights of teacher {name!r} can't be fetched ({reason}). Give a file of them: teacher.checkpoint."
            ) from None
    checkpoint = load_checkpoint(options.checkpoint)
    about = metadata_of(checkpoint, options.checkpoint)
    network = timm.create_model(name)
    weights = aligned(state_dict_of(checkpoint), network.state_dict())
    last = weights.get(f"{network.pretrained_cfg.get('classifier')}.weight")
    if last is not None and last.shape[0] != network.num_classes:
        network = timm.create_model(name, num_classes=last.shape[0])
    difference = describe_mismatch(network, weights)
    if difference:
        raise TeacherError(f"{options.checkpoint}: these are not the weights of {name!r}: {difference}.")
    network.load_state_dict(weights)
    return network, about


def _class_places(options: Distillation, about: Metadata, outputs: int, classes: Sequence[str]) -> list[int]:
    """Where each class of the images stands among the teacher's logits."""
    if options.classes is not None:
        if len(options.classes) != len(classes) or not all(0 <= place < outputs for place in options.classes):
            raise TeacherError(
                f"teacher.classes lists {len(options.classes)} places for {len(classes)} classes; each is a number "
                f"from 0 to {outputs - 1}."
            )
        return list(options.classes)
    named = list(about.classes)
    if not named and outputs == IMAGENET_CLASSES:
        named = list(ImageNetInfo().label_names())
    if set(classes) <= set(named):
        return [named.index(name) for name in classes]
    if not named and outputs == len(classes):
        return list(range(outputs))
    shown = ", ".join(map(str, classes[:3]))
    raise TeacherError(
        f"Teacher {options.network!r} tells {outputs} classes apart, the images have {len(classes)} ({shown}, ...), "
        "and their names don't say which of them these are. Give their places as teacher.classes, or train the teacher "
        "a new classifier on these images first, with configs/classification/finetune.py."
    )


def _weights_file(options: Distillation) -> Path | None:
    if options.checkpoint is not None:
        file = Path(options.checkpoint).expanduser()
        if not file.is_file():
            raise TeacherError(f"teacher.checkpoint is {options.checkpoint!r}: there is no such file.")
        return file
    if Path(options.network).expanduser().exists() or options.network.split(".")[0] in registered_names():
        return find_trained(options.network).weights
    return None


@lru_cache(maxsize=8)
def _sha256(file: str, _changed: int) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
