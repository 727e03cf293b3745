"""Augmentation of a whole batch at once, on its device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode, v2

from gemnet.data.decoded import resize

ASPECT = (3 / 4, 4 / 3)
"""Width by height of a random resized crop, as is usual."""
ALIKE = 4
"""Images of a batch that get RandAugment's same operations: one by one they take twice the time at 96x96."""


class Augmentation:
    """Random crops, mirror images, RandAugment and cutout on a whole batch of bytes, then normalisation.

    Bytes are moved, not floats, and each step is one operation on the batch: on a CPU a batch takes a few milliseconds.

    Args:
        mean: of each channel, in [0, 1].
        std: of each channel, in [0, 1].
        crop: random crops after padding with the mean colour by this share of the side; 0 for none.
        flip: whether images may be mirrored.
        cutout: side of a square of the mean colour put over each image, as a share of its side; 0 for none.
        device: where the work is done.
        scale: least share of the area of a random resized crop, which takes the place of ``crop``; 1 for none.
        randaugment: magnitude (0 to 30) of RandAugment's two operations, by torchvision; 0 for none.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        crop: float = 0.0,
        flip: bool = False,
        cutout: float = 0.0,
        device: torch.device | str = "cpu",
        *,
        scale: float = 1.0,
        randaugment: int = 0,
    ) -> None:
        self.crop, self.flip, self.cutout, self.scale = crop, flip, cutout, scale
        self.device = torch.device(device)
        self.mean, self.std = on_byte_scale(mean, self.device), on_byte_scale(std, self.device)
        self.fill = torch.round(self.mean).to(torch.uint8)
        self.operations: v2.RandAugment | None = None
        if randaugment:
            colour = [float(value) for value in self.fill.flatten()]
            self.operations = v2.RandAugment(2, randaugment, interpolation=InterpolationMode.BILINEAR, fill=colour)

    def __call__(self, images: Tensor, generator: torch.Generator, side: int | None = None) -> Tensor:
        """Augments a batch.

        Args:
            images: uint8 (n, channels, side, side).
            generator: all randomness; on the CPU.
            side: of the images that come back; None keeps it.

        Returns:
            float32 (n, channels, side, side) in channels_last.
        """
        n, side = len(images), side or images.shape[2]
        images = images.to(self.device)
        if self.scale < 1:
            images = self._resized_crop(images, side, generator)
        images = resize(images, side)
        pad = round(self.crop * side)
        if pad and self.scale == 1:
            wide = self.fill.expand(n, -1, side + 2 * pad, side + 2 * pad).clone()
            wide[:, :, pad:-pad, pad:-pad] = images
            corner = torch.randint(0, 2 * pad + 1, (2, n), generator=generator).to(self.device)
            windows = wide.unfold(2, side, 1).unfold(3, side, 1)  # (n, channels, 2 pad + 1, 2 pad + 1, side, side)
            images = windows[torch.arange(n, device=self.device), :, corner[0], corner[1]]
        if self.flip:
            mirrored = (torch.rand(n, generator=generator) < 0.5).to(self.device)
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if self.operations is not None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(drawn_seed(generator))
                images = torch.cat([self.operations(alike) for alike in images.split(ALIKE)])
        if self.cutout:
            centre = torch.randint(0, side, (2, n), generator=generator).to(self.device)
            away = (torch.arange(side, device=self.device) - centre[..., None]).abs()  # (2, n, side)
            inside = away * 2 < round(self.cutout * side)
            images = torch.where((inside[0, :, :, None] & inside[1, :, None])[:, None], self.fill, images)
        return self.normalise(images)

    def _resized_crop(self, images: Tensor, side: int, generator: torch.Generator) -> Tensor:
        """A random box of each image, brought to ``side``: the crop of Szegedy et al. 2015 (arXiv:1409.4842)."""
        n = len(images)
        area, aspect, x, y = torch.rand(4, n, generator=generator)
        area = self.scale + (1 - self.scale) * area
        aspect = ASPECT[0] * (ASPECT[1] / ASPECT[0]) ** aspect
        width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        box = torch.zeros(n, 2, 3)  # in coordinates from -1 to 1
        box[:, 0, 0], box[:, 0, 2] = width, (2 * x - 1) * (1 - width)
        box[:, 1, 1], box[:, 1, 2] = height, (2 * y - 1) * (1 - height)
        places = F.affine_grid(box.to(self.device), [n, images.shape[1], side, side], align_corners=False)
        whole = images.to(torch.float32, memory_format=torch.channels_last)
        return F.grid_sample(whole, places, padding_mode="border", align_corners=False).round_().to(torch.uint8)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images as float32 in channels_last, less the mean, over the standard deviation."""
        return normalised(images, self.mean, self.std)


def on_byte_scale(values: Sequence[float], device: torch.device | str = "cpu") -> Tensor:
    """A number a channel in [0, 1] as a tensor in [0, 255] that broadcasts over images; (1, channels, 1, 1)."""
    return torch.tensor(values, device=device)[None, :, None, None] * 255


def normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 images (n, channels, h, w) as float32 in channels_last, less ``mean``, over ``std`` (`on_byte_scale`)."""
    return images.to(torch.float32, memory_format=torch.channels_last).sub_(mean).div_(std)


def drawn_seed(generator: torch.Generator) -> int:
    """A seed for randomness of another kind, drawn from a generator."""
    return int(torch.randint(1 << 62, (), generator=generator))
