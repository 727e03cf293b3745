"""Decoded images: decoded once, then mapped from a cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gemnet.cache import cache_root, make_cache_folder
from gemnet.data.image_set import TO_MEND, DataError, ImageSet
from gemnet.data.reading import ImageFileError, centre_square
from gemnet.strict_json import parse_json

CACHE_FORMAT = 3  # part of every cache key: raise it when decoding changes
CROP_PCT, INTERPOLATION = 1.0, "bicubic"
"""How images become squares, by timm's names: nothing of the shorter side is cut off."""


def resize(images: Tensor, resolution: int | None, interpolation: str = "bilinear") -> Tensor:
    """Square uint8 images (n, c, h, h) at another resolution, antialiased; the same tensor if it is theirs.

    Args:
        images: of one size.
        resolution: side in pixels; None for theirs.
        interpolation: ``bilinear``, or ``bicubic``, which is Pillow's to within 1.
    """
    if resolution is None or resolution == images.shape[2]:
        return images
    parts = [
        torch.nn.functional.interpolate(
            part, size=(resolution, resolution), mode=interpolation, antialias=True, align_corners=False
        )
        for part in images.split(4096)  # in parts: the intermediate sums are wider than bytes
    ]
    return torch.cat(parts)


def decode_images(
    read: Callable[[int], Image.Image], names: Sequence[str], resolution: int | None, workers: int | None = None
) -> Tensor:
    """Brings images into one uint8 tensor (n, 3, side, side); grey ones have three equal channels.

    Args:
        read: gives an image of mode ``RGB``, upright (`gemnet.data.reading`).
        names: of the images, for messages.
        resolution: side in pixels; None keeps theirs, which must then be one and the same.
        workers: threads; None for one a core, at most eight.

    Raises:
        DataError: images that can't be read, or are not of one square size; the first twenty are named.
    """

    def pixels(index: int) -> NDArray[np.uint8] | str:
        try:
            image = read(index)
            if resolution is not None:
                image = centre_square(image, resolution, CROP_PCT, INTERPOLATION)
            return np.asarray(image)
        except ImageFileError as error:  # it names the file
            return str(error).rstrip(".")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return f"{names[index]} ({str(error) or type(error).__name__})"

    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        images: NDArray[np.uint8] | None = None
        bad: list[str] = []
        other: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, file by file
            for index, result in enumerate(pool.map(pixels, range(len(names)), chunksize=64)):
                if isinstance(result, str):
                    bad.append(result)
                    continue
                if images is None:
                    images = np.zeros((len(names), 3, *result.shape[:2]), dtype=np.uint8)
                    first = f"{names[index]} is {result.shape[1]}x{result.shape[0]}"
                if result.shape[:2] != images.shape[2:] or result.shape[0] != result.shape[1]:
                    other.append(f"{names[index]} is {result.shape[1]}x{result.shape[0]}")
                    continue
                images[index] = result.transpose(2, 0, 1)
    if bad:
        rest = f" and {len(bad) - TO_MEND} more" if len(bad) > TO_MEND else ""
        raise DataError(
            f"{len(bad)} of {len(names)} images can't be read: {'; '.join(bad[:TO_MEND])}{rest}. "
            "Replace or delete them."
        )
    assert images is not None
    if other:
        raise DataError(
            f"{len(other)} of {len(names)} images are not of one square size: {first}"
            + ("" if other[0] == first else f", but {other[0]}")
            + ". Give a side in pixels (data.resolution=64 in a search, resolution=64 in a data set): each is then "
            "resized and its centre cropped to a square."
        )
    return torch.from_numpy(images)


def content_digest(images: Tensor, labels: Tensor, classes: Sequence[str], groups: Tensor | None = None) -> str:
    content = hashlib.sha256(f"{tuple(images.shape)} {json.dumps(list(classes))}".encode())
    content.update(images.contiguous().numpy().data)
    for numbers in (labels, groups):
        if numbers is not None:
            content.update(numbers.numpy().astype("<i8").tobytes())
    return content.hexdigest()[:16]


def from_cache(
    key: str, decode: Callable[[], Tensor], labels: Sequence[int], classes: tuple[str, ...] | None
) -> ImageSet:
    """Maps the set from the cache, decoding it into there first where it is missing or damaged."""
    folder = cache_root() / "images" / key
    about = _read_entry(folder)
    if about is None:
        make_cache_folder(folder.parent)
        images = decode()
        targets = torch.tensor(labels, dtype=torch.int64)
        names = classes or tuple(str(label) for label in range(int(targets.max()) + 1))
        if len(names) < 2:
            raise DataError(f"The data set has one class only ({names[0]!r}); at least two are needed.")
        made = {"shape": list(images.shape), "classes": list(names), "digest": content_digest(images, targets, names)}
        _store(folder, images, targets, made)
        about = _read_entry(folder)
        if about is None:
            raise DataError(
                f"The image cache {folder} can't be written and read again. Delete it, or set GEMNET_CACHE."
            )
    shape = about["shape"]
    # Private mapping: pages are shared by all processes until somebody writes, which nobody does.
    flat = torch.from_file(str(folder / "images.u8"), shared=False, size=int(np.prod(shape)), dtype=torch.uint8)
    targets = torch.from_numpy(np.load(folder / "labels.npy"))
    return ImageSet(flat.view(shape), targets, tuple(about["classes"]), about["digest"])


def _read_entry(folder: Path) -> dict[str, Any] | None:
    """What a cache entry says about itself; None where there is none, or where its files are not what it says."""
    try:
        about = parse_json((folder / "set.json").read_text(encoding="utf-8"))
        size = (folder / "images.u8").stat().st_size
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        whole = size == int(np.prod(about["shape"])) and labels.shape == (about["shape"][0],)
        return about if whole and len(about["digest"]) == 16 and len(about["classes"]) > int(labels.max()) else None
    except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError):
        return None


def _store(folder: Path, images: Tensor, labels: Tensor, about: dict[str, Any]) -> None:
    """Writes a cache entry in one step: whoever finds ``set.json`` finds all of it."""
    free = shutil.disk_usage(folder.parent).free
    if images.numel() > free:
        raise DataError(
            f"Decoded images take {images.numel() / 1e9:.1f} GB; {folder.parent} has {free / 1e9:.1f} GB free. "
            "Set GEMNET_CACHE to a folder with more space, or lower the resolution."
        )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as scratch:
        images.numpy().tofile(Path(scratch) / "images.u8")
        np.save(Path(scratch) / "labels.npy", labels.numpy())
        (Path(scratch) / "set.json").write_text(json.dumps(about), encoding="utf-8")
        complete = Path(scratch) / "entry"
        complete.mkdir()
        for name in ("images.u8", "labels.npy", "set.json"):
            (Path(scratch) / name).rename(complete / name)
        if folder.exists() and _read_entry(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)  # damaged
        try:
            complete.rename(folder)
        except OSError:  # another process was first: its entry is the same
            if _read_entry(folder) is None:
                raise
