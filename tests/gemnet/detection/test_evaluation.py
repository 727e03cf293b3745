"""MMDetection's COCO evaluation against the figures that pycocotools' authors publish for 100 images."""

from __future__ import annotations

import inspect
import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import gemnet.detection  # noqa: F401  # stands in for what MMCV would have to compile

pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")

AP_ITEMS = ["mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"]
# With proposal_nums=(1, 10, 100), MMDetection's names of the recalls stand for AR@1, AR@10, AR@100 and by size.
AR_ITEMS = ["AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000"]


def published_figures(folder: Path) -> dict[str, list[float]]:
    text = (folder / "val2014_fake_eval_res.txt").read_text()
    parts = re.split(r"type=(\w+)", text)[1:]
    found = {
        kind: [float(v) for v in re.findall(r"= (\d\.\d+)", body)]
        for kind, body in zip(parts[::2], parts[1::2], strict=True)
    }
    return {kind: found[kind] for kind in ("bbox", "segm")}


@pytest.mark.parametrize("name", ["_coco_api", "_dataset_meta"])
def test_mmdetections_metric_works_with_what_ours_puts_in(name: str) -> None:
    from mmdet.evaluation import CocoMetric

    assert any(f"self.{name}" in inspect.getsource(kind) for kind in CocoMetric.__mro__[:-1])


def test_all_24_published_figures_come_out(data_folder: Callable[[str], Path]) -> None:
    from mmdet.evaluation import CocoMetric

    folder = data_folder("coco_eval_check")
    truth = folder / "instances_val2014_100.json"
    classes = [c["name"] for c in json.loads(truth.read_text())["categories"]]
    for kind, expected in published_figures(folder).items():
        assert len(expected) == 12
        metric = CocoMetric(
            ann_file=str(truth), metric=kind, proposal_nums=(1, 10, 100), metric_items=AP_ITEMS + AR_ITEMS
        )
        metric.dataset_meta = {"classes": classes}
        for sample in fake_predictions(folder, truth, kind):
            metric.process({}, [sample])
        results = metric.evaluate(size=100)
        ours = [results[f"coco/{kind}_{item}"] for item in AP_ITEMS + AR_ITEMS]
        assert ours == expected, kind


def fake_predictions(folder: Path, truth: Path, kind: str) -> list[dict]:
    """The published detections in the form in which a detector hands them to the metric."""
    boxes = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    masks = json.loads((folder / "instances_val2014_fakesegm100_results.json").read_text())
    content = json.loads(truth.read_text())
    labels = {c["id"]: n for n, c in enumerate(content["categories"])}
    rows = defaultdict(list)
    for box, mask in zip(boxes, masks, strict=True):
        # Both files list the same 734 detections in the same order, sorted by image.
        assert (box["image_id"], box["category_id"]) == (mask["image_id"], mask["category_id"])
        rows[box["image_id"]].append((box, mask["segmentation"]))
    samples = []
    for image in content["images"]:
        found = rows[image["id"]]
        xywh = torch.tensor([row[0]["bbox"] for row in found], dtype=torch.float64).reshape(-1, 4)
        pred = {
            "bboxes": torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1),
            "scores": torch.tensor([row[0]["score"] for row in found], dtype=torch.float64),
            "labels": torch.tensor([labels[row[0]["category_id"]] for row in found], dtype=torch.long),
        }
        if kind == "segm":
            pred["masks"] = [dict(row[1]) for row in found]
        samples.append({"img_id": image["id"], "ori_shape": (image["height"], image["width"]), "pred_instances": pred})
    return samples


def test_box_ap_to_six_digits(data_folder: Callable[[str], Path]) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    folder = data_folder("coco_eval_check")
    truth = COCO(str(folder / "instances_val2014_100.json"))
    evaluation = COCOeval(
        truth, truth.loadRes(str(folder / "instances_val2014_fakebbox100_results.json")), iouType="bbox"
    )
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert round(float(evaluation.stats[0]), 6) == 0.504581


def test_figures_of_one_class_equal_an_evaluation_of_that_class_alone(data_folder: Callable[[str], Path]) -> None:
    from gemnet.detection.dataset import CocoMetric, DataError

    folder = data_folder("coco_eval_check")
    truth = folder / "instances_val2014_100.json"
    classes = [c["name"] for c in json.loads(truth.read_text())["categories"]]
    metric = CocoMetric(str(truth), metric="bbox", classwise=True, report_classes=("person", "toaster"))
    metric.dataset_meta = {"classes": classes}
    for sample in fake_predictions(folder, truth, "bbox"):
        metric.process({}, [sample])
    results = metric.evaluate(size=100)
    # MMDetection's own figure by class, to its three digits.
    assert round(results["coco/person_mAP"], 3) == pytest.approx(results["coco/person_precision"], abs=1e-3)
    assert results["coco/person_mAP_50"] > results["coco/person_mAP"] > 0.1
    assert results["coco/toaster_mAP_50"] in (0.0, -1.0)
    with pytest.raises(DataError, match=r"no category 'persona'\. Did you mean 'person'"):
        CocoMetric(str(truth), report_classes=("persona",))


def test_a_detector_that_finds_nothing_has_no_precision(shapes: Path) -> None:
    from gemnet.detection.dataset import CocoMetric

    metric = CocoMetric(str(shapes / "instances.json"), report_classes=("disc",))
    metric.dataset_meta = {"classes": ("square", "disc")}
    nothing = {"bboxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.long)}
    for number in range(6):
        metric.process({}, [{"img_id": number, "ori_shape": (96, 96), "pred_instances": nothing}])
    figures = metric.evaluate(size=6)
    assert figures["coco/bbox_mAP"] == figures["coco/disc_mAP_50"] == 0


def test_a_reported_class_is_one_of_the_data_sets_and_without_boxes_has_no_figure(shapes: Path) -> None:
    from gemnet.detection.dataset import CocoMetric, DataError

    path = shapes / "instances.json"
    content = json.loads(path.read_text())
    kept = [entry for entry in content["annotations"] if entry["category_id"] == 10 or entry["iscrowd"]]
    path.write_text(json.dumps({**content, "annotations": kept}))
    metric = CocoMetric(str(path), report_classes=("square", "disc"))
    with pytest.raises(DataError, match="not trained on 'disc'; its classes are square"):
        metric.dataset_meta = {"classes": ("square",)}
    metric.dataset_meta = {"classes": ("square", "disc")}
    for boxes in (0, 1):
        one = {"bboxes": torch.ones(boxes, 4), "scores": torch.ones(boxes), "labels": torch.ones(boxes).long()}
        for number in range(6):
            metric.process({}, [{"img_id": number, "ori_shape": (96, 96), "pred_instances": one}])
        figures = metric.evaluate(size=6)
        assert figures["coco/disc_mAP"] == figures["coco/disc_mAP_50"] == -1
        assert figures["coco/square_mAP"] == 0
