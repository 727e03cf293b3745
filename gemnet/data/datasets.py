"""Images for training, decoded once and kept as bytes: digits, scenes of digits, CIFAR-10, folders, timm sets.

A data set is one uint8 tensor. Small sets are decoded in seconds, written to a cache beside nothing but their shape,
and mapped into memory from there, so that worker processes share one copy and no training step ever decodes an image.

The official test images (`val`) are never read here unless they are asked for by that name: see `open_test_images`.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from gemnet.cache import cache_root
from gemnet.data.decoded import CACHE_FORMAT, INTERPOLATION, content_digest, decode_images, from_cache, resize
from gemnet.data.folders import image_folder, named_folder, read_folder, split_folder
from gemnet.data.image_set import TIMM_PREFIXES, DataError, ImageSet, data_root
from gemnet.data.openings import log_opening
from gemnet.data.reading import as_colour
from gemnet.data.scenes import draw_scenes
from gemnet.genome import MAX_INPUT_SIZE

DRAWN = ("digits", "digit_scenes")
"""Sources made of scikit-learn's digits."""
BUILT_IN = (*DRAWN, "cifar10")
"""Sources known by name."""
DIGITS_TEST_SHARE, DIGITS_TEST_SEED = 0.2, 0
BALANCES = (None, "sampler", "weights")
IMBALANCE = 5
"""Times the images of the smallest class that the largest must have for a note."""

logger = logging.getLogger("gemnet.data")
SCENES = {"train": (4500, 1, "834b27af88f5ddd4"), "val": (2000, 2, "5ac3cab59eab4f9f")}
"""Of each part of the digit scenes: how many, the seed they are drawn by, the digest they have on every machine."""


@dataclass(frozen=True)
class DataSpec:
    """Which images to search on, and how their training images are divided.

    Args:
        source: ``digits`` (in scikit-learn, 8x8 grey), ``digit_scenes`` (drawn from these, 20x20 grey;
            `gemnet.data.scenes`), ``cifar10``, the path of an image folder (``<path>/train/<class>/*``, or
            ``<path>/<class>/*``), the name of such a folder here or below the data root, or a timm name such as
            ``torch/fashion_mnist``.
        root: data root, for names; default ``$GEMNET_DATA``, else ``data``.
        resolution: side in pixels images are kept at (shorter side resized, centre cropped); None keeps theirs, which
            must then be one and the same.
        dev_fraction: share of the training images, of each class alike, set aside to measure candidates on.
        split_seed: draws that share.
        balance: what is done about classes of unequal size: ``sampler`` draws images so that each class comes equally
            often, ``weights`` weighs the loss so that each class counts equally; None leaves them as they are.

    Raises:
        DataError: a share outside (0, 1), a resolution that is not positive, an unknown way to balance.
    """

    source: str = "digits"
    root: str | None = None
    resolution: int | None = None
    dev_fraction: float = 0.2
    split_seed: int = 0
    balance: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.dev_fraction < 1:
            raise DataError(f"dev_fraction lies between 0 and 1, got {self.dev_fraction}.")
        if self.resolution is not None and not 1 <= self.resolution <= MAX_INPUT_SIZE:
            raise DataError(f"resolution is a number of pixels from 1 to {MAX_INPUT_SIZE}, got {self.resolution}.")
        if self.balance not in BALANCES:
            raise DataError(f"balance is one of {', '.join(map(str, BALANCES))}, got {self.balance!r}.")


def load_train_images(spec: DataSpec) -> ImageSet:
    """All training images of a data set.

    Raises:
        DataError: missing, empty, of one class, unreadable or of mixed sizes; the message names the culprit.
    """
    if spec.source in DRAWN and os.path.isdir(spec.source):
        logger.warning("%s: the data set of this name, not your folder; its path is ./%s", spec.source, spec.source)
    images = _load(spec, "train")
    if spec.balance is None and (note := imbalance_note(images.labels, images.classes)):
        logger.warning("%s: %s", spec.source, note)
    return images


def imbalance_note(labels: Tensor, classes: Sequence[str]) -> str:
    """A sentence where one class has at least five times the images of another; "" elsewhere."""
    counts = torch.bincount(labels, minlength=len(classes))
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] < IMBALANCE * counts[least]:
        return ""
    return (
        f"class {classes[most]!r} has {int(counts[most])} images, {classes[least]!r} has {int(counts[least])}. Look at "
        "balanced accuracy, too; data.balance=sampler or weights makes classes count alike in a search."
    )


def open_test_images(spec: DataSpec, log: str | os.PathLike[str], purpose: str) -> ImageSet:
    """The official test images, for a final figure. Every opening is written to a log, with the commit.

    Args:
        spec: the data set.
        log: file one JSON line is appended to: time, commit, data set, digest and purpose.
        purpose: what is measured.

    Raises:
        DataError: as `load_train_images`, or the data set has no test images.
    """
    images = _load(spec, "val")
    log_opening(log, spec.source, purpose, {"images": len(images), "digest": images.digest})
    return images


def missing_test_images(spec: DataSpec) -> str:
    """Why a data set has no official test images, in a sentence; "" where it seems to have some. None are opened."""
    try:
        if spec.source in BUILT_IN or spec.source.startswith(TIMM_PREFIXES):
            return ""
        split_folder(image_folder(spec.source, spec.root).resolve(), "val")
    except DataError as error:
        return str(error)
    return ""


def train_dev_split(
    labels: Tensor, classes: Sequence[str], dev_fraction: float, seed: int, groups: Tensor | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divides images into a training and a development part, each class in the same proportion.

    Args:
        labels: int64 (n,).
        classes: names, for messages.
        dev_fraction: share of each class that goes to the development part; at least one image, never all.
        seed: draws the division.
        groups: see `ImageSet`; the part that goes to the development part is of whole groups.

    Returns:
        Indices of the training part, shuffled class by class and interleaved so that every prefix holds the classes in
        proportion (a shorter training takes a prefix), and of the development part, ascending.

    Raises:
        DataError: a class with a single image.
    """
    rng = np.random.default_rng(seed)
    array = labels.numpy()
    train, place, dev = [], [], []
    for label, name in enumerate(classes):
        members = rng.permutation(np.flatnonzero(array == label))
        if len(members) < 2:
            raise DataError(
                f"Class {name!r} has {len(members)} training image(s); a training and a development image are needed. "
                "Add images or remove the class."
            )
        if groups is None:
            held_out = np.arange(len(members)) < min(max(round(len(members) * dev_fraction), 1), len(members) - 1)
        else:
            held_out = _of_whole_groups(groups.numpy()[members], dev_fraction)
        dev.append(members[held_out])
        rest = members[~held_out]
        train.append(rest)
        place.append((np.arange(len(rest)) + 0.5) / len(rest))
    order = np.argsort(np.concatenate(place), kind="stable")
    return np.concatenate(train)[order].astype(np.int64), np.sort(np.concatenate(dev)).astype(np.int64)


def _of_whole_groups(groups: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which images are of the first groups that come to a share of all; bool (n,). At least one group, never all."""
    names, first, counts = np.unique(groups, return_index=True, return_counts=True)
    order = np.argsort(first)
    taken = int(np.searchsorted(np.cumsum(counts[order]), share * len(groups), side="right"))
    return np.isin(groups, names[order][: min(max(taken, 1), len(names) - 1)])


def _load(spec: DataSpec, split: str) -> ImageSet:
    if spec.source in DRAWN:
        images = _digits(split) if spec.source == "digits" else _digit_scenes(split)
        pixels = resize(images.images, spec.resolution, INTERPOLATION)
        if pixels is images.images:
            return images
        return replace(
            images, images=pixels, digest=content_digest(pixels, images.labels, images.classes, images.groups)
        )
    if spec.source == "cifar10" and named_folder(spec.source, spec.root) is None:
        return _torchvision_cifar10(spec, split)
    if spec.source.startswith(TIMM_PREFIXES):
        return _timm(spec, split)
    return read_folder(image_folder(spec.source, spec.root), split, spec.resolution)


def _digits(split: str) -> ImageSet:
    """The 1,797 digits of scikit-learn. It has no official test part; a fifth, drawn once for all, serves as one."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(np.rint(data.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(data.target.astype(np.int64))
    classes = tuple(str(name) for name in data.target_names)
    train, val = train_dev_split(labels, classes, DIGITS_TEST_SHARE, DIGITS_TEST_SEED)
    index = torch.from_numpy(np.sort(train) if split == "train" else val)
    images, labels = images[index], labels[index]
    return ImageSet(images, labels, classes, content_digest(images, labels, classes))


def _digit_scenes(split: str) -> ImageSet:
    """Scenes of the digits' training part, or of its test part. A digit is in several: these are a group."""
    digits = _digits(split)
    count, seed, digest = SCENES[split]
    picks = np.arange(count) % len(digits)

    def draw() -> Tensor:
        return torch.from_numpy(draw_scenes(digits.images[:, 0].numpy(), picks, seed)[:, None])

    key = f"digit-scenes-{split}-{digest}"
    scenes = from_cache(key, draw, digits.labels[torch.from_numpy(picks)].tolist(), digits.classes)
    if scenes.digest != digest:
        raise DataError(
            f"The {split} scenes drawn here have digest {scenes.digest}, expected {digest}: this is another version of "
            f"the digits or of the drawing than results were measured on. Delete {cache_root() / 'images' / key} and "
            "install scikit-learn and gemnet again."
        )
    if split == "val":  # is not divided
        return scenes
    groups = torch.from_numpy(picks)
    return replace(scenes, groups=groups, digest=content_digest(scenes.images, scenes.labels, scenes.classes, groups))


def _torchvision_cifar10(spec: DataSpec, split: str) -> ImageSet:
    """CIFAR-10 as torchvision downloads it (its files are checked against known MD5 sums before they are opened)."""
    from torchvision.datasets import CIFAR10

    root = data_root(spec.root)
    try:
        data = CIFAR10(str(root), train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"CIFAR-10 is not below {root} and could not be downloaded ({error}). Put it there as an image folder "
            f"({root}/cifar10/train/<class>/*) or as torchvision's {root}/cifar-10-batches-py, or set GEMNET_DATA to "
            "the folder it lies in."
        ) from None
    images = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
    images = resize(images, spec.resolution, INTERPOLATION)
    labels = torch.tensor(data.targets, dtype=torch.int64)
    classes = tuple(data.classes)
    return ImageSet(images, labels, classes, content_digest(images, labels, classes))


def _timm(spec: DataSpec, split: str) -> ImageSet:
    """Any data set timm can open by name; decoded once."""
    from timm.data import create_dataset

    root = data_root(spec.root)
    root.mkdir(parents=True, exist_ok=True)
    try:
        split_name = "train" if split == "train" else "validation"
        data: Any = create_dataset(spec.source, root=str(root), split=split_name, download=True)
        length = len(data)
    except Exception as error:  # torchvision, datasets and tfds each raise their own kinds
        raise DataError(
            f"timm could not open data set {spec.source!r} ({split}) below {root}: {type(error).__name__}: {error}"
        ) from None
    if not length:
        raise DataError(f"Data set {spec.source!r} ({split}) is empty.")
    labels: list[int] = [0] * length

    def read(index: int) -> Image.Image:
        image, labels[index] = data[index]
        picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
        return as_colour(ImageOps.exif_transpose(picture), names[index])

    names = [f"{spec.source}[{index}]" for index in range(length)]

    probe = hashlib.sha256(f"{CACHE_FORMAT} {spec.source} {split} {length} {spec.resolution}".encode())
    for index in np.unique(np.linspace(0, length - 1, 64).astype(int)).tolist():
        probe.update(read(index).tobytes() + str(labels[index]).encode())

    def decode() -> Tensor:
        return decode_images(read, names, spec.resolution, workers=1)  # readers of streams are not thread-safe

    named = getattr(data, "classes", None) or getattr(getattr(data, "reader", None), "class_to_idx", None)
    return from_cache(probe.hexdigest()[:24], decode, labels, tuple(map(str, named)) if named else None)
