"""Reading one image: the way up it was taken, as 8-bit colour. Classification and detection read images here.

Three things go wrong silently where each reader decodes for itself: a photo's EXIF orientation is ignored, 16-bit grey
levels are cut off at 255, and a shape that is in the alpha channel alone disappears.
"""

from __future__ import annotations

import math
import os
import stat
from functools import lru_cache
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from gemnet.errors import GemnetError

FULL_RANGE = frozenset(("PNG", "PPM"))
"""Formats whose grey levels in Pillow's mode ``I`` are 16 bits wide, whatever the mode could hold."""
HEADERS_ONLY = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))
"""Formats that Pillow recognises but decodes with the help of other programs only, or not at all."""
BACKDROP = 128
"""Grey that transparent images are laid on: whatever colour a shape has, it stands out."""
ORIENTATIONS = range(1, 9)
"""EXIF's: 1 as stored, 2 to 4 mirrored or upside down, 5 to 8 with sides exchanged."""


class ImageFileError(GemnetError):
    """An image file that can't be read as it was meant. The message names it."""


@lru_cache(maxsize=1)
def image_extensions() -> frozenset[str]:
    """Endings of the files that the installed Pillow decodes, with their dot, in small letters."""
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(ending.lower() for ending, kind in known if kind in Image.OPEN and kind not in HEADERS_ONLY)


def open_image(file: str | os.PathLike[str] | IO[bytes]) -> Image.Image:
    """Opens an image file; only its header is read.

    Raises:
        ImageFileError: it is missing, empty, no regular file, or of no type that Pillow reads.
    """
    if isinstance(file, str | os.PathLike):
        _check_regular(file)
    try:
        return Image.open(file)
    except Image.DecompressionBombError as error:
        raise ImageFileError(f"{_name(file)}: refused ({error}).") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise _undecodable(_name(file), error) from None


def orientation(image: Image.Image) -> int:
    """An opened image's EXIF orientation, 1 to 8; 1 where it has none, and for TIFF, which Pillow turns by itself."""
    if image.format == "TIFF":
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # whatever a damaged EXIF block makes Pillow's reader raise: then it says nothing
        return 1
    return found if isinstance(found, int) and found in ORIENTATIONS else 1


def read_image(file: str | os.PathLike[str] | IO[bytes], upright: bool = True) -> Image.Image:
    """An image in 8-bit colour.

    Grey levels of 16 bits are brought to 8 by their upper half; 32-bit whole numbers and fractions have no range that
    means white, and are refused. What is transparent lies on middle grey. Of films and stacks the first picture counts.

    Args:
        file: path or open file; any type that Pillow reads.
        upright: whether EXIF's orientation is applied (JPEG, PNG, WebP; a TIFF always is).

    Returns:
        A picture of mode ``RGB``.

    Raises:
        ImageFileError: it can't be read whole, or its levels have no range.
    """
    with open_image(file) as image:
        turned = orientation(image)
        try:
            image.load()
            if upright and turned != 1:
                image = ImageOps.exif_transpose(image)
            return as_colour(image, _name(file))
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            if isinstance(error, ImageFileError):
                raise
            raise _undecodable(_name(file), error) from None


def centre_square(image: Image.Image, side: int, crop_pct: float = 1.0, interpolation: str = "bicubic") -> Image.Image:
    """The middle of an image as a square: what timm's transform of test images makes of it, pixel for pixel.

    What training, tests, predictions and exported files see is made here; ``predict.py`` beside those has its own copy.

    Args:
        image: of any size.
        side: of the square, in pixels.
        crop_pct: share of the shorter side that is kept.
        interpolation: Pillow's name of it, in small letters.
    """
    shorter, least = math.floor(side / crop_pct), min(image.size)
    width, height = (shorter if length == least else int(shorter * length / least) for length in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling[interpolation.upper()])
    left, top = (round((length - side) / 2) for length in (width, height))
    return image if (width, height) == (side, side) else image.crop((left, top, left + side, top + side))


def as_colour(image: Image.Image, name: str) -> Image.Image:
    """A decoded image as 8-bit colour, as `read_image` says.

    Args:
        image: of any mode.
        name: for messages.

    Raises:
        ImageFileError: its levels have no range.
    """
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in FULL_RANGE):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif mode in ("I", "F"):
        kind = "32-bit whole numbers" if mode == "I" else "fractions"
        raise ImageFileError(
            f"{name}: its grey levels are {kind}, of which none is known to be white. Save it with 8 or 16 bits."
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        backdrop = Image.new("RGBA", image.size, (BACKDROP, BACKDROP, BACKDROP, 255))
        image = Image.alpha_composite(backdrop, image)
    return image.convert("RGB")


def _undecodable(name: str, error: Exception) -> ImageFileError:
    text = str(error) or type(error).__name__
    if text.startswith("cannot identify"):  # Pillow repeats the path
        text = "no image, or of an unknown type"
    elif "truncated" in text.lower():
        return ImageFileError(f"{name}: the image is truncated ({text}). Restore it, or leave it out.")
    return ImageFileError(f"{name}: can't be decoded ({text}). Restore it, or leave it out.")


def _check_regular(path: str | os.PathLike[str]) -> None:
    """A pipe in the place of an image would be waited for for ever."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageFileError(f"{_name(path)}: can't be read ({reason}). Restore it, or leave it out.") from None
    if not stat.S_ISREG(status.st_mode):
        raise ImageFileError(f"{_name(path)}: is no regular file. Replace or remove it.")
    if status.st_size == 0:
        raise ImageFileError(f"{_name(path)}: the image file is empty. Restore it, or leave it out.")


def _name(file: Any) -> str:
    return os.fspath(file) if isinstance(file, str | os.PathLike) else str(getattr(file, "name", "the image"))
