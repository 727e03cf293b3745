"""One reader of images: upright, whatever their type; grey levels by their range; nothing hidden in alpha."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data import create_transform

from gemnet.data.reading import ImageFileError, centre_square, read_image

ORIENTATION = 0x0112


def half_dark(mode: str = "RGB") -> Image.Image:
    """64x48; the left half dark."""
    pixels = np.full((48, 64), 220, np.uint8)
    pixels[:, :32] = 20
    return Image.fromarray(pixels).convert(mode)


def saved(picture: Image.Image, path: Path, orientation: int | None = None) -> Path:
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    picture.save(path, exif=exif)
    return path


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (64, 48)), (3, (64, 48)), (6, (48, 64)), (8, (48, 64))])
def test_photos_stand_upright_whatever_their_type(
    kind: str, orientation: int, size: tuple[int, int], tmp_path: Path
) -> None:
    path = saved(half_dark(), tmp_path / f"photo.{kind}", orientation)
    pixels = np.asarray(read_image(path), dtype=int)
    assert pixels.shape == (size[1], size[0], 3)
    first_row, last_row = pixels[0].mean(), pixels[-1].mean()
    first_column, last_column = pixels[:, 0].mean(), pixels[:, -1].mean()
    dark = {1: first_column, 3: last_column, 6: first_row, 8: last_row}[orientation]
    bright = {1: last_column, 3: first_column, 6: last_row, 8: first_row}[orientation]
    assert dark < 40
    assert bright > 200


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_the_pixels_as_stored_can_be_had(kind: str, tmp_path: Path) -> None:
    path = saved(half_dark(), tmp_path / f"photo.{kind}", 6)
    assert read_image(path, upright=False).size == (64, 48)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
@pytest.mark.parametrize("factor", [256, 257])
def test_grey_of_16_bits_equals_the_same_picture_of_8(name: str, factor: int, tmp_path: Path) -> None:
    eight = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) % 256
    path = tmp_path / name
    if name.endswith("pgm"):
        path.write_bytes(b"P5 64 48 65535\n" + (eight * factor).astype(">u2").tobytes())
    else:
        Image.fromarray((eight * factor).astype(np.uint16)).save(path)
    assert np.array_equal(np.asarray(read_image(path))[..., 0], eight)


@pytest.mark.parametrize(("kind", "words"), [(np.int32, "32-bit"), (np.float32, "fractions")])
def test_levels_without_a_range_are_refused_by_name(kind: type, words: str, tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 100, kind)).save(tmp_path / "odd.tif")
    with pytest.raises(ImageFileError, match=rf"odd\.tif.*{words}.*8 or 16 bits"):
        read_image(tmp_path / "odd.tif")


@pytest.mark.parametrize("ink", [0, 255])
def test_a_shape_in_alpha_alone_is_seen(ink: int, tmp_path: Path) -> None:
    pixels = np.full((16, 16, 4), ink, np.uint8)
    pixels[..., 3] = 0
    pixels[4:12, 4:12, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "shape.png")
    found = np.asarray(read_image(tmp_path / "shape.png"))
    assert found[8, 8].tolist() == [ink] * 3
    assert found[0, 0].tolist() == [128] * 3


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA"])
def test_every_mode_becomes_colour(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    half_dark(mode).save(path)
    found = np.asarray(read_image(path), dtype=int)
    assert found.shape == (48, 64, 3)
    assert found[20, 10].mean() < found[20, 50].mean() - 150


@pytest.mark.parametrize(("crop_pct", "interpolation"), [(1.0, "bicubic"), (0.875, "bicubic"), (0.95, "bilinear")])
def test_the_centre_is_what_timms_transform_makes_of_an_image(crop_pct: float, interpolation: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        width, height, side = (int(rng.integers(5, most)) for most in (300, 300, 120))
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        transform = create_transform(
            side, is_training=False, crop_pct=crop_pct, interpolation=interpolation, normalize=False
        )
        theirs = np.asarray(transform(image)).transpose(1, 2, 0)
        assert np.array_equal(np.asarray(centre_square(image, side, crop_pct, interpolation)), theirs)


def test_what_can_not_be_read_is_named_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    half_dark().save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:400])
    for name, words in (
        ("pipe.jpg", "no regular file"),
        ("empty.jpg", "empty"),
        ("text.jpg", "can't be decoded"),
        ("cut.jpg", "truncated"),
        ("none.jpg", "can't be read"),
        ("nul\0.jpg", "can't be read"),
    ):
        with pytest.raises(ImageFileError, match=words) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    side = 30_000  # a gigabyte of black in a megabyte
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(1 + side // 8)) for _ in range(side)) + rows.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b""))
    assert path.stat().st_size < 2e6
    with pytest.raises(ImageFileError, match=r"bomb\.png: refused"):
        read_image(path)
