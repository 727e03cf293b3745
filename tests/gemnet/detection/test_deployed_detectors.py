"""Backbones inside detectors, deployed."""

from __future__ import annotations

import pytest
import torch

import gemnet
from gemnet.deploy import DeployError, Program
from gemnet.detection.backbone import GEMNet
from gemnet.detection.torchvision import retinanet


def test_a_torchvision_detector_finds_the_same_when_deployed() -> None:
    torch.manual_seed(0)
    model = retinanet(arch="gemnet_a", num_classes=4, fpn_channels=16, min_size=64, max_size=96).eval()
    deployed = gemnet.deploy(model)
    assert any(isinstance(module, Program) for module in deployed.backbone.modules())
    images = [torch.rand(3, 64, 90)]
    with torch.no_grad():
        expected, found = model(images)[0], deployed(images)[0]
    torch.testing.assert_close(found["scores"], expected["scores"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("norm", [None, {"type": "SyncBN"}])
def test_levels_of_a_backbone_stay_the_same_when_deployed(norm: dict[str, str] | None) -> None:
    model = GEMNet("gemnet_a_cifar", frozen_stages=1, norm_eval=True, norm_cfg=norm).eval()
    deployed = gemnet.deploy(model)
    assert deployed.out_channels == model.out_channels
    images = torch.randn(1, 3, 45, 64)
    with torch.no_grad():
        for found, expected in zip(deployed(images), model(images), strict=True):
            assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    deployed.train()  # a detector that is trained further keeps its backbone


def test_group_norms_cannot_be_folded_and_the_message_says_where_they_are() -> None:
    model = GEMNet("gemnet_a_cifar", norm_cfg={"type": "GN", "num_groups": 4})
    with pytest.raises(DeployError, match=r"stem\.0.*GroupNorm"):
        gemnet.deploy(model)
