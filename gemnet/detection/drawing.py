"""Pictures of what was found: an image with boxes, one colour a class."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.utils import draw_bounding_boxes

from gemnet.data.reading import read_image
from gemnet.detection.trained import Detections
from gemnet.files import replacing

GOLDEN = 0.618034
"""Step between the hues of classes: neighbours are far apart, however many there are."""


def draw(file: Path, found: Detections, classes: Sequence[str], least: float, target: Path) -> None:
    """Writes an image with the boxes of at least a score.

    Args:
        file: the image.
        found: what was found in it.
        classes: names, by label.
        least: score.
        target: the picture, a JPEG.
    """
    pixels = torch.from_numpy(np.asarray(read_image(file, found.upright)).copy()).permute(2, 0, 1)
    sure = np.flatnonzero(found.scores >= least)[::-1]  # the surest last, on top
    if len(sure):
        pixels = draw_bounding_boxes(
            pixels,
            torch.from_numpy(found.boxes[sure].copy()),
            [f"{classes[found.labels[k]]} {found.scores[k]:.2f}" for k in sure],
            colors=[colour(int(found.labels[k])) for k in sure],
            width=max(1, round(min(found.size) / 200)),
        )
    with replacing(target) as draft:
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(draft, format="JPEG", quality=90)


def colour(label: int) -> tuple[int, int, int]:
    """The colour of a class."""
    red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN % 1, 0.8, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)
