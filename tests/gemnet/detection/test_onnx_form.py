"""A whole detector as ONNX: what onnxruntime finds is what MMDetection finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gemnet.detection  # noqa: F401  # stands in for what MMCV would have to compile

pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")
pytest.importorskip("onnxscript", reason="ONNX is not installed: pip install '.[export]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install '.[export]'")

import onnxruntime
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm

from gemnet.detection.channels import fill_channels
from gemnet.detection.onnx_form import OnnxError, export_onnx
from gemnet.models import genome_for

register_all_modules()

CONFIGS = Path(__file__).parents[3] / "configs"
SIDE = 64


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE)).astype(np.float32)


def short_backbone() -> dict[str, Any]:
    """One block a stage: the exporter takes its time for every node, and other tests export whole networks."""
    genome = genome_for("gemnet_a")
    short = genome.replace(stages=tuple(replace(stage, depth=1) for stage in genome.stages))
    return {"arch": None, "genome": short.to_dict(), "init_cfg": None}


def detector(name: str) -> Any:
    """With random weights whose scores differ, as those of a trained one do."""
    config = Config.fromfile(CONFIGS / f"{name}.py").model
    config.backbone.update(short_backbone())
    config.bbox_head.num_classes = 3
    config.test_cfg.update(score_thr=0.3, nms_pre=100_000)
    fill_channels(config)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(config)).eval()
    with torch.no_grad():
        given = {"inputs": [torch.from_numpy(picture()[::-1].copy())], "data_samples": [DetDataSample()]}
        images = model.data_preprocessor(given)["inputs"]
        outputs = model.bbox_head(model.extract_feat(images))
        for key, value in model.bbox_head.named_parameters():
            layer, _, part = key.partition(".")
            kind, width, middle = {
                "retina_cls": (0, 2.0, -1.0),
                "rtm_cls": (0, 2.0, -1.0),
                "retina_reg": (1, 0.3, 0.0),
                "rtm_reg": (1, 0.3, 1.5),  # distances to the sides
            }.get(layer, (0, 0.0, 0.0))
            if width and part.endswith("weight"):
                value.mul_(width / torch.cat([level.flatten() for level in outputs[kind]]).std())
            elif width:
                value.fill_(middle)
    return model


def two_stage(**changes: Any) -> Any:
    """Likewise a Faster R-CNN, on three classes."""
    whole = Config.fromfile(CONFIGS / "faster_rcnn_gemnet_coco320.py")
    whole.merge_from_dict({f"model.{key}": value for key, value in changes.items()})
    config = whole.model
    config.backbone.update(short_backbone())
    config.roi_head.bbox_head.num_classes = 3
    fill_channels(config)
    torch.manual_seed(0)
    model = MODELS.build(config).eval()
    widths = {"rpn_head.rpn_cls": 2.0, "rpn_head.rpn_reg": 0.3, "roi_head.bbox_head.fc_cls": 2.0}
    widths["roi_head.bbox_head.fc_reg"] = 0.5
    for name, width in widths.items():  # one after another: heads read what those before them found
        layer, outputs = model.get_submodule(name), []
        hook = layer.register_forward_hook(lambda _, reads, written, kept=outputs: kept.append(written.flatten()))
        mmdetections(model, picture())
        hook.remove()
        layer.weight.data.mul_(width / torch.cat(outputs).std())
    return model


def mmdetections(model: Any, image: np.ndarray) -> Any:
    """What MMDetection finds in an RGB image."""
    sample = DetDataSample(metainfo={"img_shape": (SIDE, SIDE), "ori_shape": (SIDE, SIDE), "scale_factor": (1.0, 1.0)})
    with torch.no_grad():  # MMDetection loads BGR
        found = model.test_step({"inputs": [torch.from_numpy(image[::-1].copy())], "data_samples": [sample]})[0]
    return found.pred_instances


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def same_as_mmdetection(model: Any, image: np.ndarray, file: Path, scores: float, boxes: float) -> np.ndarray:
    """Exports a detector and finds in the image what MMDetection finds, to these tolerances; its scores."""
    export_onnx(model, file, (SIDE, SIDE))
    wanted = mmdetections(model, image)
    assert len(wanted) > 10
    found_boxes, found_scores, labels = session(file).run(None, {"images": image[None]})
    np.testing.assert_allclose(found_scores, wanted.scores.numpy(), atol=scores)
    assert labels.tolist() == wanted.labels.tolist()
    np.testing.assert_allclose(found_boxes, wanted.bboxes.numpy(), atol=boxes)
    return found_scores


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param("retinanet_gemnet_coco320", marks=pytest.mark.contract), "rtmdet_tiny_gemnet"]
)
def test_onnxruntime_finds_what_mmdetection_finds(name: str, tmp_path: Path) -> None:
    model = detector(name)
    image = picture()
    scores = same_as_mmdetection(model, image, tmp_path / "whole.onnx", scores=1e-4, boxes=1e-2)

    export_onnx(model, tmp_path / "raw.onnx", (SIDE, SIDE), nms=False)
    raw_boxes, raw_scores = session(tmp_path / "raw.onnx").run(None, {"images": image[None]})
    assert raw_boxes.shape[:2] == raw_scores.shape[:2]
    assert raw_scores.shape[2] == 3
    best = raw_scores[0].max()
    assert best == pytest.approx(float(scores[0]), abs=1e-5)


@pytest.mark.slow
@pytest.mark.contract
def test_onnxruntime_finds_what_mmdetection_finds_in_two_stages(tmp_path: Path) -> None:
    model = two_stage()
    image = picture()
    scores = same_as_mmdetection(model, image, tmp_path / "whole.onnx", scores=1e-3, boxes=5e-2)
    export_onnx(model, tmp_path / "raw.onnx", (SIDE, SIDE), nms=False)
    raw_boxes, raw_scores = session(tmp_path / "raw.onnx").run(None, {"images": image[None]})
    assert raw_boxes.shape == (*raw_scores.shape, 4)
    assert raw_scores.max() == pytest.approx(float(scores[0]), abs=1e-5)


def test_what_can_not_be_written_is_said(tmp_path: Path) -> None:
    model = two_stage(**{"roi_head.bbox_roi_extractor.roi_layer.pool_mode": "max"})
    with pytest.raises(OnnxError, match="pool_mode is max, expected avg"):
        export_onnx(model, tmp_path / "a.onnx", (SIDE, SIDE))
    with pytest.raises(OnnxError, match="YOLOV3 is neither a one-stage detector"):
        export_onnx(type("YOLOV3", (), {"bbox_head": None})(), tmp_path / "a.onnx", (SIDE, SIDE))
    with pytest.raises(OnnxError, match="multiples of 32"):
        export_onnx(detector("retinanet_gemnet_coco320"), tmp_path / "a.onnx", (SIDE, 50))
