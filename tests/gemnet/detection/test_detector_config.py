"""What a detector's config takes from its weights and its data, and what it is refused for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

import gemnet.detection  # noqa: F401  # stands in for what MMCV would have to compile

pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")

from gemnet.detection import config as config_module
from gemnet.detection.coco import DataError
from gemnet.detection.config import complete_config
from gemnet.errors import GemnetError
from gemnet.weights import find_weights

CONFIGS = Path(__file__).parents[3] / "configs"
TAG = "gemnet_a.imagenette96"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged."""
    texts: list[str] = []
    monkeypatch.setattr(config_module, "print_log", lambda text, logger: texts.append(text))
    return texts


def own(kind: str, **values: Any) -> dict[str, Any]:
    return {
        "data_root": "cells/",
        "ann_file": f"{kind}.json",
        "data_prefix": {"img": kind},
        "metainfo": {"classes": ("red", "white")},
        **values,
    }


def config(base: str = "retinanet_gemnet_coco320", **parts: Any) -> Config:
    """A user's config with training and validation images of two classes, and nothing else set."""
    loaded = Config.fromfile(CONFIGS / f"{base}.py")
    given = {
        "model": {"bbox_head": {"num_classes": 2}},
        "train_dataloader": {"dataset": own("train")},
        "val_dataloader": {"dataset": own("val")},
        **parts,
    }
    loaded.merge_from_dict(given)
    return loaded


# ---------------------------------------------------------------------------------------------- statistics


def in_bytes(tag: str) -> tuple[list[float], list[float]]:
    known = find_weights(tag)
    return [255 * value for value in known.mean], [255 * value for value in known.std]


@pytest.mark.parametrize(
    "before",
    [
        {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True},
        {"mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395], "bgr_to_rgb": False},  # RTMDet's
        {"mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "bgr_to_rgb": False},  # caffe's
        {"type": "DetDataPreprocessor"},  # YOLOX's
    ],
)
def test_images_are_normalised_as_the_backbones_weights_were_trained(before: dict, said: list[str]) -> None:
    given = config()
    given.model.data_preprocessor = {"type": "DetDataPreprocessor", **before}
    given.model.backbone.init_cfg = TAG
    complete_config(given)
    found, (mean, std) = given.model.data_preprocessor, in_bytes(TAG)
    assert list(found["mean"]) == pytest.approx(mean)
    assert list(found["std"]) == pytest.approx(std)
    assert found["bgr_to_rgb"]
    assert any(TAG in text for text in said)
    said.clear()
    complete_config(given)
    assert not any(TAG in text for text in said)


def test_a_checkpoint_is_fed_as_its_own_config_says_whatever_the_backbone_began_with() -> None:
    given = config()
    given.model.backbone.init_cfg = TAG
    text = "model = dict(data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], bgr_to_rgb=False))"
    complete_config(given, {"meta": {"cfg": text}, "state_dict": {}})
    found = given.model.data_preprocessor
    assert (found.mean, found.std, found.bgr_to_rgb) == ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], False)


def test_without_weights_the_configs_statistics_stay() -> None:
    given = config()
    before = dict(given.model.data_preprocessor)
    complete_config(given)
    assert dict(given.model.data_preprocessor) == before


# ---------------------------------------------------------------------------------------------- data


def test_a_part_is_taken_of_the_file_that_was_divided_only(said: list[str]) -> None:
    given = config()
    complete_config(given)
    assert given.train_dataloader.dataset.part is None
    assert given.val_dataloader.dataset.part is None
    assert given.val_evaluator.part is None
    assert any("cells/train.json: all images are used" in text for text in said)
    shared = config(val_dataloader={"dataset": own("train")})
    complete_config(shared)
    assert (shared.train_dataloader.dataset.part, shared.val_dataloader.dataset.part) == ("train", "dev")
    assert shared.val_evaluator.part == "dev"


def test_a_file_that_one_loader_divides_otherwise_is_refused() -> None:
    shared = own("train", dev_fraction=0.02)
    with pytest.raises(GemnetError, match=r"dev_fraction=0\.02 and by 0\.1"):
        complete_config(config(train_dataloader={"dataset": shared}, val_dataloader={"dataset": own("train")}))


def test_an_evaluator_reads_the_file_of_the_images_it_measures(said: list[str]) -> None:
    given = config()
    complete_config(given)
    assert given.val_evaluator.ann_file == "cells/val.json"
    assert list(given.val_evaluator.report_classes) == []  # coco320's person
    assert any("val_evaluator measures by cells/val.json" in text for text in said)


def test_a_test_loader_of_other_classes_is_left_out_of_a_training_and_refused_for_a_final_figure() -> None:
    given = config()
    complete_config(given)
    assert given.test_dataloader is given.test_evaluator is given.test_cfg is None
    with pytest.raises(GemnetError, match=r"test_dataloader are COCO's 80, those of train_dataloader red, white"):
        complete_config(config(), final=True)
    complete_config(config(test_dataloader={"dataset": own("test")}), final=True)


def test_all_data_sets_have_the_same_classes_in_the_same_order() -> None:
    turned = config(val_dataloader={"dataset": own("val", metainfo={"classes": ("white", "red")})})
    with pytest.raises(GemnetError, match="val_dataloader are white, red, those of train_dataloader red, white"):
        complete_config(turned)
    with pytest.raises(GemnetError, match=r"num_classes is 3, but train_dataloader has 2 classes"):
        complete_config(config(model={"bbox_head": {"num_classes": 3}}))
    with pytest.raises(DataError, match="comma"):
        complete_config(config(train_dataloader={"dataset": own("train", metainfo={"classes": "red"})}))


def test_mmdetections_own_readers_are_replaced_also_inside_wrappers() -> None:
    plain = {"type": "CocoDataset", **own("train")}
    given = Config(
        {
            "model": {"type": "RetinaNet", "backbone": {"type": "ResNet"}},
            "train_dataloader": {"dataset": {"type": "RepeatDataset", "times": 2, "dataset": plain}},
            "val_dataloader": {"dataset": {"type": "mmdet.CocoDataset", **own("val")}},
            "val_evaluator": [{"type": "CocoMetric", "ann_file": "cells/val.json"}, {"type": "DumpDetResults"}],
            "test_dataloader": {"dataset": {"type": "LVISV1Dataset", "ann_file": "a.json"}},
        }
    )
    complete_config(given)
    assert given.train_dataloader.dataset.dataset.type == "gemnet.CocoDataset"
    assert given.val_dataloader.dataset.type == "gemnet.CocoDataset"
    assert given.val_evaluator[0].type == "gemnet.CocoMetric"
    assert given.test_dataloader.dataset.type == "LVISV1Dataset"
    assert "gemnet.detection.dataset" in given.custom_imports["imports"]


def test_a_file_whose_annotations_lack_iscrowd_is_measured_from_a_base_of_mmdetections(shapes: Path) -> None:
    from mmengine.registry import DATASETS, METRICS, init_default_scope

    content = json.loads((shapes / "instances.json").read_text())
    for entry in content["annotations"]:
        del entry["iscrowd"]
    (shapes / "instances.json").write_text(json.dumps(content))
    images = {
        "type": "CocoDataset",
        "ann_file": str(shapes / "instances.json"),
        "data_prefix": {"img": str(shapes)},
        "metainfo": {"classes": ("square", "disc")},
        "pipeline": [],
        "test_mode": True,
    }
    given = Config(
        {
            "model": {"type": "RetinaNet", "backbone": {"type": "ResNet"}},
            "val_dataloader": {"dataset": images},
            "val_evaluator": {"type": "CocoMetric", "ann_file": str(shapes / "instances.json")},
        }
    )
    complete_config(given)
    init_default_scope("mmdet")
    data, metric = DATASETS.build(given.val_dataloader.dataset), METRICS.build(given.val_evaluator)
    metric.dataset_meta = data.metainfo
    nothing = {"bboxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.long)}
    metric.process({}, [{"img_id": 0, "ori_shape": (96, 96), "pred_instances": nothing}])
    assert metric.evaluate(size=1)["coco/bbox_mAP"] == 0
