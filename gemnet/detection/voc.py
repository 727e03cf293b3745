"""Annotations in Pascal VOC's form, one XML file an image as labelling programs write them, in COCO's form.

The form: Everingham et al., The PASCAL Visual Object Classes Challenge, development kit, 2012. Needs no MMDetection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gemnet.data.reading import image_extensions, open_image
from gemnet.errors import GemnetError

ALL = "all"
"""The part that has every image, where no lists divide them."""


class VocError(GemnetError):
    """A folder or a file that is not in Pascal VOC's form. The message names it."""


@dataclass(frozen=True)
class VocBox:
    """An object.

    Args:
        name: its class.
        box: left, top, width, height in pixels.
        difficult: whether it is neither learnt from nor counted.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True)
class VocImage:
    """What an XML file says.

    Args:
        file: the image's name in its folder.
        width: in pixels.
        height: likewise.
        boxes: its objects.
    """

    file: str
    width: int
    height: int
    boxes: tuple[VocBox, ...]


def voc_to_coco(folder: Path) -> dict[str, dict[str, Any]]:
    """COCO's form of what a folder holds: ``Annotations/*.xml``, ``JPEGImages/*``, ``ImageSets/Main/*.txt``.

    Where there are no such subfolders, XML files and images lie in the folder itself; without lists all images are one
    part. Classes are numbered from 1 in alphabetical order, in each part alike. What is ``difficult`` becomes
    ``iscrowd``: detectors don't learn from it, and it counts neither way.

    Args:
        folder: of the data set.

    Returns:
        By part, the content of an annotation file.

    Raises:
        VocError: nothing of the kind is there, a file can't be read, or a list names an image without annotations.
    """
    annotations, images = (
        folder / name if (folder / name).is_dir() else folder for name in ("Annotations", "JPEGImages")
    )
    files = sorted(annotations.glob("*.xml")) if annotations.is_dir() else []
    if not files:
        raise VocError(
            f"{annotations} has no .xml files. Expected Pascal VOC's form: {folder}/Annotations/*.xml and "
            f"{folder}/JPEGImages, or both kinds of files in one folder."
        )
    known = {file.stem: read_voc(file, images) for file in files}
    classes = sorted({box.name for image in known.values() for box in image.boxes})
    if not classes:
        raise VocError(f"{annotations}: none of the {len(files)} .xml files has an object.")
    parts = dict(_parts(folder / "ImageSets" / "Main")) or {ALL: list(known)}
    for part, stems in parts.items():
        missing = [stem for stem in stems if stem not in known]
        if missing:
            raise VocError(
                f"ImageSets/Main/{part}.txt lists {missing[0]!r}, which has no {missing[0]}.xml in {annotations} "
                f"({len(missing)} of {len(stems)} missing)."
            )
    return {part: _coco([known[stem] for stem in stems], classes) for part, stems in parts.items()}


def read_voc(file: Path, images: Path) -> VocImage:
    """Reads one XML file.

    Coordinates are those of the development kit: whole pixels counted from 1, the last one included; what begins at 0
    begins with the image. A size that is missing or 0 is the image's.

    Args:
        file: the XML file.
        images: folder of the images. That which the file names counts, else the one with the file's stem.

    Raises:
        VocError: it is no XML, lacks something, or its image is not there.
    """
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise VocError(f"{file} can't be read as XML: {error}.") from None
    named = images / Path(root.findtext("filename", "").replace("\\", "/")).name
    beside = [path for path in images.glob(f"{escape(file.stem)}.*") if path.suffix.lower() in image_extensions()]
    image = (
        named if named.suffix.lower() in image_extensions() and named.is_file() else next(iter(sorted(beside)), None)
    )
    if image is None:
        raise VocError(f"{file}: there is neither {named} nor another image of its name in {images}.")
    width, height = (int(_number(root, f"size/{side}", file, 0)) for side in ("width", "height"))
    if width < 1 or height < 1:
        with open_image(image) as opened:
            width, height = opened.size
    return VocImage(image.name, width, height, tuple(_box(each, file) for each in root.iter("object")))


def _box(entry: ElementTree.Element, file: Path) -> VocBox:
    name = (entry.findtext("name") or "").strip()
    if not name:
        raise VocError(f"{file}: an object has no name.")
    left, top, right, bottom = (_number(entry, f"bndbox/{side}", file) for side in ("xmin", "ymin", "xmax", "ymax"))
    if right < left or bottom < top:
        raise VocError(
            f"{file}: the box of a {name!r} ends before it begins: x {left:g} to {right:g}, y {top:g} to {bottom:g}."
        )
    left, top = max(left - 1, 0), max(top - 1, 0)
    return VocBox(name, (left, top, right - left, bottom - top), bool(_number(entry, "difficult", file, 0)))


def _number(entry: ElementTree.Element, path: str, file: Path, default: float | None = None) -> float:
    text = entry.findtext(path)
    if text is None and default is not None:
        return default
    try:
        return float(text or "")
    except ValueError:
        raise VocError(f"{file}: {path} is a number, got {text!r}.") from None


def _parts(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Lists of images; those of a class, which have a second column, are left out."""
    for file in sorted(folder.glob("*.txt")) if folder.is_dir() else []:
        rows = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        if rows and all(len(row) == 1 for row in rows):
            yield file.stem, [row[0] for row in rows]


def _coco(images: Sequence[VocImage], classes: Sequence[str]) -> dict[str, Any]:
    numbers: Mapping[str, int] = {name: number for number, name in enumerate(classes, 1)}
    entries = [
        {
            "image_id": number,
            "category_id": numbers[each.name],
            "bbox": list(each.box),
            "area": each.box[2] * each.box[3],
            "iscrowd": int(each.difficult),
        }
        for number, image in enumerate(images, 1)
        for each in image.boxes
    ]
    return {
        "images": [
            {"id": number, "file_name": image.file, "width": image.width, "height": image.height}
            for number, image in enumerate(images, 1)
        ],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(entries, 1)],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }
