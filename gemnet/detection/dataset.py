"""COCO-style data and their evaluation: ``gemnet.CocoDataset`` says what is wrong with the data, and both it and
``gemnet.CocoMetric`` can set development images aside.

Name this module in a config's ``custom_imports``; it needs MMDetection.

MMDetection's own reader drops unknown class names and bad boxes without a word, numbers the classes in the order of the
file while naming them in the order of the config, and trains on the grey rest of a truncated JPEG.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmengine.logging import print_log

from gemnet.errors import GemnetError, nearest
from gemnet.registry import DATASETS, METRICS

# A JPEG ends with this marker; some writers pad after it.
_JPEG_START, _JPEG_END, _PADDING = b"\xff\xd8", b"\xff\xd9", 4096


class DataError(GemnetError):
    """Images or annotations that can't be trained or tested on."""

    def __init__(self, message: str) -> None:
        # A DataLoader's worker hands an error on as its type and the text of its traceback: keep the sentence.
        super().__init__(message.rsplit(f"{type(self).__name__}: ", 1)[-1].strip())


class CheckedCOCO(COCO):
    """MMDetection's index of a COCO file that `read_annotations` has checked and completed.

    Args:
        annotation_file: the file; None for an empty index.
    """

    def __init__(self, annotation_file: str | None = None) -> None:
        super().__init__()
        if annotation_file is not None:
            self.fill(read_annotations(annotation_file))

    def fill(self, content: dict[str, Any]) -> None:
        """Indexes what `read_annotations` gave."""
        self.dataset = content
        with contextlib.redirect_stdout(None):  # it says that it creates an index
            self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs  # MMDetection's names for them


@DATASETS.register_module()
class CocoDataset(MMDetCocoDataset):
    """MMDetection's ``CocoDataset``, with every mistake in the data named.

    Own data take three lines in a config: ``metainfo=dict(classes=(...))``, ``ann_file`` and ``data_prefix``. The
    classes may be some of the file's categories.

    Args:
        part: ``train`` or ``dev`` for the images to learn from or those set aside to choose by; None for all.
        dev_fraction: share of the images that is set aside.
        *args: as MMDetection's.
        **kwargs: likewise.

    Raises:
        DataError: an annotation file that is missing or malformed, classes that it lacks, an image that is not there
            or truncated.
    """

    COCOAPI = CheckedCOCO

    def __init__(self, *args: Any, part: str | None = None, dev_fraction: float = 0.1, **kwargs: Any) -> None:
        self.part = part
        self.dev_fraction = dev_fraction
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Reads the annotation file, having checked it; logs how many boxes are left out."""
        content = read_annotations(self.ann_file)
        check_classes(content["categories"], self.metainfo.get("classes") or (), self.ann_file)
        check_images(content["images"], self.data_prefix.get("img", ""), self.ann_file)
        bad = count_bad_boxes(content)
        if bad:
            print_log(
                f"{self.ann_file}: {bad} boxes are outside their image, less than a pixel wide or without area; left "
                "out.",
                "current",
            )
        chosen = {image["id"] for image in images_of_part(content["images"], self.part, self.dev_fraction)}
        return [entry for entry in super().load_data_list() if entry["img_id"] in chosen]

    def filter_data(self) -> list[dict[str, Any]]:
        """The images that ``filter_cfg`` and ``part`` leave.

        Raises:
            DataError: there is none.
        """
        left = super().filter_data()
        if not left:
            raise DataError(
                f"{self.ann_file}: no image is left of {len(self.data_list)} with part={self.part!r} and "
                f"filter_cfg={self.filter_cfg!r}. Are the classes {self.metainfo.get('classes')!r} in it?"
            )
        return left

    def prepare_data(self, idx: int) -> Any:
        """One image through the pipeline.

        Raises:
            DataError: its file is not there, truncated, or no image.
        """
        path = self.get_data_info(idx)["img_path"]
        check_image_file(path)
        try:
            return super().prepare_data(idx)
        except AssertionError as error:
            if "failed to load image" not in str(error):
                raise
            raise DataError(f"{path}: can't be decoded as an image. Restore it, or leave it out.") from None


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """MMDetection's ``CocoMetric``, on all images of a file or on those of one part.

    Args:
        ann_file: the annotation file.
        part: as in `CocoDataset`.
        dev_fraction: as in `CocoDataset`.
        report_classes: classes whose AP and AP50 of boxes are figures of their own, ``person_mAP``, ``person_mAP_50``.
        **kwargs: as MMDetection's.

    Raises:
        DataError: the file can't be used, or has no such class to report, or the detector is not trained on it.
    """

    def __init__(
        self,
        ann_file: str,
        part: str | None = None,
        dev_fraction: float = 0.1,
        report_classes: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        content = read_annotations(ann_file)
        if kwargs.pop("sort_categories", False):  # MMDetection's, which it applies to files that it reads itself
            content["categories"].sort(key=lambda category: category["id"])
        super().__init__(ann_file=None, **kwargs)
        names = [category["name"] for category in content["categories"]]
        for name in report_classes:
            if name not in names:
                raise DataError(f"report_classes: {ann_file} has no category {name!r}.{nearest(name, names)}")
        self.report_classes = tuple(report_classes)
        images = images_of_part(content["images"], part, dev_fraction)
        chosen = {image["id"] for image in images}
        boxes = [entry for entry in content["annotations"] if entry["image_id"] in chosen]
        self._coco_api = CheckedCOCO()
        self._coco_api.fill({**content, "images": images, "annotations": boxes})

    @property
    def dataset_meta(self) -> Any:
        """What the data set says of itself; set before anything is trained or measured.

        Raises:
            DataError: it lacks a class that is to be reported.
        """
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: Any) -> None:
        classes = (meta or {}).get("classes")
        for name in self.report_classes:
            if classes is not None and name not in classes:
                raise DataError(
                    f"report_classes: the detector is not trained on {name!r}; its classes are {', '.join(classes)}."
                )
        self._dataset_meta = meta

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """MMDetection's figures, and those of ``report_classes``; -1 for a class that has no box in the images.

        A detector that finds nothing, as after a first epoch, has AP 0; MMDetection gives no figures then, and its hook
        that keeps the best checkpoint looks for one.
        """
        figures = super().compute_metrics(results)
        if not self.format_only:
            names = self.metric_items or ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
            for kind in {"bbox", "segm"} & set(self.metrics):
                for name in names:
                    figures.setdefault(f"{kind}_{name}", 0.0)
        for name in self.report_classes:
            average = self._one_class([prediction for _, prediction in results], name)
            figures[f"{name}_mAP"], figures[f"{name}_mAP_50"] = average
        return figures

    def _one_class(self, predictions: list[dict[str, Any]], name: str) -> tuple[float, float]:
        (category,) = self._coco_api.get_cat_ids(cat_names=[name])
        if not self._coco_api.get_ann_ids(cat_ids=[category], iscrowd=0):
            return -1.0, -1.0
        label = self.cat_ids.index(category)
        rows = [
            {
                "image_id": prediction["img_id"],
                "category_id": category,
                "bbox": self.xyxy2xywh(prediction["bboxes"][n]),
                "score": float(prediction["scores"][n]),
            }
            for prediction in predictions
            for n in (prediction["labels"] == label).nonzero()[0]
        ]
        if not rows:
            return 0.0, 0.0
        with contextlib.redirect_stdout(None):  # MMDetection has printed its table already
            evaluation = COCOeval(self._coco_api, self._coco_api.loadRes(rows), "bbox")
            evaluation.params.catIds = [category]
            evaluation.params.maxDets = list(self.proposal_nums)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return round(float(evaluation.stats[0]), 4), round(float(evaluation.stats[1]), 4)


def images_of_part(
    images: Sequence[Mapping[str, Any]], part: str | None, dev_fraction: float
) -> list[Mapping[str, Any]]:
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


def read_annotations(path: str) -> dict[str, Any]:
    """A COCO annotation file, checked for what a detector reads from it.

    Raises:
        DataError: no such file, not JSON, a part missing, a box that is none, or one of no image or category.

    Returns:
        Its contents; ``area`` and ``iscrowd``, which hand-made files often lack, put in where they are missing.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise DataError(
            f"{path}: can't be read ({error.strerror}). Set data_root and ann_file, or put the data there."
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}). Is the file complete?") from None
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: holds a {type(content).__name__}; expected an object with images, annotations, categories."
        )
    for part, keys in (
        ("images", ("id", "file_name", "width", "height")),
        ("annotations", ("id", "image_id", "category_id", "bbox")),
        ("categories", ("id", "name")),
    ):
        if not isinstance(content.get(part), list):
            raise DataError(
                f"{path}: {part} is missing. A COCO annotation file has images, annotations and categories."
            )
        for place, entry in enumerate(content[part]):
            lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if lacking:
                raise DataError(f"{path}: {part}[{place}] has no {lacking[0]!r}.")
    for place, image in enumerate(content["images"]):
        for key in ("width", "height"):
            if not isinstance(image[key], int | float):
                raise DataError(f"{path}: images[{place}].{key} is {image[key]!r}; expected a number of pixels.")
    images = {image["id"] for image in content["images"]}
    categories = {category["id"] for category in content["categories"]}
    seen: set[Any] = set()
    for place, entry in enumerate(content["annotations"]):
        box = entry["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)):
            raise DataError(f"{path}: annotations[{place}].bbox is {box!r}; expected [x, y, width, height].")
        if entry["image_id"] not in images:
            raise DataError(f"{path}: annotations[{place}].image_id is {entry['image_id']!r}, which no image has.")
        if entry["category_id"] not in categories:
            raise DataError(
                f"{path}: annotations[{place}].category_id is {entry['category_id']!r}, which no category has."
            )
        if entry["id"] in seen:
            raise DataError(f"{path}: annotations[{place}].id is {entry['id']!r}, which another has, too.")
        seen.add(entry["id"])
        if entry.get("area") is None:
            entry["area"] = box[2] * box[3]
        if entry.get("iscrowd") is None:
            entry["iscrowd"] = 0
    return content


def check_classes(categories: Sequence[Mapping[str, Any]], classes: Sequence[str], path: str) -> None:
    """Whether a config's classes are categories of the file, in its order.

    Raises:
        DataError: a class that the file lacks, or another order, in which names would be swapped.
    """
    names = [category["name"] for category in categories]
    for name in classes:
        if name not in names:
            raise DataError(
                f"{path}: there is no category {name!r}.{nearest(name, names)} Set metainfo=dict(classes=(...)) of the "
                "data sets and num_classes of the heads to this file's categories or some of them."
            )
    ordered = [name for name in names if name in set(classes)]
    if list(classes) != ordered:
        raise DataError(
            f"{path}: classes are numbered in the order of the file's categories, so metainfo.classes must be in that "
            f"order too: ({', '.join(repr(name) for name in ordered)})."
        )


def check_images(images: Sequence[Mapping[str, Any]], folder: str, path: str) -> None:
    """Whether every image that the file lists is in its folder.

    Raises:
        DataError: the folder or images are missing.
    """
    if "://" in folder:
        return
    if not os.path.isdir(folder or "."):
        raise DataError(f"{folder}: there is no such folder of images. Set data_root and data_prefix=dict(img=...).")
    listed = {image["file_name"] for image in images}
    there = set(os.listdir(folder or "."))
    missing = sorted(
        name for name in listed - there if not ("/" in name and os.path.isfile(os.path.join(folder, name)))
    )
    if missing:
        raise DataError(
            f"{os.path.join(folder, missing[0])}: there is no such image, though {path} lists it; {len(missing)} of "
            f"{len(listed)} are missing. Complete the folder, or remove their entries."
        )


def count_bad_boxes(content: Mapping[str, Any]) -> int:
    """How many boxes a detector can't learn from: outside their image, below a pixel wide or high, or of no area."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    bad = 0
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        width, height = sizes[entry["image_id"]]
        bad += w < 1 or h < 1 or x >= width or y >= height or x + w <= 0 or y + h <= 0 or entry["area"] <= 0
    return bad


def check_image_file(path: str) -> None:
    """Whether an image file is there and, if a JPEG, complete.

    Raises:
        DataError: it is not.
    """
    if "://" in path:
        return
    try:
        with open(path, "rb") as file:
            start = file.read(2)
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _PADDING))
            end = file.read()
            if start == _JPEG_START and _JPEG_END not in end:
                file.seek(0)  # a phone may have put a film behind the picture
                end = file.read()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}). Restore it, or remove its entry.") from None
    if not end:
        raise DataError(f"{path}: the image file is empty. Restore it, or remove its entry.")
    if start == _JPEG_START and _JPEG_END not in end:
        raise DataError(f"{path}: the JPEG is truncated (it has no end marker). Restore it, or remove its entry.")
