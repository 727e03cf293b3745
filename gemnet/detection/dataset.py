"""COCO-style data for MMDetection: ``gemnet.CocoDataset`` says what is wrong with the data, and can set development
images aside; so can ``gemnet.CocoMetric``, which measures on them.

Name this module in a config's ``custom_imports``; it needs MMDetection.

MMDetection's own reader drops unknown class names and bad boxes without a word, numbers the classes in the order of the
file while naming them in the order of the config, and trains on the grey rest of a truncated JPEG.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmengine.logging import print_log

from gemnet.data.reading import ImageFileError, open_image, orientation, read_image
from gemnet.detection.coco import DataError, Entry, class_names, read_coco
from gemnet.detection.metric import CocoMetric
from gemnet.registry import DATASETS

__all__ = ["CocoDataset", "CocoMetric", "DataError", "ReadImage"]

HEADERS = 2000
"""Images whose header is looked at before training; the others' when they are read."""


@DATASETS.register_module()
class CocoDataset(MMDetCocoDataset):
    """MMDetection's ``CocoDataset``, with every mistake in the data named.

    Own data take three lines in a config: ``metainfo=dict(classes=(...))``, ``ann_file`` and ``data_prefix``. The
    classes may be some of the file's categories, in any order: the config's is that of the labels. Whether a photo's
    EXIF orientation applies is decided by the size that the file gives for it.

    Args:
        *args: as MMDetection's.
        part: ``train`` or ``dev`` for the images to learn from or those set aside to choose by; None for all.
        dev_fraction: share of the images that is set aside.
        **kwargs: as MMDetection's.

    Raises:
        DataError: an annotation file that is missing or malformed, classes that it lacks, an image that is not there,
            truncated, or of another size than the file says.
    """

    def __init__(self, *args: Any, part: str | None = None, dev_fraction: float = 0.1, **kwargs: Any) -> None:
        self.part = part
        self.dev_fraction = dev_fraction
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Reads the annotation file; logs what is left out and which part of the images is used."""
        classes = class_names(self.metainfo.get("classes"), "metainfo.classes")
        file = read_coco(self.ann_file)
        self.cat_ids = file.category_ids(classes)
        self.cat2label = {number: label for label, number in enumerate(self.cat_ids)}
        file = file.part(self.part, self.dev_fraction)
        if any(getattr(transform, "with_mask", False) for transform in self.pipeline.transforms):
            file = file.with_masks()
        folder = self.data_prefix.get("img", "")
        check_images(file.images, folder, self.ann_file)
        self._read_by(file.images, folder)
        by_image: dict[int, list[Entry]] = defaultdict(list)
        self.cat_img_map = defaultdict(list)
        for entry in file.annotations:
            by_image[entry["image_id"]].append(entry)
            self.cat_img_map[entry["category_id"]].append(entry["image_id"])
        thin = sum(entry["bbox"][2] < 1 or entry["bbox"][3] < 1 for entry in file.annotations)
        notes = [*file.notes]
        if thin:
            notes.append(f"{thin} boxes are less than a pixel wide or high; not trained on.")
        for note in notes:
            print_log(f"{self.ann_file}: {note}", "current")
        return [
            self.parse_data_info(
                {"raw_img_info": {**image, "img_id": image["id"]}, "raw_ann_info": by_image[image["id"]]}
            )
            for image in file.images
        ]

    def filter_data(self) -> list[dict[str, Any]]:
        """The images that ``filter_cfg`` and ``part`` leave; logs how many it drops.

        Raises:
            DataError: there is none.
        """
        left = super().filter_data()
        if not left:
            raise DataError(
                f"{self.ann_file}: no image is left of {len(self.data_list)} with part={self.part!r} and "
                f"filter_cfg={self.filter_cfg!r}. Are the classes {self.metainfo.get('classes')!r} in it?"
            )
        dropped = len(self.data_list) - len(left)
        if dropped:
            side = (self.filter_cfg or {}).get("min_size", 0)
            small = sum(min(image["width"], image["height"]) < side for image in self.data_list)
            reasons = [f"{small} are under {side} pixels wide or high (min_size)"] * (small > 0)
            reasons += [f"{dropped - small} have no box of the classes (filter_empty_gt)"] * (dropped > small)
            print_log(
                f"{self.ann_file}: {dropped} of {len(self.data_list)} images are left out: {' and '.join(reasons)}.",
                "current",
            )
        return left

    def _read_by(self, images: Sequence[Entry], folder: str) -> None:
        """Puts our reader of images in the place of MMCV's."""
        step = max(1, len(images) // HEADERS)
        upright = survey_orientation(images[::step], folder, self.ann_file)
        self.pipeline.transforms = [
            ReadImage(upright, transform.to_float32) if _is_plain_loader(transform) else transform
            for transform in self.pipeline.transforms
        ]


class ReadImage(BaseTransform):
    """Reads an image as `gemnet.data.reading.read_image` does, the way round that its annotations have it.

    Args:
        upright: whether EXIF's orientation is applied to images whose size is the same either way.
        to_float32: whether pixels become float32.
    """

    def __init__(self, upright: bool = True, to_float32: bool = False) -> None:
        self.upright = upright
        self.to_float32 = to_float32

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds ``img`` (h, w, 3) in BGR, ``img_shape`` and ``ori_shape``.

        Raises:
            DataError: the file is not there, truncated, no image, or of another size than the annotations say.
        """
        path = results["img_path"]
        try:
            upright = fitting_orientation(path, (results["width"], results["height"]))
            pixels = np.asarray(read_image(path, self.upright if upright is None else upright))
        except ImageFileError as error:
            raise DataError(str(error)) from None
        image = np.ascontiguousarray(pixels[..., ::-1])  # OpenCV's order of the channels, which MMDetection expects
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(upright={self.upright}, to_float32={self.to_float32})"


def _is_plain_loader(transform: Any) -> bool:
    """Whether a transform reads colour images from the file system and nothing else."""
    return (
        type(transform) is LoadImageFromFile
        and transform.color_type == "color"
        and transform.backend_args is None
        and transform.file_client_args is None
    )


def fitting_orientation(path: str, size: tuple[int, int]) -> bool | None:
    """Whether an image's annotations were made on it upright (True) or as stored (False); None where both fit.

    Args:
        path: the image.
        size: width and height that the annotation file gives.

    Raises:
        DataError: it is neither way of this size.
        ImageFileError: it can't be read.
    """
    with open_image(path) as image:
        stored, turned = image.size, orientation(image)
    upright = stored[::-1] if turned >= 5 else stored
    if size not in (stored, upright):
        ways = f"{stored[0]}x{stored[1]}" + (f" (upright {upright[0]}x{upright[1]})" if upright != stored else "")
        raise DataError(
            f"{path}: the image is {ways}, but its annotations are for {size[0]}x{size[1]}: its boxes would be "
            "somewhere else. Correct width and height in the annotation file, or put the right image there."
        )
    if turned == 1:
        return True
    return None if stored == upright else size == upright


def survey_orientation(images: Sequence[Entry], folder: str, path: str) -> bool:
    """Whether a data set's annotations were made on upright images; logs where EXIF leaves it open.

    Args:
        images: a sample, as `read_coco` gives them.
        folder: where they lie.
        path: the annotation file, for messages.

    Returns:
        What holds for images that are of one size either way: as those of which the size tells, else upright.

    Raises:
        DataError: an image can't be read, or is of another size than the file says.
    """
    if "://" in folder:
        return True
    told: dict[bool, int] = {True: 0, False: 0}
    open_questions = 0
    for entry in images:
        file = os.path.join(folder, entry["file_name"])
        try:
            with open_image(file) as image:
                turned = orientation(image) != 1
            way = fitting_orientation(file, (entry["width"], entry["height"]))
        except ImageFileError as error:
            raise DataError(str(error)) from None
        if way is None:
            open_questions += 1
        elif turned:
            told[way] += 1
    upright = told[True] >= told[False]
    if told[False]:
        print_log(
            f"{path}: by their sizes, {told[False]} images with EXIF orientation were annotated as they are "
            f"stored, {told[True]} upright; each is read that way.",
            "current",
        )
    if open_questions:
        way_words = "upright" if upright else "as they are stored"
        print_log(
            f"{path}: {open_questions} images have an EXIF orientation that their size doesn't show; taken to be "
            f"annotated {way_words}.",
            "current",
        )
    return upright


def check_images(images: Sequence[Entry], folder: str, path: str) -> None:
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
