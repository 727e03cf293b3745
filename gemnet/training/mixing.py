"""Mixup, CutMix and random erasing of a batch on its device.

Zhang et al. 2018 (arXiv:1710.09412), Yun et al. 2019 (arXiv:1905.04899), Zhong et al. 2020 (arXiv:1708.04896). All of
a batch's randomness comes from the generator passed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gemnet.errors import GemnetError

ERASED_AREA = (0.02, 1 / 3)  # share of the image, as in the paper and in timm
ERASED_ASPECT = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class Mixing:
    """What is done to a batch after it has been normalised.

    Args:
        mixup: alpha of the Beta distribution two images' weights are drawn from; 0 for none.
        cutmix: alpha of the Beta distribution of the share that stays when a box of another image is pasted; 0 for
            none. With both, each batch gets one of them, by lot.
        erase: share of the images in which a rectangle becomes noise; 0 for none.

    Raises:
        GemnetError: a value out of range.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("mixup", math.inf), ("cutmix", math.inf), ("erase", 1.0)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= most:
                raise GemnetError(f"{name} is at least 0{'' if most == math.inf else ' and at most 1'}, got {value!r}.")

    @property
    def mixes_labels(self) -> bool:
        """Whether labels become shares of classes."""
        return bool(self.mixup or self.cutmix)

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mixes a batch.

        Args:
            images: float32 (n, channels, height, width), normalised.
            labels: int64 (n,).
            num_classes: classes.
            rng: all randomness.

        Returns:
            Images, and labels: float32 (n, num_classes) where labels are mixed, else as they were.
        """
        if self.erase:
            images = erase(images, self.erase, rng)
        if not self.mixes_labels:
            return images, labels
        use_cutmix = bool(self.cutmix) and (not self.mixup or rng.random() < 0.5)
        alpha = self.cutmix if use_cutmix else self.mixup
        share = float(rng.beta(alpha, alpha))
        other = images.flip(0)  # a shuffled batch: reversed order is as good as any
        if use_cutmix:
            top, bottom, left, right = _box(images.shape[2], images.shape[3], 1 - share, rng)
            images = images.clone()
            images[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
        else:
            images = share * images + (1 - share) * other
        target = F.one_hot(labels, num_classes).to(images.dtype)
        return images, share * target + (1 - share) * target.flip(0)


def erase(images: Tensor, probability: float, rng: np.random.Generator) -> Tensor:
    """Fills a random rectangle of each image, with a probability, with standard normal noise; returns a new tensor."""
    n, _, height, width = images.shape
    area = rng.uniform(*ERASED_AREA, n) * height * width
    aspect = np.exp(rng.uniform(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1]), n))
    rows = np.minimum(np.rint(np.sqrt(area * aspect)), height).astype(np.int64)
    columns = np.minimum(np.rint(np.sqrt(area / aspect)), width).astype(np.int64)
    rows[rng.random(n) >= probability] = 0
    inside = _span(rows, height, rng)[:, :, None] & _span(columns, width, rng)[:, None, :]
    noise = torch.from_numpy(rng.standard_normal(tuple(images.shape), dtype=np.float32))
    mask = torch.from_numpy(inside)[:, None].to(images.device)
    return torch.where(mask, noise.to(images.device, images.dtype), images).contiguous(
        memory_format=torch.channels_last
    )


def _span(lengths: NDArray[np.integer], size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A run of ``lengths[i]`` places at random in row i; bool (n, size)."""
    start = np.floor(rng.random(len(lengths)) * (size - lengths + 1)).astype(np.int64)
    places = np.arange(size)
    return (places >= start[:, None]) & (places < (start + lengths)[:, None])


def _box(height: int, width: int, area: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of a box of this share of the area, cut off at the image's edges."""
    rows, columns = height * math.sqrt(area), width * math.sqrt(area)
    y, x = rng.random() * height, rng.random() * width
    top, bottom = max(0, round(y - rows / 2)), min(height, round(y + rows / 2))
    left, right = max(0, round(x - columns / 2)), min(width, round(x + columns / 2))
    return top, bottom, left, right
