"""Image sets in memory, and where data lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gemnet.errors import GemnetError

TIMM_PREFIXES = ("torch/", "hfds/", "hfids/", "tfds/", "wds/")
SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "validation", "test")}


SHOWN = 3  # culprits named in one message
TO_MEND = 20  # and so many that are to be mended one by one


class DataError(GemnetError):
    """A data set that can't be found, read or used. The message names the culprit."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images.

    Args:
        images: uint8 (n, channels, height, width); mapped from a file where the set is cached: don't write to it.
        labels: int64 (n,), each in ``range(len(classes))``.
        classes: names, in the order of the labels.
        digest: 16 hex digits of the sha256 of pixels, labels and names (and groups, where there are some): equal for
            equal content on any machine.
        groups: int64 (n,), of one label each, where images show the same things: a group is learnt from or measured
            on, never both. None where each image stands for itself.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    digest: str
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return int(self.images.shape[1])

    @property
    def resolution(self) -> int:
        """Side of the square images, in pixels."""
        return int(self.images.shape[2])


def data_root(root: str | None = None) -> Path:
    """The folder data sets lie in: ``root``, else ``$GEMNET_DATA``, else ``data``."""
    return Path(root or os.environ.get("GEMNET_DATA") or "data").expanduser()
