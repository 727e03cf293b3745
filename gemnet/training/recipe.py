"""How a network is trained: the settings that a comparison gives all networks alike, and the learning rate's course."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from gemnet.errors import GemnetError, nearest
from gemnet.training.mixing import Mixing
from gemnet.training.teacher import Distillation

SCHEDULES = ("linear", "cosine")
PRECISIONS = ("float32", "bfloat16")
MOST_MAGNITUDE = 30
"""The strongest RandAugment torchvision knows."""
FIRST_SETTINGS = 10
"""Settings that recipes had from the start. Later ones are part of a recipe's identity only where they are used, so
that adding one does not turn finished trainings into those of another recipe."""


class RecipeError(GemnetError):
    """A training recipe or fidelity with a value out of range; the message names it."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    SGD with Nesterov momentum; the learning rate rises linearly to its peak and then falls to zero; decay on
    weights of convolutions and linear layers only, not on norms, biases and edge weights.

    Args:
        batch_size: images a step.
        lr: peak learning rate.
        warmup: share of the steps during which it rises.
        momentum: of SGD.
        weight_decay: on matrices and kernels.
        label_smoothing: in [0, 1).
        crop: random crops after padding by this share of the side; 0 for none.
        flip: whether images may be mirrored (not for digits or letters).
        cutout: side of a square of the mean colour put over each image, as a share of its side; 0 for none.
        ema: decay a step of an exponential moving average of the weights, which then is what is measured and kept;
            None for none. It rises to this value as (1 + step) / (10 + step), so that short trainings have left their
            first weights behind, too.
        schedule: how the learning rate falls: ``linear`` or ``cosine``.
        scale: least share of the image's area in a random resized crop, which then takes the place of ``crop``; 1 for
            none. A third is usual.
        randaugment: magnitude of RandAugment's two operations, up to 30; 0 for none. 9 is usual.
        mixup: alpha of mixup; 0 for none. See `gemnet.training.mixing.Mixing`.
        cutmix: alpha of CutMix; 0 for none. With both, each batch gets one of them.
        progressive: share of the side at which training begins; the side rises evenly to the whole one, at which
            the last fifth of the epochs is trained. 1 for the whole side throughout.
        teacher: whose logits are learnt from beside the labels: a tag of the zoo, a checkpoint, a work folder or a timm
            name, or all settings of `gemnet.training.teacher.Distillation`; None for none.
        precision: of convolutions and matrices in a training step: ``float32``, or ``bfloat16`` by automatic mixed
            precision, faster on GPUs and on processors with AMX. Weights, norms and measurements stay in float32.

    Raises:
        RecipeError: a value out of its range; the message names it.
    """

    batch_size: int = 128
    lr: float = 0.2
    warmup: float = 0.25
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    crop: float = 0.125
    flip: bool = True
    cutout: float = 0.0
    ema: float | None = None
    schedule: str = "linear"
    scale: float = 1.0
    randaugment: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    progressive: float = 1.0
    teacher: str | Distillation | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        ranges = {
            "batch_size": (1, 1 << 20),
            "lr": (1e-8, 100),
            "warmup": (0, 0.9),
            "momentum": (0, 0.9999),
            "weight_decay": (0, 1),
            "label_smoothing": (0, 0.9),
            "crop": (0, 0.5),
            "cutout": (0, 1),
            "scale": (0.01, 1),
            "randaugment": (0, MOST_MAGNITUDE),
            "mixup": (0, 100),
            "cutmix": (0, 100),
            "progressive": (0.25, 1),
        }
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not least <= value <= most:
                raise RecipeError(f"{name} lies between {least} and {most}, got {value!r}.")
        if self.ema is not None and not 0 < self.ema < 1:
            raise RecipeError(f"ema is a decay between 0 and 1, or None for none, got {self.ema!r}.")
        for name, known in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value not in known:
                raise RecipeError(f"{name} is {' or '.join(known)}, got {value!r}.{nearest(str(value), known)}")

    @property
    def distillation(self) -> Distillation | None:
        """Whom it learns from, with all settings."""
        return Distillation(self.teacher) if isinstance(self.teacher, str) else self.teacher

    @property
    def mixing(self) -> Mixing:
        """What is done to a batch with other images of it."""
        return Mixing(self.mixup, self.cutmix)

    def identity(self) -> dict[str, Any]:
        """The settings that results depend on, as plain data: what a training is found again by.

        Raises:
            GemnetError: the teacher isn't there.
        """
        used = {
            each.name: getattr(self, each.name)
            for number, each in enumerate(fields(self))
            if number < FIRST_SETTINGS or getattr(self, each.name) != each.default
        }
        if self.ema is not None:
            used["ema_rises"] = True  # it did not before 0.2
        if self.distillation is not None:
            used["teacher"] = self.distillation.identity()
        return used


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """Learning rate of step ``step`` (from 0) of ``total``: up in a line, then down in a line or half a cosine wave."""
    rise = recipe.warmup * total
    done = step + 0.5  # the middle of the step: neither the first nor the last is at zero
    if done < rise:
        return recipe.lr * (done / rise)
    left = (total - done) / (total - rise)
    return recipe.lr * (left if recipe.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2)


def side_of_epoch(side: int, progressive: float, epoch: int, epochs: int) -> int:
    """Side in pixels at which epoch ``epoch`` (from 0) of ``epochs`` is trained; a multiple of 4, or the whole side.

    Args:
        side: the whole side.
        progressive: share of it at the start; see `Recipe`.
        epoch: from 0.
        epochs: of the training.
    """
    risen = min(1.0, epoch / (0.8 * (epochs - 1))) if epochs > 1 else 1.0
    share = progressive + (1 - progressive) * risen
    return side if share >= 1 else min(side, max(4, 4 * round(side * share / 4)))
