"""Augmentation of a whole batch at once, on its device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Augmentation:
    """Random crops, mirror images and cutout on a whole batch of bytes, then normalisation.

    Bytes are moved, not floats, and each step is one operation on the batch: on a CPU a batch takes a few milliseconds.

    Args:
        mean: of each channel, in [0, 1].
        std: of each channel, in [0, 1].
        crop: random crops after padding with the mean colour by this share of the side; 0 for none.
        flip: whether images may be mirrored.
        cutout: side of a square of the mean colour put over each image, as a share of its side; 0 for none.
        device: where the work is done.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        crop: float = 0.0,
        flip: bool = False,
        cutout: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.crop, self.flip, self.cutout = crop, flip, cutout
        self.device = torch.device(device)
        self.mean, self.std = on_byte_scale(mean, self.device), on_byte_scale(std, self.device)
        self.fill = torch.round(self.mean).to(torch.uint8)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augments uint8 images (n, channels, side, side); float32 in channels_last comes back."""
        n, side = len(images), images.shape[2]
        images = images.to(self.device)
        pad = round(self.crop * side)
        if pad:
            wide = self.fill.expand(n, -1, side + 2 * pad, side + 2 * pad).clone()
            wide[:, :, pad:-pad, pad:-pad] = images
            corner = torch.randint(0, 2 * pad + 1, (2, n), generator=generator).to(self.device)
            windows = wide.unfold(2, side, 1).unfold(3, side, 1)  # (n, channels, 2 pad + 1, 2 pad + 1, side, side)
            images = windows[torch.arange(n, device=self.device), :, corner[0], corner[1]]
        if self.flip:
            mirrored = (torch.rand(n, generator=generator) < 0.5).to(self.device)
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if self.cutout:
            centre = torch.randint(0, side, (2, n), generator=generator).to(self.device)
            away = (torch.arange(side, device=self.device) - centre[..., None]).abs()  # (2, n, side)
            inside = away * 2 < round(self.cutout * side)
            images = torch.where((inside[0, :, :, None] & inside[1, :, None])[:, None], self.fill, images)
        return self.normalise(images)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images as float32 in channels_last, less the mean, over the standard deviation."""
        return normalised(images, self.mean, self.std)


def on_byte_scale(values: Sequence[float], device: torch.device | str = "cpu") -> Tensor:
    """A number a channel in [0, 1] as a tensor in [0, 255] that broadcasts over images; (1, channels, 1, 1)."""
    return torch.tensor(values, device=device)[None, :, None, None] * 255


def normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 images (n, channels, h, w) as float32 in channels_last, less ``mean``, over ``std`` (`on_byte_scale`)."""
    return images.to(torch.float32, memory_format=torch.channels_last).sub_(mean).div_(std)
