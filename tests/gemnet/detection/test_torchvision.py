"""torchvision's detectors on a GEMNet: built, trained a step, predicting; without OpenMMLab's detection packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from gemnet.detection.backbone import BackboneError
from gemnet.detection.torchvision import faster_rcnn, retinanet
from gemnet.weights import find_weights

SMALL = {"fpn_channels": 32, "min_size": 64, "max_size": 96}
BUILDERS = {"retinanet": retinanet, "faster_rcnn": faster_rcnn}


def batch() -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    random = torch.Generator().manual_seed(0)
    images = [torch.rand(3, 64, 96, generator=random), torch.rand(3, 80, 64, generator=random)]
    targets = [
        {"boxes": torch.tensor([[5.0, 5, 40, 50], [30, 20, 60, 60]]), "labels": torch.tensor([1, 3])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    ]
    return images, targets


@pytest.mark.parametrize("name", BUILDERS)
def test_one_training_step_and_a_prediction(name: str) -> None:
    torch.manual_seed(0)
    model = BUILDERS[name](arch="gemnet_a", num_classes=4, **SMALL).train()
    images, targets = batch()
    losses = model(images, targets)
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(p.grad is not None for p in model.backbone.parameters() if p.requires_grad)
    with torch.no_grad():
        found = model.eval()(images)
    assert len(found) == 2
    assert found[0]["boxes"].shape[1] == 4


@pytest.mark.parametrize("name", BUILDERS)
def test_anchors_fit_the_pyramid(name: str) -> None:
    model = BUILDERS[name](arch="gemnet_a", num_classes=4, **SMALL)
    levels = model.backbone(torch.zeros(1, 3, 128, 128))
    assert len(levels) == 5
    anchors = model.anchor_generator if name == "retinanet" else model.rpn.anchor_generator
    strides = [128 // level.shape[-1] for level in levels.values()]
    base = 4 if name == "retinanet" else 8
    assert [sizes[0] for sizes in anchors.sizes] == [base * stride for stride in strides]


@pytest.mark.parametrize("name", BUILDERS)
def test_a_dilated_last_stage_keeps_its_size_and_anchors_follow(name: str) -> None:
    model = BUILDERS[name](arch="gemnet_a", num_classes=4, output_stride=16, **SMALL)
    assert model.backbone.body.strides[-2:] == (16, 16)
    levels = list(model.backbone(torch.zeros(1, 3, 128, 128)).values())
    anchors = model.anchor_generator if name == "retinanet" else model.rpn.anchor_generator
    base = 4 if name == "retinanet" else 8
    assert [sizes[0] for sizes in anchors.sizes] == [base * 128 // level.shape[-1] for level in levels]
    images, targets = batch()
    assert all(torch.isfinite(value) for value in model.train()(images, targets).values())


@pytest.mark.parametrize("name", BUILDERS)
def test_weights_and_freezing_reach_the_backbone(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    donor = timm.create_model("gemnet_a").state_dict()
    torch.save(donor, tmp_path / "a.pth")
    model = BUILDERS[name](arch="gemnet_a", weights=tmp_path / "a.pth", frozen_stages=2, norm_eval=True, **SMALL)
    body = model.train().backbone.body
    for key, value in body.state_dict().items():
        torch.testing.assert_close(value, donor[key])
    assert not body.stages[1][0].training
    assert not any(p.requires_grad for p in body.stages[1].parameters())
    assert all(p.requires_grad for p in body.stages[2].parameters())


@pytest.mark.parametrize("name", BUILDERS)
def test_images_are_normalised_as_the_weights_were_trained_with(name: str) -> None:
    known = find_weights("gemnet_a.imagenette96")
    model = BUILDERS[name](arch="gemnet_a", weights="gemnet_a.imagenette96", **SMALL)
    assert model.transform.image_mean.tolist() == pytest.approx(known.mean)
    assert model.transform.image_std.tolist() == pytest.approx(known.std)
    own = BUILDERS[name](arch="gemnet_a", weights="gemnet_a.imagenette96", image_mean=[0.5] * 3, **SMALL)
    assert own.transform.image_mean.tolist() == [0.5] * 3


@pytest.mark.parametrize("name", BUILDERS)
def test_a_reloaded_detector_sees_images_as_the_saved_one_did(name: str) -> None:
    saved = BUILDERS[name](arch="gemnet_a", num_classes=4, image_mean=[0.9, 0.2, 0.1], image_std=[0.1] * 3, **SMALL)
    again = BUILDERS[name](arch="gemnet_a", num_classes=4, **SMALL)
    again.load_state_dict(saved.state_dict())
    images, _ = batch()
    with torch.no_grad():
        assert torch.equal(saved.eval().transform(images)[0].tensors, again.eval().transform(images)[0].tensors)


def test_a_state_without_statistics_still_loads_with_a_warning() -> None:
    model = retinanet(arch="gemnet_a", num_classes=4, **SMALL)
    old = {key: value for key, value in model.state_dict().items() if "image_" not in key}
    with pytest.warns(UserWarning, match="don't say how images were normalised"):
        model.load_state_dict(old)


def test_a_network_of_the_small_form_works_too() -> None:
    # Strides 1, 2, 4: anchors follow, so small objects on small images.
    model = retinanet(
        arch="gemnet_a_cifar", num_classes=4, out_indices=(0, 1, 2), fpn_channels=16, min_size=32, max_size=32
    )
    images, targets = batch()
    assert torch.isfinite(sum(model.train()(images[:1], targets[:1]).values()))


def test_bad_options_are_named() -> None:
    with pytest.raises(BackboneError, match="out_indices holds 7"):
        retinanet(arch="gemnet_a", out_indices=(7,))
    with pytest.raises(BackboneError, match=r"no option 'frozen_stage'. Did you mean 'frozen_stages'"):
        retinanet(arch="gemnet_a", frozen_stage=2)
    with pytest.raises(BackboneError, match=r"no option 'box_scor_thresh'. Did you mean 'box_score_thresh'"):
        faster_rcnn(arch="gemnet_a", box_scor_thresh=0.1)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_may_have_any_number_of_channels(channels: int) -> None:
    model = retinanet(arch="gemnet_a", num_classes=4, in_channels=channels, **SMALL).eval()
    with torch.no_grad():
        assert len(model([torch.rand(channels, 64, 64)])) == 1


@pytest.mark.slow
@pytest.mark.contract
def test_it_needs_neither_mmcv_nor_mmdet() -> None:
    code = (
        "import sys; sys.modules['mmcv'] = sys.modules['mmdet'] = None\n"
        "import gemnet.detection.torchvision as t; t.retinanet(arch='gemnet_a', num_classes=3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
