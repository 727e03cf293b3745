"""Images in memory, divided into those a training learns from and those it is measured on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gemnet.data.datasets import DataSpec, load_train_images, train_dev_split
from gemnet.data.decoded import CROP_PCT, INTERPOLATION, resize
from gemnet.data.image_set import ImageSet
from gemnet.metadata import Metadata
from gemnet.training.recipe import RecipeError


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Images of one resolution, ready for training.

    Args:
        images: uint8 (n, channels, side, side), all of the data set's training images.
        labels: int64 (n,).
        train: indices of those to learn from.
        dev: indices of those to measure on.
        classes: names.
        mean: of each channel, in [0, 1].
        std: of each channel, in [0, 1].
        digest: of the data set.
        balance: see `gemnet.data.datasets.DataSpec`.
    """

    images: Tensor
    labels: Tensor
    train: Tensor
    dev: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    balance: str | None = None

    def metadata(self) -> Metadata:
        """What weights that are trained on these images say about themselves; the network is still to be named."""
        return Metadata(
            num_classes=len(self.classes),
            in_chans=self.channels,
            input_size=self.resolution,
            crop_pct=CROP_PCT,
            interpolation=INTERPOLATION,
            mean=tuple(map(float, self.mean)),
            std=tuple(map(float, self.std)),
            classes=self.classes,
        )

    def class_weights(self) -> Tensor:
        """What an image of each class counts so that the classes of the training part count alike; mean 1 over them."""
        counts = torch.bincount(self.labels[self.train], minlength=len(self.classes)).clamp(min=1)
        return counts.sum() / (len(counts) * counts.to(torch.float32))

    @property
    def channels(self) -> int:
        """1 or 3."""
        return int(self.images.shape[1])

    @property
    def resolution(self) -> int:
        """Side in pixels."""
        return int(self.images.shape[2])


def load_data(spec: DataSpec) -> TrainingData:
    """Reads a data set and divides its training images.

    Raises:
        DataError: see `gemnet.data.datasets`.
    """
    images = load_train_images(spec)
    train, dev = train_dev_split(images.labels, images.classes, spec.dev_fraction, spec.split_seed, images.groups)
    mean, std = channel_statistics(images)
    return TrainingData(
        images.images,
        images.labels,
        torch.from_numpy(train),
        torch.from_numpy(dev),
        images.classes,
        mean,
        std,
        images.digest,
        spec.balance,
    )


def channel_statistics(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, in [0, 1], from at most 10,000 evenly spaced images."""
    step = max(1, len(images) // 10_000)
    sample = images.images[::step].to(torch.float32) / 255
    std, mean = torch.std_mean(sample, dim=(0, 2, 3))
    return tuple(round(float(v), 4) for v in mean), tuple(round(max(float(v), 1e-3), 4) for v in std)


def at_fidelity(data: TrainingData, resolution: int | None = None, subset: float = 1.0) -> TrainingData:
    """The same data with fewer training images or another resolution.

    Args:
        data: at full fidelity.
        resolution: side in pixels; None keeps it.
        subset: share of the training images, in (0, 1]. Smaller subsets are part of larger ones and hold the classes in
            the same proportion. The development images stay.

    Raises:
        RecipeError: a share or resolution out of range.
    """
    if not 0 < subset <= 1:
        raise RecipeError(f"subset is a share of the training images in (0, 1], got {subset}.")
    if resolution is not None and not 1 <= resolution <= 4096:
        raise RecipeError(f"resolution is a number of pixels from 1 to 4096, got {resolution}.")
    train = data.train[: max(1, math.ceil(len(data.train) * subset))]
    if resolution is None or resolution == data.resolution:
        return TrainingData(**{**vars(data), "train": train})
    kept = torch.cat([train, data.dev])
    return TrainingData(
        images=resize(data.images[kept], resolution),
        labels=data.labels[kept],
        train=torch.arange(len(train)),
        dev=torch.arange(len(train), len(kept)),
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        digest=data.digest,
        balance=data.balance,
    )
