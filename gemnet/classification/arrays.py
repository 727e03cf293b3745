"""Images held in memory as a data set of mmengine: batches of bytes, cut from one array."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from gemnet.data.datasets import DataSpec, load_train_images, open_test_images, train_dev_split
from gemnet.data.decoded import CROP_PCT, INTERPOLATION, resize
from gemnet.errors import GemnetError, nearest
from gemnet.registry import DATASETS, FUNCTIONS

SPLITS = ("train", "dev", "train+dev", "val")


class ClassificationError(GemnetError):
    """A classification config that can't be built."""


@DATASETS.register_module()
class ImageArrays(Dataset[Any]):
    """Images of a data set as bytes; a batch is fetched at once.

    Args:
        source: ``digits``, ``cifar10``, an image folder or a timm name; see `gemnet.data.datasets.DataSpec`.
        split: ``train``, ``dev`` (set aside from the training images), ``train+dev``, or ``val``, the official test
            images, whose every opening is logged.
        root: data root.
        resolution: side in pixels; None keeps the images' own.
        dev_fraction: share of the training images in ``dev``.
        split_seed: draws that share.
        subset: share of ``train`` to use, in (0, 1].
        openings: file that takes a line when ``val`` is opened.
        purpose: what that line says it is opened for.

    Raises:
        ClassificationError: there is no such split, or what is to be a text is none.
        DataError: the data set can't be read.
    """

    def __init__(
        self,
        source: str = "cifar10",
        split: str = "train",
        root: str | None = None,
        resolution: int | None = None,
        dev_fraction: float = 0.1,
        split_seed: int = 0,
        subset: float = 1.0,
        openings: str = "test_openings.jsonl",
        purpose: str = "final figure",
    ) -> None:
        if split not in SPLITS:
            raise ClassificationError(f"Unknown split {split!r}.{nearest(split, SPLITS)}")
        for name, value in (("source", source), ("root", root or "")):
            if not isinstance(value, str | os.PathLike):
                raise ClassificationError(
                    f"{name} is a text, got {value!r}. In --cfg-options put it in quotes: data_root=\"'a,b'\"."
                )
        if not 0 < subset <= 1:
            raise ClassificationError(f"subset is a share of the training images in (0, 1], got {subset}.")
        spec = DataSpec(source, root, None if source == "digits" else resolution, dev_fraction, split_seed)
        if split == "val":
            images = open_test_images(spec, openings if get_rank() == 0 else os.devnull, purpose)
            index: NDArray[np.int64] = np.arange(len(images))
        else:
            images = load_train_images(spec)
            train, dev = train_dev_split(images.labels, images.classes, dev_fraction, split_seed, images.groups)
            train = train[: max(1, round(len(train) * subset))]
            index = {"train": train, "dev": dev, "train+dev": np.sort(np.concatenate([train, dev]))}[split]
        self.images = resize(images.images, resolution, INTERPOLATION)
        self.labels = images.labels
        self.index = torch.from_numpy(index)
        self.metainfo: dict[str, Any] = {
            "classes": list(images.classes),
            "channels": images.channels,
            "digest": images.digest,
            "input_size": int(self.images.shape[-1]),
            "crop_pct": CROP_PCT,
            "interpolation": INTERPOLATION,
        }

    @classmethod
    def describe(cls, **options: Any) -> tuple[tuple[str, ...], int]:
        """Names of the classes, and channels, of the training images of a data set with these options."""
        images = cls(**{**options, "split": "train"}).metainfo
        return tuple(images["classes"]), images["channels"]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        """One image: ``inputs`` uint8 (channels, side, side), ``labels`` int64 ()."""
        return {"inputs": self.images[self.index[place]], "labels": self.labels[self.index[place]]}

    def __getitems__(self, places: Sequence[int]) -> dict[str, Tensor]:
        """A batch: ``inputs`` uint8 (n, channels, side, side), ``labels`` int64 (n,)."""
        index = self.index[torch.as_tensor(places)]
        return {"inputs": self.images[index], "labels": self.labels[index]}


@FUNCTIONS.register_module()
def whole_batch(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Collates what `ImageArrays` fetched: a batch already."""
    return batch
