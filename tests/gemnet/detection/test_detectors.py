"""MMDetection's own detectors with nothing but backbone and channels replaced: one training step each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import gemnet
import gemnet.detection

pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")

import mmdet
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm

from gemnet.detection.channels import fill_channels

register_all_modules()

CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"
OURS = Path(__file__).parents[3] / "configs"

FOREIGN = {
    "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py": (0, 1, 2, 3),
    "atss/atss_r50_fpn_1x_coco.py": (0, 1, 2, 3),
    "rtmdet/rtmdet_s_8xb32-300e_coco.py": (1, 2, 3),
    "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py": (0, 1, 2, 3),
    "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py": (0, 1, 2, 3),
    "detr/detr_r50_8xb2-150e_coco.py": (3,),
    "centernet/centernet_r18_8xb16-crop512-140e_coco.py": (3,),  # whose head views what it gets
    "ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py": (2, 3),
    "yolact/yolact_r50_1xb8-55e_coco.py": (0, 1, 2, 3),  # whose strides are 550 / 69 and so on
    "tood/tood_r50_fpn_1x_coco.py": (0, 1, 2, 3),  # deformable convolution
    "guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco.py": (0, 1, 2, 3),  # and masked convolution
    "dcn/faster-rcnn_r50_fpn_dpool_1x_coco.py": (0, 1, 2, 3),  # deformable RoI pooling
    "dcnv2/faster-rcnn_r50_fpn_mdpool_1x_coco.py": (0, 1, 2, 3),  # and weighted
    "vfnet/vfnet_r50_fpn_1x_coco.py": (0, 1, 2, 3),
    "autoassign/autoassign_r50-caffe_fpn_1x_coco.py": (0, 1, 2, 3),
    "fsaf/fsaf_r50_fpn_1x_coco.py": (0, 1, 2, 3),
    "foveabox/fovea_r50_fpn_4xb4-1x_coco.py": (0, 1, 2, 3),
    "gfl/gfl_r50_fpn_1x_coco.py": (0, 1, 2, 3),
    "yolof/yolof_r50-c5_8xb8-1x_coco.py": (3,),
    "sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py": (0, 1, 2, 3),
}
SLOW = ("cascade", "yolact", "guided", "dcn", "vfnet", "autoassign", "fsaf", "foveabox", "gfl", "yolof", "sparse")


def one_step(model_config: Any, masks: bool = False, predict: bool = True) -> dict[str, float]:
    """Loss and gradient step on two random pictures, then a prediction; returns the losses."""
    torch.manual_seed(0)
    MessageHub.get_current_instance().update_info("epoch", 0)  # which TOOD's assigner asks for
    model = revert_sync_batchnorm(MODELS.build(model_config)).train()
    data = demo_mm_inputs(2, [(3, 96, 128), (3, 96, 128)], num_items=[3, 1], num_classes=80, with_mask=masks)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = model.data_preprocessor(data, True)
    total, losses = model.parse_losses(model._run_forward(batch, "loss"))
    before = [p.detach().clone() for p in model.backbone.parameters()]
    total.backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.backbone.parameters(), strict=True))
    if predict:
        with torch.no_grad():
            results = model.eval().test_step(demo_mm_inputs(1, [(3, 96, 128)], num_classes=80))
        assert results[0].pred_instances.bboxes.shape[1] == 4
    return {name: float(value.detach()) for name, value in losses.items()}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name.startswith(SLOW) else name for name in FOREIGN],
)
def test_one_training_step_of_a_foreign_detector(name: str) -> None:
    config = Config.fromfile(CONFIGS / name).model
    config.backbone = {"type": "gemnet.GEMNet", "arch": "gemnet_a", "out_indices": FOREIGN[name]}
    assert fill_channels(config)
    # MMDetection's SSDHead itself fails to predict: its base class asks for a loss_cls that it never makes.
    losses = one_step(config, masks="mask" in name or "yolact" in name, predict="ssd" not in name)
    assert all(math.isfinite(value) for value in losses.values()), losses
    assert losses["loss"] > 0
    if "mask" in name:
        assert losses["loss_mask"] > 0


@pytest.mark.parametrize(
    "name",
    [
        "retinanet_gemnet",
        "retinanet_gemnet_coco320",
        "faster_rcnn_gemnet",
        "faster_rcnn_gemnet_coco320",
        "mask_rcnn_gemnet",
        "rtmdet_tiny_gemnet",
    ],
)
def test_one_training_step_of_our_detectors(name: str) -> None:
    config = Config.fromfile(OURS / f"{name}.py").model
    fill_channels(config)
    losses = one_step(config, masks="mask" in name)
    assert math.isfinite(losses["loss"])
    assert losses["loss"] > 0


def test_a_searched_network_and_its_weights_take_two_lines(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    genome = gemnet.genome_for("gemnet_a").replace(activation="hswish", name="found")
    genome.save(tmp_path / "best.json")
    torch.manual_seed(2)
    donor = timm.create_model("gemnet", genome=tmp_path / "best.json").state_dict()
    save_file(donor, tmp_path / "best.safetensors")
    config = Config.fromfile(OURS / "retinanet_gemnet_coco320.py")
    config.merge_from_dict(
        {
            "model.backbone.arch": None,
            "model.backbone.genome": str(tmp_path / "best.json"),
            "model.backbone.init_cfg": str(tmp_path / "best.safetensors"),
        }
    )
    fill_channels(config.model)
    (tmp_path / "best.json").unlink()  # the config holds the genome itself by now
    model = MODELS.build(config.model)
    model.init_weights()
    assert model.backbone.genome == genome
    for key, value in model.backbone.state_dict().items():
        torch.testing.assert_close(value, donor[key])


def test_a_detector_with_max_pooled_rois_and_soft_nms_trains_and_predicts() -> None:
    config = Config.fromfile(OURS / "faster_rcnn_gemnet_coco320.py").model
    config.roi_head.bbox_roi_extractor.roi_layer.pool_mode = "max"
    config.test_cfg.rcnn.nms = {"type": "soft_nms", "iou_threshold": 0.5, "min_score": 0.001}
    fill_channels(config)
    assert math.isfinite(one_step(config)["loss"])
