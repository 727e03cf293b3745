"""Images as a network expects them, prepared the way that its metadata says: shorter side, centre crop, norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gemnet.data.folders import class_folders, files_below
from gemnet.data.reading import centre_square, image_extensions, read_image
from gemnet.errors import GemnetError
from gemnet.metadata import Metadata

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
"""Two photographs that scikit-learn brings along: real images where the user names none."""
CROPS = 8
CALIBRATION = 200

Images = NDArray[np.float32]
"""Prepared images, n x channels x side x side."""


class ImagesError(GemnetError):
    """A folder of images that can't be used."""


@dataclass(frozen=True)
class Labelled:
    """Images with their classes, to calibrate and to measure with.

    Args:
        calibration: images that ranges of values are taken from; empty where nothing is quantised.
        images: others, on which accuracies are measured.
        labels: number of the class of each of these.
    """

    calibration: Images
    images: Images
    labels: NDArray[np.int64]


def prepared(image: Image.Image, about: Metadata) -> Images:
    """An image as the network's input, ``channels x side x side``; the same as ``predict.py`` makes."""
    assert about.input_size is not None
    assert about.crop_pct is not None
    assert about.interpolation is not None
    side = about.input_size
    image = image.convert("L" if about.in_chans == 1 else "RGB")
    square = centre_square(image, side, about.crop_pct, about.interpolation)
    pixels = np.asarray(square, np.float32).reshape(side, side, -1) / 255
    found: Images = ((pixels - np.array(about.mean)) / np.array(about.std)).transpose(2, 0, 1).astype(np.float32)
    return found


def photographs(about: Metadata) -> Images:
    """Crops of two photographs, at several scales; ``2 * CROPS x channels x side x side``."""
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(0)
    found = []
    for name in PHOTOGRAPHS:
        whole = Image.fromarray(load_sample_image(name))
        for _ in range(CROPS):
            side = int(rng.integers(96, min(whole.size)))
            left, top = (int(rng.integers(0, length - side + 1)) for length in whole.size)
            found.append(prepared(whole.crop((left, top, left + side, top + side)), about))
    return np.stack(found)


def read_images(files: Sequence[Path], about: Metadata) -> Images:
    """The images of some files, prepared; ``n x channels x side x side``.

    Raises:
        ImageFileError: a file that is no image.
    """
    side = about.input_size or 0
    found = np.empty((len(files), about.in_chans or 3, side, side), np.float32)
    for place, file in enumerate(files):
        found[place] = prepared(read_image(file), about)
    return found


def labelled_files(folder: Path, classes: Sequence[str], count: int | None = None) -> list[tuple[Path, int]]:
    """Image files of a folder with a folder for each class, at any depth in it, and the number of each one's class.

    Args:
        folder: holds a folder for each class, of the class's name.
        classes: names in the order of the logits; where they are not known, the folders' names in order are taken.
        count: how many logits there are; None where that isn't known.

    Raises:
        ImagesError: no such folder, no images, folders of other classes, or without names of another number of them.
        DataError: a folder that can't be read.
    """
    if not folder.is_dir():
        raise ImagesError(f"--images is {folder}, which is no folder.")
    folders = class_folders(folder)
    names = list(classes) or [item.name for item in folders]
    strangers = [item.name for item in folders if item.name not in names]
    if strangers or not folders:
        found = f"holds {', '.join(strangers[:3])}" if strangers else "holds no folders"
        raise ImagesError(
            f"--images {folder} {found}; expected a folder of images for each class: {', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}."
        )
    if not classes and count not in (None, len(folders)):
        raise ImagesError(
            f"--images {folder} holds folders of {len(folders)} classes, the network tells {count} apart, and its "
            "weights carry no names of classes: which folder is which isn't known. Give a folder for each class, in "
            "the order of the logits, or weights that carry names."
        )
    found_files = [
        (file, names.index(item.name))
        for item in folders
        for file in sorted(Path(entry.path) for entry in files_below(item))
        if file.suffix.lower() in image_extensions()
    ]
    if not found_files:
        raise ImagesError(f"--images {folder} holds no images that Pillow can read.")
    return found_files


def split_labelled(folder: Path, about: Metadata, calibration: int | None, measured: int) -> Labelled:
    """Images of a folder, some to calibrate with and others to measure with, drawn from all classes alike.

    Args:
        folder: holds a folder of images for each class.
        about: how they are prepared, and what the classes are called.
        calibration: how many to calibrate with; None for a third, `CALIBRATION` at most.
        measured: how many of the others to measure with, at most.

    Raises:
        ImagesError: no such folder, other classes, or too few images.
    """
    files = labelled_files(folder, about.classes, about.num_classes)
    if calibration is None:
        calibration = min(CALIBRATION, -(-len(files) // 3))
    if len(files) <= calibration:
        raise ImagesError(
            f"--images {folder} holds {len(files)} images, {calibration} of which are to calibrate with: none are left "
            "to measure with. Give more images, or a smaller --calibrate."
        )
    order = np.random.default_rng(0).permutation(len(files))
    first, others = order[:calibration], order[calibration : calibration + measured]
    labels = np.array([files[place][1] for place in others], dtype=np.int64)
    calibrating, measuring = (read_images([files[place][0] for place in part], about) for part in (first, others))
    return Labelled(calibrating, measuring, labels)
