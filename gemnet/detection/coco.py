"""One strict reader of COCO annotation files: what training and evaluation see of one is what this gives.

It needs neither MMDetection nor pycocotools. Annotations are numbered anew, from 1 on: COCO's evaluation takes number 0
for "matched by nothing". Classes are numbered by the config's names, whatever order the file lists them in. What can't
be used is left out, counted and named; what can't be meant is an error that names the entry.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gemnet.errors import GemnetError, nearest
from gemnet.strict_json import JsonError, read_json

Entry = dict[str, Any]

SHOWN = 3  # culprits named in one message
OVERHANG = 2.0  # pixels that a box may stick out of its image before it counts as evidence of another form
EVIDENCE = 10  # boxes from which a whole file is judged by its boxes' form


class DataError(GemnetError):
    """Images or annotations that can't be trained or tested on."""

    def __init__(self, message: str) -> None:
        # A DataLoader's worker hands an error on as its type and the text of its traceback: keep the sentence.
        super().__init__(message.rsplit(f"{type(self).__name__}: ", 1)[-1].strip())


@dataclass(frozen=True)
class CocoFile:
    """What a COCO annotation file holds.

    Args:
        path: the file.
        images: dicts with ``id``, ``file_name``, ``width`` and ``height``, and whatever else the file says.
        annotations: dicts with ``id`` (from 1 on), ``image_id``, ``category_id``, ``bbox`` (finite, of positive size,
            at least partly inside the image), ``area`` (positive) and ``iscrowd`` (0 or 1).
        categories: dicts with ``id`` and ``name``; each name once.
        notes: what was left out or put right, a sentence each, with counts.
    """

    path: str
    images: tuple[Entry, ...]
    annotations: tuple[Entry, ...]
    categories: tuple[Entry, ...]
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Names of the categories, in the file's order."""
        return [category["name"] for category in self.categories]

    def category_ids(self, classes: Sequence[str]) -> list[int]:
        """The categories that classes stand for, in the order of the classes.

        Raises:
            DataError: the file lacks a class.
        """
        ids = {category["name"]: category["id"] for category in self.categories}
        for name in classes:
            if name not in ids:
                raise DataError(
                    f"{self.path}: there is no category {name!r}.{nearest(name, ids)} Set metainfo=dict(classes=(...)) "
                    "of the data sets and num_classes of the heads to this file's categories or some of them."
                )
        return [ids[name] for name in classes]

    def renumbered(self, classes: Sequence[str]) -> CocoFile:
        """The same with categories numbered by the place of their name in ``classes``, from 1 on; the others follow.

        Raises:
            DataError: the file lacks a class.
        """
        first = self.category_ids(classes)
        rest = [category["id"] for category in self.categories if category["id"] not in set(first)]
        numbers = {old: new for new, old in enumerate((*first, *rest), 1)}
        categories = sorted(
            ({**category, "id": numbers[category["id"]]} for category in self.categories), key=lambda each: each["id"]
        )
        annotations = ({**entry, "category_id": numbers[entry["category_id"]]} for entry in self.annotations)
        return replace(self, categories=tuple(categories), annotations=tuple(annotations))

    def part(self, part: str | None, dev_fraction: float) -> CocoFile:
        """The images to learn from (``train``), those set aside (``dev``), or all (None), with their annotations.

        Raises:
            DataError: another part, or a share outside (0, 1).
        """
        if part is None:
            return self
        images = images_of_part(self.images, part, dev_fraction)
        chosen = {image["id"] for image in images}
        other = "dev" if part == "train" else "train"
        note = (
            f"part={part!r}: {len(images)} of the {len(self.images)} images (the others are part={other!r}, a share of "
            f"{dev_fraction:g} is set aside for 'dev')."
        )
        return replace(
            self,
            images=tuple(images),
            annotations=tuple(entry for entry in self.annotations if entry["image_id"] in chosen),
            notes=(*self.notes, note),
        )

    def with_masks(self) -> CocoFile:
        """Every annotation with a mask; one without becomes a rectangle that is neither learnt nor punished.

        Raises:
            DataError: no annotation has a mask.
        """
        lacking = sum("segmentation" not in entry for entry in self.annotations)
        if not lacking:
            return self
        if lacking == len(self.annotations):
            raise DataError(
                f"{self.path}: masks are asked for, but its annotations have boxes only (no 'segmentation'). Take a "
                "detector of boxes, such as Faster R-CNN, or leave out with_mask=True and metric='segm'."
            )
        annotations = tuple(
            entry if "segmentation" in entry else {**entry, "iscrowd": 1, "segmentation": [_rectangle(entry["bbox"])]}
            for entry in self.annotations
        )
        note = f"{lacking} annotations have no mask; they are ignored: neither learnt nor punished."
        return replace(self, annotations=annotations, notes=(*self.notes, note))


def class_names(classes: Any, where: str = "classes") -> tuple[str, ...]:
    """Class names that a config gives, checked.

    Args:
        classes: a list or tuple of names.
        where: what messages call them.

    Raises:
        DataError: a text in place of a list, names that are no texts, or one name twice.
    """
    if isinstance(classes, str):
        raise DataError(
            f"{where} is the text {classes!r}. For a single class write ({classes!r},) with a comma; several are "
            "('a', 'b'). A file with a name on each line is meant where there is one of this path."
        )
    if not isinstance(classes, Iterable):
        raise DataError(f"{where} is {classes!r}; expected names, such as ('cat', 'dog').")
    names = tuple(classes)
    for name in names:
        if not isinstance(name, str):
            raise DataError(f"{where} holds {name!r}; expected names, such as ('cat', 'dog').")
    double = _doubled(names)
    if double:
        raise DataError(f"{where} names {_some(double)} more than once.")
    return names


def images_of_part(images: Sequence[Entry], part: str | None, dev_fraction: float) -> list[Entry]:
    """The images to learn from (``train``), those set aside (``dev``), or all (None).

    A file's name decides where it belongs, so that adding images moves none.

    Raises:
        DataError: another part, or a share outside (0, 1).
    """
    if part is None:
        return list(images)
    if part not in ("train", "dev") or not 0 < dev_fraction < 1:
        raise DataError(
            f"part is {part!r}, dev_fraction {dev_fraction!r}; expected 'train', 'dev' or None, and a share in (0, 1)."
        )

    def is_dev(image: Mapping[str, Any]) -> bool:
        digest = hashlib.sha256(str(image["file_name"]).encode()).digest()
        return int.from_bytes(digest[:8], "big") < dev_fraction * 2**64

    return [image for image in images if is_dev(image) == (part == "dev")]


def read_coco(path: str | os.PathLike[str]) -> CocoFile:
    """Reads a COCO annotation file; a byte-order mark is fine.

    Raises:
        DataError: no such file, not JSON, a part or key missing, a value of another type than it should have, ids or
            names that are there twice, boxes that are corners or shares of the image.
    """
    path = os.fspath(path)
    content = _load(path)
    for part in ("images", "annotations", "categories"):
        if not isinstance(content.get(part), list):
            raise DataError(
                f"{path}: {part} is missing. A COCO annotation file has images, annotations and categories."
            )
        for place, entry in enumerate(content[part]):
            if not isinstance(entry, dict):
                raise _unexpected(path, f"{part}[{place}]", entry, "an object")
    notes: list[str] = []
    image_ids, images = _images(content["images"], path, notes)
    category_ids, categories = _categories(content["categories"], content["annotations"], path, notes)
    annotations = _annotations(content["annotations"], images, image_ids, category_ids, path, notes)
    return CocoFile(path, tuple(images), tuple(annotations), tuple(categories), tuple(notes))


def _load(path: str) -> dict[str, Any]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(f"{path}: is no regular file. Set data_root and ann_file to a COCO annotation file.")
        content = read_json(path)
    except OSError as error:
        raise DataError(
            f"{path}: can't be read ({error.strerror}). Set data_root and ann_file, or put the data there."
        ) from None
    except JsonError as error:
        raise DataError(f"{error} Is the file complete, and a COCO annotation file?") from None
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: holds a {type(content).__name__}; expected an object with images, annotations, categories."
        )
    return content


def _images(entries: list[Entry], path: str, notes: list[str]) -> tuple[Mapping[Any, int], list[Entry]]:
    ids = _ids(entries, "images", path)
    images = []
    for place, entry in enumerate(entries):
        where = f"images[{place}]"
        name = _required(entry, "file_name", where, path)
        if not isinstance(name, str) or not name:
            raise _unexpected(path, f"{where}.file_name", name, "the name of an image file")
        sides = {}
        for key in ("width", "height"):
            side = _required(entry, key, where, path)
            if not _is_number(side) or side != int(side) or side < 1:
                raise _unexpected(path, f"{where}.{key}", side, "a number of pixels")
            sides[key] = int(side)
        images.append({**entry, **sides, "id": ids[entry["id"]]})
    double = _doubled([image["file_name"] for image in images])
    if double:
        notes.append(
            f"{len(double)} image files are listed more than once, each time with other boxes: {_some(double)}."
        )
    return ids, images


def _categories(
    entries: list[Entry], annotations: list[Entry], path: str, notes: list[str]
) -> tuple[Mapping[Any, int], list[Entry]]:
    ids = _ids(entries, "categories", path)
    by_name: dict[str, list[Entry]] = {}
    for place, entry in enumerate(entries):
        name = _required(entry, "name", f"categories[{place}]", path)
        if not isinstance(name, str) or not name:
            raise _unexpected(path, f"categories[{place}].name", name, "a text")
        by_name.setdefault(name, []).append({**entry, "id": ids[entry["id"]]})
    used = {entry["category_id"] for entry in annotations if isinstance(entry.get("category_id"), int | str)}
    used_ids = {ids[number] for number in used if number in ids}
    left_out = set()
    for name, same in by_name.items():
        # Annotation services list a parent category, which may be called like one of its children.
        with_boxes = [entry["id"] for entry in same if entry["id"] in used_ids]
        if len(with_boxes) > 1:
            numbers = [number for number, own in ids.items() if own in with_boxes]
            raise DataError(
                f"{path}: {len(with_boxes)} categories are called {name!r} and have boxes (ids {_some(numbers)}). Give "
                "them one id, or other names."
            )
        if len(same) > 1:
            kept = with_boxes[0] if with_boxes else same[0]["id"]
            left_out |= {entry["id"] for entry in same if entry["id"] != kept}
            notes.append(f"{len(same)} categories are called {name!r}; those without boxes are left out.")
    categories = [{**entry, "id": ids[entry["id"]]} for entry in entries if ids[entry["id"]] not in left_out]
    return ids, categories


def _annotations(
    entries: list[Entry],
    images: list[Entry],
    image_ids: Mapping[Any, int],
    category_ids: Mapping[Any, int],
    path: str,
    notes: list[str],
) -> list[Entry]:
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    dropped: dict[str, list[str]] = {}
    put_right: Counter[str] = Counter()
    found: list[Entry] = []
    for place, entry in enumerate(entries):
        where = f"annotations[{place}]"
        image = _reference(entry, "image_id", image_ids, "image", where, path)
        category = _reference(entry, "category_id", category_ids, "category", where, path)
        box = _required(entry, "bbox", where, path)
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
            raise _unexpected(path, f"{where}.bbox", box, "[x, y, width, height]")
        crowd = entry.get("iscrowd")
        if crowd not in (None, 0, 1) or isinstance(crowd, str):
            raise _unexpected(path, f"{where}.iscrowd", crowd, "0 or 1")
        ignored = entry.get("ignore")
        if ignored not in (None, 0, 1):
            raise _unexpected(path, f"{where}.ignore", ignored, "0 or 1")
        if ignored and not crowd:
            put_right["are marked 'ignore'; they are neither learnt nor punished"] += 1
        problem = _unusable(box, *sizes[image])
        if problem:
            dropped.setdefault(problem, []).append(where)
            continue
        area = entry.get("area")
        if area is not None and not _is_number(area):
            raise _unexpected(path, f"{where}.area", area, "a number of square pixels")
        if area is not None and not (math.isfinite(area) and area > 0):
            put_right["have no positive area; their boxes' is taken"] += 1
            area = None
        new = {key: value for key, value in entry.items() if key not in ("ignore", "segmentation")}
        mask = entry.get("segmentation")
        if _is_mask(mask):
            new["segmentation"] = mask
        elif mask:
            put_right["have a mask that is none, which is left out"] += 1
        new.update(
            id=len(found) + 1,
            image_id=image,
            category_id=category,
            bbox=[float(value) for value in box],
            area=box[2] * box[3] if area is None else area,
            iscrowd=int(bool(crowd or ignored)),
        )
        found.append(new)
    _refuse_other_forms(entries, sizes, image_ids, path)
    notes += [f"{len(places)} boxes {problem}; left out: {_some(places)}." for problem, places in dropped.items()]
    notes += [f"{count} annotations {what}." for what, count in put_right.items()]
    return found


def _unusable(box: Sequence[float], width: int, height: int) -> str:
    """Why nothing can be learnt from a box nor be measured by it; "" where it can."""
    x, y, w, h = box
    if not all(map(math.isfinite, box)):
        return "are not finite"
    if w <= 0 or h <= 0:
        return "have no size"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "are outside their image"
    return ""


def _refuse_other_forms(
    entries: list[Entry], sizes: Mapping[int, tuple[int, int]], image_ids: Mapping[Any, int], path: str
) -> None:
    """Boxes given as corners, or as shares of the image, where the numbers give it away.

    Raises:
        DataError: they are.
    """
    boxes = [
        (entry["bbox"], sizes[image_ids[entry["image_id"]]], entry.get("area"))
        for entry in entries
        if all(map(math.isfinite, entry["bbox"]))
    ]
    if not boxes:
        return
    if all(max(box) <= 1 for box, _, _ in boxes) and any(value % 1 for box, _, _ in boxes for value in box):
        raise DataError(
            f"{path}: all boxes lie between 0 and 1: they are shares of the image. A COCO file has [x, y, width, "
            "height] in pixels; multiply them by the images' width and height."
        )
    corners = all(
        box[2] > box[0] and box[3] > box[1] and box[2] <= width + OVERHANG and box[3] <= height + OVERHANG
        for box, (width, height), _ in boxes
    )
    if not corners or len(boxes) < EVIDENCE:
        return
    out = sum(
        box[0] + box[2] > width + OVERHANG or box[1] + box[3] > height + OVERHANG for box, (width, height), _ in boxes
    )
    by_area = sum(
        _is_close((box[2] - box[0]) * (box[3] - box[1]), area) and not _is_close(box[2] * box[3], area)
        for box, _, area in boxes
    )
    if out > len(boxes) / 10 or by_area > 0.9 * len(boxes):
        raise DataError(
            f"{path}: the boxes seem to be corners [x1, y1, x2, y2]: as [x, y, width, height], which a COCO file has, "
            f"{out} of {len(boxes)} stick out of their image. Write [x1, y1, x2 - x1, y2 - y1]."
        )


def _ids(entries: list[Entry], part: str, path: str) -> Mapping[Any, int]:
    """Own numbers by the file's ids: those themselves where all are whole numbers, else counted from 1 on."""
    ids: list[int | str] = []
    for place, entry in enumerate(entries):
        number = _required(entry, "id", f"{part}[{place}]", path)
        if isinstance(number, bool) or not isinstance(number, int | str):
            raise _unexpected(path, f"{part}[{place}].id", number, "a whole number or a text")
        ids.append(number)
    double = _doubled(ids)
    if double:
        raise DataError(
            f"{path}: {len(double)} ids of {part} are there more than once: {_some(double)}. Were files joined? Number "
            f"the {part} anew, and what refers to them."
        )
    whole = {number: number for number in ids if isinstance(number, int)}
    if len(whole) == len(ids):
        return whole
    return {number: place for place, number in enumerate(ids, 1)}


def _reference(entry: Entry, key: str, known: Mapping[Any, int], what: str, where: str, path: str) -> int:
    number = _required(entry, key, where, path)
    if isinstance(number, bool) or not isinstance(number, int | str):
        raise _unexpected(path, f"{where}.{key}", number, f"the id of a {what}")
    if number not in known:
        raise DataError(f"{path}: {where}.{key} is {number!r}, which no {what} has.")
    return known[number]


def _required(entry: Entry, key: str, where: str, path: str) -> Any:
    if key not in entry:
        raise DataError(f"{path}: {where} has no {key!r}.")
    return entry[key]


def _unexpected(path: str, where: str, value: Any, expected: str) -> DataError:
    shown = repr(value)
    return DataError(f"{path}: {where} is {shown[:80] + ('...' if len(shown) > 80 else '')}; expected {expected}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_close(area: float, given: Any) -> bool:
    return _is_number(given) and math.isclose(area, given, rel_tol=0.02, abs_tol=1)


def _is_mask(mask: Any) -> bool:
    if isinstance(mask, dict):  # run lengths
        return isinstance(mask.get("size"), list) and isinstance(mask.get("counts"), list | str)
    return (
        isinstance(mask, list)
        and bool(mask)
        and all(
            isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 and all(map(_is_number, polygon))
            for polygon in mask
        )
    )


def _rectangle(box: Sequence[float]) -> list[float]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def _doubled(values: Iterable[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]


def _some(values: Sequence[Any]) -> str:
    return ", ".join(str(value) for value in values[:SHOWN]) + (", ..." if len(values) > SHOWN else "")
