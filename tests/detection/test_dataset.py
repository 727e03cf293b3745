"""COCO-style data: what is wrong with them is said, crowds and empty images are read, development images set aside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import gemnet.detection  # noqa: F401

pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")

from mmdet.utils import register_all_modules

from gemnet.detection.dataset import CocoDataset, CocoMetric, DataError, images_of_part

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
        (lambda c: c["annotations"][1].update(id=c["annotations"][0]["id"]), r"annotations\[1\].id is .*another has"),
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


def test_classes_that_the_file_lacks_or_in_another_order_are_refused(shapes: Path) -> None:
    with pytest.raises(DataError, match=r"no category 'sqare'. Did you mean 'square'"):
        dataset(shapes, classes=("sqare",))
    # MMDetection would call squares discs and discs squares.
    with pytest.raises(DataError, match=r"must be in that order too: \('square', 'disc'\)"):
        dataset(shapes, classes=("disc", "square"))
    with pytest.raises(DataError, match="no category 'person'"):
        CocoDataset(ann_file=str(shapes / "instances.json"), data_prefix={"img": str(shapes)}, pipeline=[])


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


def test_boxes_outside_or_of_no_size_are_left_out_and_counted(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("gemnet.detection.dataset.print_log", lambda text, logger: said.append(text))

    def spoil(content: dict) -> None:
        content["annotations"][1]["bbox"] = [200, 200, 20, 20]
        content["annotations"][2]["bbox"] = [5, 5, 0, 30]

    data = dataset(edit(shapes, spoil))
    boxes = sum(len(sample["data_samples"].gt_instances) for sample in data)
    assert boxes == 4  # one of five, and the crowd box
    assert any("2 boxes are outside" in text for text in said)


def test_a_missing_truncated_or_undecodable_image_is_named(shapes: Path) -> None:
    data = dataset(shapes)
    whole = (shapes / "1.jpg").read_bytes()
    (shapes / "1.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"1.jpg: the JPEG is truncated"):
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
