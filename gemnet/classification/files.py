"""Image folders too large to be held in memory, read and augmented an image at a time: ImageNet's form.

Used by configs as ``dict(type='gemnet.ImageFiles', ...)``. Worker processes decode, crop at random, mirror and apply
RandAugment (timm's transforms); bytes go to the model's device, where `gemnet.classification.model.BatchAugmentation`
normalises, erases and mixes a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import Dataset

from gemnet.classification.arrays import SPLITS, ClassificationError
from gemnet.data.datasets import train_dev_split
from gemnet.data.folders import image_folder, list_images
from gemnet.data.reading import read_image
from gemnet.errors import nearest
from gemnet.registry import DATASETS


@DATASETS.register_module()
class ImageFiles(Dataset[Any]):
    """Images of a folder, decoded when they are asked for.

    Args:
        source: an image folder (``<source>/train/<class>/*``, ``<source>/val/<class>/*``), or its name here or below
            ``root``.
        split: ``train``, ``dev`` (set aside from the training images), ``train+dev``, or ``val``, the official test
            images.
        root: data root; default ``$GEMNET_DATA``, else ``data``.
        resolution: side in pixels the network sees.
        augment: whether images are cropped at random, mirrored and changed; else the centre is cropped.
        dev_fraction: share of the training images in ``dev``.
        split_seed: draws that share.
        scale: share of the image's area that a random crop has, least and most.
        rand_augment: timm's name of a RandAugment policy, such as ``rand-m7-mstd0.5-inc1``; None for none.
        color_jitter: strength of random brightness, contrast and saturation where there is no RandAugment.
        crop_pct: share of the shorter side that the centre crop keeps.
        interpolation: of resizing.

    Raises:
        ClassificationError: there is no such split.
        DataError: the folder can't be read.
    """

    def __init__(
        self,
        source: str,
        split: str = "train",
        root: str | None = None,
        resolution: int = 224,
        augment: bool = False,
        dev_fraction: float = 0.04,
        split_seed: int = 0,
        scale: tuple[float, float] = (0.08, 1.0),
        rand_augment: str | None = None,
        color_jitter: float = 0.0,
        crop_pct: float = 0.875,
        interpolation: str = "bicubic",
    ) -> None:
        if split not in SPLITS:
            raise ClassificationError(f"Unknown split {split!r}.{nearest(split, SPLITS)}")
        folder = image_folder(source, root)
        classes, self.paths, labels = list_images(folder, "val" if split == "val" else "train")
        self.labels = torch.tensor(labels, dtype=torch.int64)
        index: Any = np.arange(len(labels))
        if split in ("train", "dev"):
            train, dev = train_dev_split(self.labels, classes, dev_fraction, split_seed)
            index = train if split == "train" else dev
        self.index = torch.from_numpy(index)
        self.metainfo: dict[str, Any] = {
            "classes": list(classes),
            "channels": 3,
            "input_size": resolution,
            "crop_pct": crop_pct,
            "interpolation": interpolation,
        }
        self.transform = create_transform(
            resolution,
            is_training=augment,
            scale=tuple(scale),
            auto_augment=rand_augment if augment else None,
            color_jitter=color_jitter,
            interpolation=interpolation,
            crop_pct=crop_pct,
            normalize=False,
        )

    @classmethod
    def describe(cls, source: str, root: str | None = None, **_: Any) -> tuple[tuple[str, ...], int]:
        """Names of the classes, and channels, of a data set, without opening an image."""
        return tuple(list_images(image_folder(source, root), "train")[0]), 3

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        """One image: ``inputs`` uint8 (3, side, side), ``labels`` int64 ().

        Raises:
            ImageFileError: it can't be decoded.
        """
        number = int(self.index[place])
        return {"inputs": self.transform(read_image(self.paths[number])), "labels": self.labels[number]}
