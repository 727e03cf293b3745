"""The Detectron2 plugin against Detectron2 itself; skipped where it is not installed (it is not on PyPI)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import gemnet

pytest.importorskip(
    "detectron2",
    reason="Detectron2 is not installed: https://detectron2.readthedocs.io/en/latest/tutorials/install.html",
)

from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import Boxes, Instances

from gemnet.detection.backbone import BackboneError
from gemnet.detection.detectron2 import GEMNetBackbone, add_gemnet_config

CONFIGS = {
    "retinanet": "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
    "faster_rcnn": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "c4": "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
    "dc5": "COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml",
}


def config(name: str, **options: Any) -> Any:
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file(CONFIGS[name]))
    cfg.MODEL.DEVICE = "cpu"
    return add_gemnet_config(cfg, **{"arch": "gemnet_a", **options})


def batch() -> list[dict[str, Any]]:
    image = torch.randint(0, 255, (3, 96, 128), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    boxes = Boxes(torch.tensor([[5.0, 5, 60, 50], [30, 20, 90, 90]]))
    return [
        {"image": image, "instances": Instances((96, 128), gt_boxes=boxes, gt_classes=torch.tensor([0, 7]))},
        {
            "image": image.flip(2),
            "instances": Instances((96, 128), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0).long()),
        },
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_one_training_step_and_a_prediction(name: str) -> None:
    from detectron2.utils.events import EventStorage

    torch.manual_seed(0)
    model = build_model(config(name)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with EventStorage():
        losses = model(batch())
    total = sum(losses.values())
    assert torch.isfinite(total)
    body = getattr(model.backbone, "bottom_up", model.backbone)  # C4 has no pyramid
    before = [p.detach().clone() for p in body.parameters()]
    total.backward()
    optimizer.step()
    after = list(body.parameters())
    assert all(p.grad is not None for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    with torch.no_grad():
        found = model.eval()(batch()[:1])
    assert found[0]["instances"].pred_boxes.tensor.shape[1] == 4


def test_the_last_stage_is_the_shared_block_of_a_c4_detectors_heads() -> None:
    donor = timm.create_model("gemnet_a.imagenette96", pretrained=True).state_dict()
    model = build_model(config("c4", weights="gemnet_a.imagenette96"))
    assert list(model.backbone.output_shape()) == ["res4"]
    for key, value in model.roi_heads.res5.state_dict().items():
        torch.testing.assert_close(value, donor[f"stages.{key}"])


def test_the_last_stage_of_a_dc5_detector_is_dilated() -> None:
    model = build_model(config("dc5"))
    assert model.backbone.output_shape()["res5"].stride == 16
    assert model.backbone(torch.zeros(1, 3, 64, 96))["res5"].shape[-2:] == (4, 6)
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file(CONFIGS["dc5"]))
    cfg.MODEL.RESNETS.RES5_DILATION = 4
    with pytest.raises(BackboneError, match="RES5_DILATION is 4"):
        add_gemnet_config(cfg, arch="gemnet_a")


@pytest.mark.parametrize("name", ["faster_rcnn", "c4"])
def test_weights_trained_on_images_normalised_otherwise_are_refused(name: str) -> None:
    saved = build_model(config(name, weights="gemnet_a.imagenette96")).state_dict()
    build_model(config(name, weights="gemnet_a.imagenette96")).load_state_dict(saved)
    with pytest.raises(RuntimeError, match="PIXEL_MEAN"):
        build_model(config(name)).load_state_dict(saved, strict=False)


def test_output_shape_and_strides() -> None:
    backbone = GEMNetBackbone("gemnet_b", out_features=("res5", "res3"))
    shapes = backbone.output_shape()
    levels = gemnet.genome_for("gemnet_b").levels
    assert {k: (v.channels, v.stride) for k, v in shapes.items()} == {
        "res3": (levels[1].width, 8),
        "res5": (levels[3].width, 32),
    }
    out = backbone(torch.zeros(1, 3, 64, 64))
    assert {k: tuple(v.shape[1:]) for k, v in out.items()} == {
        "res3": (levels[1].width, 8, 8),
        "res5": (levels[3].width, 2, 2),
    }
    with pytest.raises(BackboneError, match="no level 'res6'"):
        GEMNetBackbone("gemnet_b", out_features=("res6",))


def test_weights_and_freezing_come_through_the_config(tmp_path: Path) -> None:
    torch.manual_seed(3)
    donor = timm.create_model("gemnet_a").state_dict()
    torch.save(donor, tmp_path / "a.pth")
    cfg = config("faster_rcnn", weights=str(tmp_path / "a.pth"))
    assert cfg.MODEL.BACKBONE.FREEZE_AT == 2  # Detectron2's default for its own pretrained networks
    body = build_backbone(cfg).train().bottom_up.body
    for key, value in body.state_dict().items():
        torch.testing.assert_close(value, donor[key])
    assert not any(p.requires_grad for p in (*body.stem.parameters(), *body.stages[0].parameters()))
    assert all(p.requires_grad for p in body.stages[1].parameters())


def test_a_searched_genome_through_the_config(tmp_path: Path) -> None:
    gemnet.genome_for("gemnet_a").save(tmp_path / "best.json")
    cfg = config("retinanet", genome=str(tmp_path / "best.json"))
    assert set(build_backbone(cfg).output_shape()) == {"p3", "p4", "p5", "p6", "p7"}
