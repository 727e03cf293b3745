"""Digit scenes: scikit-learn's handwritten digits drawn into cluttered pictures on which small networks differ.

1,797 digits of 8x8 pixels are solved by nearly any network. In a scene the digit to be named lies at a random place,
scale and angle on a larger canvas, among fragments of other digits, under noise, light on dark or dark on light; so it
matters how far a network sees and what it makes of it. They resemble the cluttered translated digits of Mnih et al.,
"Recurrent Models of Visual Attention", NeurIPS 2014.

Arithmetic is on whole numbers and all randomness is the stream of a bit generator, which NumPy promises never to
change: scenes are the same, byte for byte, on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]

_FINE = 8  # glyphs are drawn from copies enlarged by this factor, at the nearest pixel
_SHIFT = 12  # bits behind the point of coordinates
_CHUNK = 512  # scenes drawn at once


@dataclass(frozen=True)
class SceneOptions:
    """How scenes are drawn.

    Args:
        side: of the canvas, in pixels.
        size: least and largest side of a digit, in pixels.
        angle: most degrees that a digit is turned, either way.
        fragments: quarters of other digits in each scene, at half the digit's contrast.
        noise: largest deviation of a pixel, in grey levels.
        contrast: least and largest difference of ink and paper, in grey levels.
    """

    side: int = 20
    size: tuple[int, int] = (13, 16)
    angle: int = 12
    fragments: int = 1
    noise: int = 12
    contrast: tuple[int, int] = (140, 240)


class _Draws:
    """Whole numbers from a bit generator."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def __call__(self, low: int, high: int, *shape: int) -> Integers:
        """Uniform in low..high, both included."""
        raw = self._bits.random_raw(math.prod(shape)) >> np.uint64(32)
        return ((raw * np.uint64(high - low + 1)) >> np.uint64(32)).astype(np.int64).reshape(shape) + low


def draw_scenes(digits: Bytes, picks: Integers, seed: int, options: SceneOptions = SceneOptions()) -> Bytes:
    """Scenes of given digits.

    Args:
        digits: uint8 (m, 8, 8), 0 for paper, 255 for ink; fragments are taken from these too.
        picks: which digit each scene is of (n,).
        seed: of place, size, angle, fragments, contrast and noise.
        options: how they are drawn.

    Returns:
        uint8 (n, side, side).
    """
    draws = _Draws(seed)
    whole = _enlarged(digits)
    quarters = _quarters(whole)
    chunks = []
    for start in range(0, len(picks), _CHUNK):
        some = picks[start : start + _CHUNK]
        n, side = len(some), options.side
        size = draws(16 * options.size[0], 16 * options.size[1], n)  # places and sizes are in sixteenths of a pixel
        corner = (draws(0, 1 << 20, 2, n) * (16 * side - size)) >> 20
        ink = _placed(whole, some, size, corner + size // 2, draws, options)
        for _ in range(options.fragments):
            size = draws(16 * options.size[0], 16 * options.size[1], n)
            centre = draws(0, 16 * side, 2, n)
            other = _placed(quarters, draws(0, len(quarters) - 1, n), size, centre, draws, options)
            np.maximum(ink, other >> 1, out=ink)
        contrast = draws(*options.contrast, n)
        paper = (draws(0, 1 << 20, n) * (255 - contrast)) >> 20
        picture = paper[:, None, None] + ((contrast[:, None, None] * ink) >> 8)
        picture += draws(-options.noise, options.noise, n, side, side)
        np.clip(picture, 0, 255, out=picture)
        inverted = draws(0, 1, n).astype(np.bool_)
        picture[inverted] = 255 - picture[inverted]
        chunks.append(picture.astype(np.uint8))
    return np.concatenate(chunks)


def _quarters(glyphs: Bytes) -> Bytes:
    """The four quarters of enlarged digits, each alone in the middle of its picture; (4 m, edge, edge)."""
    found = np.zeros((4, *glyphs.shape), dtype=np.uint8)
    half, middle = 4 * _FINE, slice(3 * _FINE, 7 * _FINE)
    for k, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        top, left = _FINE + row * half, _FINE + column * half
        found[k, :, middle, middle] = glyphs[:, top : top + half, left : left + half]
    return found.reshape(-1, *glyphs.shape[1:])


def _enlarged(glyphs: Bytes) -> Bytes:
    """Glyphs enlarged with linear interpolation, paper around them; (m, 10 * _FINE, 10 * _FINE)."""
    wide = np.pad(glyphs, ((0, 0), (2, 2), (2, 2))).astype(np.int32)
    place = np.arange(10 * _FINE) * 2 + 1 + _FINE  # in halves of an enlarged pixel, from the middle of the first
    left, share = place // (2 * _FINE), place % (2 * _FINE)
    wide = wide[:, left] * (2 * _FINE - share)[:, None] + wide[:, left + 1] * share[:, None]
    wide = wide[:, :, left] * (2 * _FINE - share) + wide[:, :, left + 1] * share
    return (wide // (4 * _FINE * _FINE)).astype(np.uint8)


def _placed(
    glyphs: Bytes, picks: Integers, size: Integers, centre: Integers, draws: _Draws, options: SceneOptions
) -> NDArray[np.int64]:
    """Ink of enlarged glyphs of some size, turned at random, on canvases; 0..255, (n, side, side)."""
    edge = glyphs.shape[1]
    turn = draws(-16 * options.angle, 16 * options.angle, len(picks)) * (math.pi / (16 * 180))
    ratio = 8 * _FINE * (1 << _SHIFT) / size  # enlarged pixels for a sixteenth of the canvas's
    cosine, sine = (np.rint(f(turn) * ratio).astype(np.int32)[:, None, None] for f in (np.cos, np.sin))
    along = np.arange(options.side, dtype=np.int32) * 16 + 8
    x = (along - centre[0][:, None].astype(np.int32))[:, None, :]
    y = (along - centre[1][:, None].astype(np.int32))[:, :, None]
    middle = np.int32(edge << (_SHIFT - 1))
    row = np.clip((cosine * y - sine * x + middle) >> _SHIFT, 0, edge - 1)
    column = np.clip((cosine * x + sine * y + middle) >> _SHIFT, 0, edge - 1)
    flat = (picks[:, None, None] * edge + row) * edge + column
    return np.take(glyphs.reshape(-1), flat).astype(np.int64)
