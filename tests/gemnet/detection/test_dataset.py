"""COCO-style data: what is wrong with them is said, crowds and empty images are read, development images set aside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import gemnet.detection  # noqa: F401  # stands in for what MMCV would have to compile

pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")

from mmdet.utils import register_all_modules

from gemnet.detection import dataset as dataset_module
from gemnet.detection.coco import images_of_part
from gemnet.detection.dataset import CocoDataset, CocoMetric, DataError

register_all_modules()

PIPELINE = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "PackDetInputs", "meta_keys": ("img_id", "ori_shape")},
]


def dataset(folder: Path, classes: tuple[str, ...] = ("square", "disc"), **options: Any) -> CocoDataset:
    return CocoDataset(
        ann_file=str(folder / "instances.json"),
        data_prefix={"img": str(folder)},
        metainfo={"classes": classes},
        pipeline=PIPELINE,
        **options,
    )


def edit(folder: Path, change: Callable[[dict], None]) -> Path:
    path = folder / "instances.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return folder


def test_boxes_crowds_and_empty_images_are_read(shapes: Path) -> None:
    data = dataset(shapes)
    assert len(data) == 6
    first = data[0]["data_samples"]
    assert first.gt_instances.labels.tolist() == [0]
    assert first.ignored_instances.labels.tolist() == [1]  # the crowd box: neither learnt nor punished
    assert len(data[5]["data_samples"].gt_instances) == 0


def test_training_leaves_out_empty_images_when_asked(shapes: Path) -> None:
    assert len(dataset(shapes, filter_cfg={"filter_empty_gt": True})) == 5


def test_a_subset_of_the_classes_by_name(shapes: Path) -> None:
    data = dataset(shapes, classes=("disc",), filter_cfg={"filter_empty_gt": True})
    labels = [label for sample in data for label in sample["data_samples"].gt_instances.labels.tolist()]
    assert labels == [0, 0]


def test_small_images_are_left_out_when_asked(shapes: Path) -> None:
    assert len(dataset(shapes, filter_cfg={"min_size": 96})) == 6
    with pytest.raises(DataError, match="no image is left of 6"):
        dataset(shapes, filter_cfg={"min_size": 97})


def test_parts_share_no_image_and_adding_images_moves_none() -> None:
    images = [{"file_name": f"{n}.jpg"} for n in range(1000)]
    train, dev = images_of_part(images, "train", 0.1), images_of_part(images, "dev", 0.1)
    assert len(train) + len(dev) == 1000
    assert 60 < len(dev) < 140
    assert images_of_part(images[:500], "dev", 0.1) == [i for i in dev if i in images[:500]]
    with pytest.raises(DataError, match="part is 'val'"):
        images_of_part(images, "val", 0.1)


def test_metric_of_a_part_sees_the_data_sets_images(shapes: Path) -> None:
    data = dataset(shapes, part="dev", dev_fraction=0.5, test_mode=True)
    metric = CocoMetric(str(shapes / "instances.json"), part="dev", dev_fraction=0.5)
    assert {data.get_data_info(n)["img_id"] for n in range(len(data))} == set(metric._coco_api.get_img_ids())
    assert 0 < len(data) < 6


def drop(key: str) -> Callable[[dict], None]:
    return lambda content: content.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("annotations"), "annotations is missing"),
        (drop("categories"), "categories is missing"),
        (lambda c: c["images"][1].pop("width"), r"images\[1\] has no 'width'"),
        (lambda c: c["images"][1].update(height=None), r"images\[1\].height is None; expected a number of pixels"),
        (lambda c: c["annotations"][0].pop("bbox"), r"annotations\[0\] has no 'bbox'"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"bbox is \[1, 2, 3\]"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, None]), "bbox is"),
        (lambda c: c["annotations"][0].update(image_id=77), "image_id is 77"),
        (lambda c: c["annotations"][0].update(category_id=77), "category_id is 77, which no category has"),
        (lambda c: c["images"].append({"id": 9, "file_name": "gone.jpg", "width": 5, "height": 5}), "gone.jpg"),
    ],
)
def test_bad_annotation_files_are_refused(change: Callable[[dict], None], message: str, shapes: Path) -> None:
    with pytest.raises(DataError, match=message):
        dataset(edit(shapes, change))


def test_missing_and_broken_files_are_named(shapes: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.*can't be read.*data_root"):
        dataset(shapes / "nowhere")
    (shapes / "instances.json").write_text('{"images": [')
    with pytest.raises(DataError, match="not JSON"):
        dataset(shapes)
    (shapes / "instances.json").write_text("[]")
    with pytest.raises(DataError, match="holds a list"):
        dataset(shapes)


def test_classes_that_the_file_lacks_are_refused(shapes: Path) -> None:
    with pytest.raises(DataError, match=r"no category 'sqare'. Did you mean 'square'"):
        dataset(shapes, classes=("sqare",))
    with pytest.raises(DataError, match="no category 'person'"):
        CocoDataset(ann_file=str(shapes / "instances.json"), data_prefix={"img": str(shapes)}, pipeline=[])
    with pytest.raises(DataError, match=r"\('square',\) with a comma"):
        dataset(shapes, classes="square")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(DataError, match=r"\('disc',\) with a comma"):
        CocoMetric(str(shapes / "instances.json"), report_classes="disc")


def perfect_detector(folder: Path, classes: tuple[str, ...], **options: Any) -> dict[str, float]:
    """Figures of a detector that finds what the data set holds."""
    data = dataset(folder, classes, test_mode=True)
    metric = CocoMetric(str(folder / "instances.json"), **options)
    metric.dataset_meta = {"classes": classes}
    for sample in (entry["data_samples"] for entry in data):
        found = sample.gt_instances
        boxes = {"bboxes": found.bboxes.tensor, "labels": found.labels, "scores": torch.ones(len(found))}
        metric.process({}, [{"img_id": sample.img_id, "ori_shape": sample.ori_shape, "pred_instances": boxes}])
    return metric.evaluate(size=len(data))


def renumber(first: int, kind: type) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for number, entry in enumerate(content["annotations"], first):
            entry["id"] = kind(number)

    return change


@pytest.mark.parametrize("kind", [int, str])
def test_annotations_may_be_numbered_from_0_or_by_texts(kind: type, shapes: Path) -> None:
    edit(shapes, renumber(0, kind))
    figures = perfect_detector(shapes, ("square", "disc"), report_classes=("square",))
    assert figures["coco/bbox_mAP"] == pytest.approx(1.0, abs=1e-6)
    assert figures["coco/square_mAP"] == 1.0


def test_labels_follow_the_configs_names_whatever_the_files_order(shapes: Path) -> None:
    plain = [sample["data_samples"].gt_instances.labels.tolist() for sample in dataset(shapes)]
    edit(shapes, lambda content: content["categories"].reverse())
    assert [sample["data_samples"].gt_instances.labels.tolist() for sample in dataset(shapes)] == plain
    turned = [s["data_samples"].gt_instances.labels.tolist() for s in dataset(shapes, classes=("disc", "square"))]
    assert turned == [[1 - label for label in labels] for labels in plain]
    for classes in (("square", "disc"), ("disc", "square"), ("disc",)):
        figures = perfect_detector(shapes, classes, classwise=True, report_classes=classes)
        assert all(figures[f"coco/{name}_{kind}"] == 1.0 for name in classes for kind in ("mAP", "precision"))


def test_the_table_of_classes_names_each_row_rightly(shapes: Path) -> None:
    edit(
        shapes, lambda content: [e.update(bbox=[0, 0, 9, 9]) for e in content["annotations"] if e["category_id"] == 11]
    )
    metric = CocoMetric(str(shapes / "instances.json"), classwise=True)
    metric.dataset_meta = {"classes": ("disc", "square")}
    for sample in (entry["data_samples"] for entry in dataset(shapes, ("square", "disc"), test_mode=True)):
        found = sample.gt_instances[sample.gt_instances.labels == 0]  # the squares alone
        boxes = {"bboxes": found.bboxes.tensor, "labels": found.labels + 1, "scores": torch.ones(len(found))}
        metric.process({}, [{"img_id": sample.img_id, "ori_shape": sample.ori_shape, "pred_instances": boxes}])
    figures = metric.evaluate(size=6)
    assert (figures["coco/square_precision"], figures["coco/disc_precision"]) == (1.0, 0.0)


@pytest.mark.parametrize("format_only", [False, True])
def test_results_that_are_written_have_the_files_category_ids(format_only: bool, shapes: Path, tmp_path: Path) -> None:
    perfect_detector(shapes, ("disc", "square"), outfile_prefix=str(tmp_path / "found"), format_only=format_only)
    rows = json.loads((tmp_path / "found.bbox.json").read_text())
    truth = json.loads((shapes / "instances.json").read_text())["annotations"]
    wanted = {(entry["image_id"], entry["category_id"]) for entry in truth if not entry["iscrowd"]}
    assert {(row["image_id"], row["category_id"]) for row in rows} == wanted


@pytest.mark.parametrize(("part", "null"), [(None, False), ("dev", False), (None, True)])
def test_area_and_iscrowd_may_be_missing_or_null(part: str | None, null: bool, shapes: Path) -> None:
    def bare(content: dict) -> None:
        for entry in content["annotations"]:
            for key in ("area", "iscrowd"):
                entry.pop(key)
                if null:
                    entry[key] = None

    edit(shapes, bare)
    truth = [sample["data_samples"] for sample in dataset(shapes, part=part, dev_fraction=0.5, test_mode=True)]
    metric = CocoMetric(str(shapes / "instances.json"), part=part, dev_fraction=0.5)
    metric.dataset_meta = {"classes": ("square", "disc")}
    for sample in truth:
        found = sample.gt_instances
        boxes = {"bboxes": found.bboxes.tensor, "labels": found.labels, "scores": torch.ones(len(found))}
        metric.process({}, [{"img_id": sample.img_id, "ori_shape": sample.ori_shape, "pred_instances": boxes}])
    assert metric.evaluate(size=len(truth))["coco/bbox_mAP_50"] == pytest.approx(1.0, abs=1e-6)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the data set logs."""
    texts: list[str] = []
    monkeypatch.setattr(dataset_module, "print_log", lambda text, logger: texts.append(text))
    return texts


def test_boxes_outside_or_of_no_size_are_left_out_and_counted(shapes: Path, said: list[str]) -> None:
    def spoil(content: dict) -> None:
        content["annotations"][1]["bbox"] = [200, 200, 20, 20]
        content["annotations"][2]["bbox"] = [5, 5, 0, 30]

    data = dataset(edit(shapes, spoil))
    boxes = sum(len(sample["data_samples"].gt_instances) for sample in data)
    assert boxes == 4  # one of five, and the crowd box
    assert any("1 boxes are outside" in text and "annotations[1]" in text for text in said)
    assert any("1 boxes have no size" in text for text in said)


def test_an_infinite_or_undefined_box_counts_neither_in_training_nor_in_evaluation(shapes: Path) -> None:
    def spoil(content: dict) -> None:
        content["annotations"][2]["bbox"] = [float("nan"), 5, 20, 20]
        content["annotations"][3]["bbox"] = [5, 5, float("inf"), 20]

    edit(shapes, spoil)
    assert sum(len(sample["data_samples"].gt_instances) for sample in dataset(shapes)) == 3
    assert perfect_detector(shapes, ("square", "disc"))["coco/bbox_mAP"] == pytest.approx(1.0, abs=1e-6)


def test_the_part_and_images_left_out_are_said(shapes: Path, said: list[str]) -> None:
    dataset(shapes, part="train", dev_fraction=0.5, filter_cfg={"filter_empty_gt": True, "min_size": 8})
    assert any("part='train'" in text and "of the 6 images" in text for text in said)
    said.clear()
    edit(shapes, lambda content: content["images"].append({**content["images"][0], "id": 77, "file_name": "77.jpg"}))
    cv2.imwrite(str(shapes / "77.jpg"), np.zeros((96, 96, 3), np.uint8))
    dataset(shapes, filter_cfg={"filter_empty_gt": True})
    assert any("2 of 7 images are left out" in text and "no box" in text for text in said)


def photo(path: Path, orientation: int, size: tuple[int, int] = (64, 48)) -> None:
    """A dark picture of the size as stored, bright where its box [4, 4, 24, 24] lies."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[4:28, 4:28] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def one_photo(folder: Path, kind: str, orientation: int, size: tuple[int, int], listed: tuple[int, int]) -> Any:
    photo(folder / f"photo.{kind}", orientation, size)
    content = {
        "images": [{"id": 1, "file_name": f"photo.{kind}", "width": listed[0], "height": listed[1]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 24, 24]}],
        "categories": [{"id": 1, "name": "square"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return dataset(folder, ("square",))[0]["inputs"]


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_a_photo_lies_as_its_annotations_have_it(kind: str, orientation: int, tmp_path: Path) -> None:
    stored = one_photo(tmp_path, kind, orientation, (64, 48), (64, 48))
    assert stored.shape == (3, 48, 64)
    assert stored[:, 6:26, 6:26].float().mean() > 240  # the object is in its box
    if orientation != 1:
        assert one_photo(tmp_path, kind, orientation, (64, 48), (48, 64)).shape == (3, 64, 48)


def test_a_photo_of_one_size_either_way_is_upright_unless_the_others_are_not(tmp_path: Path, said: list[str]) -> None:
    turned = one_photo(tmp_path, "png", 3, (64, 48), (64, 48))
    assert turned[:, 22:42, 38:58].float().mean() > 240
    assert any("doesn't show" in text and "upright" in text for text in said)
    photo(tmp_path / "other.png", 6)
    content = json.loads((tmp_path / "instances.json").read_text())
    content["images"].append({"id": 2, "file_name": "other.png", "width": 64, "height": 48})
    (tmp_path / "instances.json").write_text(json.dumps(content))
    assert dataset(tmp_path, ("square",))[0]["inputs"][:, 6:26, 6:26].float().mean() > 240


@pytest.mark.parametrize("listed", [(48, 64), (640, 480), (63, 48)])
def test_a_size_that_is_not_the_images_is_refused(listed: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"photo.jpg: the image is 64x48, but .* {listed[0]}x{listed[1]}"):
        one_photo(tmp_path, "jpg", 1, (64, 48), listed)


def test_masks_are_asked_for_where_there_are_none(shapes: Path, said: list[str]) -> None:
    pipeline = [PIPELINE[0], {**PIPELINE[1], "with_mask": True}, PIPELINE[2]]
    options: Any = {"ann_file": str(shapes / "instances.json"), "data_prefix": {"img": str(shapes)}}
    options |= {"metainfo": {"classes": ("square", "disc")}, "pipeline": pipeline}
    with pytest.raises(DataError, match="boxes only"):
        CocoDataset(**options)
    with pytest.raises(DataError, match="boxes only"):
        CocoMetric(str(shapes / "instances.json"), metric=["bbox", "segm"])
    edit(shapes, lambda c: [e.update(segmentation=[[5, 5, 30, 5, 30, 30]]) for e in c["annotations"][2:]])
    first, *others = [sample["data_samples"] for sample in CocoDataset(**options)]
    assert len(first.gt_instances) == 0  # neither learnt nor punished
    assert len(first.ignored_instances) == 2
    assert all(sample.gt_instances.masks.masks.any() for sample in others[:-1])
    assert any("2 annotations have no mask" in text for text in said)


def test_a_missing_truncated_or_undecodable_image_is_named(shapes: Path) -> None:
    data = dataset(shapes)
    whole = (shapes / "1.jpg").read_bytes()
    (shapes / "1.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"1.jpg: the image is truncated"):
        data[1]
    (shapes / "1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"1.jpg: the image file is empty"):
        data[1]
    (shapes / "1.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"1.jpg: can't be decoded"):
        data[1]
    (shapes / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"1.jpg: can't be read"):
        data[1]


def test_a_jpeg_with_a_film_behind_it_is_whole(shapes: Path) -> None:
    data = dataset(shapes)
    expected = data[1]["inputs"]
    (shapes / "1.jpg").write_bytes((shapes / "1.jpg").read_bytes() + bytes(20_000))
    assert torch.equal(data[1]["inputs"], expected)


def test_an_error_in_a_loaders_worker_keeps_its_sentence(shapes: Path) -> None:
    from torch.utils.data import DataLoader

    data = dataset(shapes)
    (shapes / "3.jpg").unlink()
    with pytest.raises(DataError) as caught:
        list(DataLoader(data, batch_size=2, num_workers=1, collate_fn=list))
    assert str(caught.value).startswith(str(shapes / "3.jpg"))
    assert "Traceback" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.contract
def test_every_coco320_image_is_read(data_folder: Callable[[str], Path]) -> None:
    folder = data_folder("coco320")
    counts = {}
    for part, images in (("train", 1700), ("val", 326)):
        data = CocoDataset(
            data_root=str(folder),
            ann_file=f"annotations/instances_{part}.json",
            data_prefix={"img": f"{part}/"},
            test_mode=True,
            pipeline=PIPELINE,
        )
        assert len(data) == images
        counts[part] = sum(len(data.get_data_info(n)["instances"]) for n in range(images))
        data[images - 1]
    # 16,279 and 2,644 less the 6 and 1 that are less than a pixel wide.
    assert counts == {"train": 16273, "val": 2643}
