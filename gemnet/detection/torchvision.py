"""torchvision's RetinaNet and Faster R-CNN on a GEMNet: no OpenMMLab needed.

model = retinanet(arch="gemnet_b", num_classes=91)
losses = model(images, targets)
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from gemnet.detection.backbone import GEMNet
from gemnet.models import GenomeSource
from gemnet.weights import image_statistics

RATIOS = (0.5, 1.0, 2.0)
BASE_SIZE = 8
"""Side of an anchor by the stride of its level: 32 pixels at stride 4, as in torchvision's own Faster R-CNN."""


class GEMNetPyramid(nn.Module):
    """A GEMNet with a feature pyramid (Lin et al., arXiv 1612.03144), in the form torchvision's detectors ask for.

    Args:
        body: the backbone.
        out_channels: channels of each level.
        extra: further levels on top, of torchvision's kind.
    """

    def __init__(self, body: GEMNet, out_channels: int, extra: ExtraFPNBlock) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(list(body.out_channels), out_channels, extra)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Levels by name, ``batch x out_channels x h x w``, of images ``batch x 3 x h x w``."""
        return self.fpn(OrderedDict((str(n), level) for n, level in enumerate(self.body(x))))


def retinanet(
    arch: str | None = None,
    genome: GenomeSource | None = None,
    num_classes: int = 91,
    weights: str | os.PathLike[str] | None = None,
    out_indices: Sequence[int] = (1, 2, 3),
    frozen_stages: int = -1,
    norm_eval: bool = False,
    fpn_channels: int = 256,
    **options: Any,
) -> RetinaNet:
    """RetinaNet (arXiv 1708.02002) with levels P3 to P7.

    Args:
        arch: a name known to `gemnet.genome_for`.
        genome: instead, a genome: path, dict or `Genome`.
        num_classes: classes, background included.
        weights: the backbone's weights: a path or a zoo tag, which also says how images are normalised; None for none.
        out_indices: levels of the backbone that the pyramid is built on; two more are put on top.
        frozen_stages: as in `gemnet.detection.GEMNet`.
        norm_eval: as in `gemnet.detection.GEMNet`.
        fpn_channels: channels of the pyramid.
        **options: of `torchvision.models.detection.RetinaNet`.

    Raises:
        GemnetError: as `gemnet.detection.GEMNet`.
    """
    body = _body(arch, genome, weights, out_indices, frozen_stages, norm_eval)
    options = {**_statistics(weights), **options}
    pyramid = GEMNetPyramid(body, fpn_channels, LastLevelP6P7(body.out_channels[-1], fpn_channels))
    if "anchor_generator" not in options:
        sides = [BASE_SIZE * stride // 2 for stride in _strides(body, extra=2)]
        sizes = tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for side in sides)
        options["anchor_generator"] = AnchorGenerator(sizes, (RATIOS,) * len(sizes))
    return RetinaNet(pyramid, num_classes, **options)


def faster_rcnn(
    arch: str | None = None,
    genome: GenomeSource | None = None,
    num_classes: int = 91,
    weights: str | os.PathLike[str] | None = None,
    out_indices: Sequence[int] = (0, 1, 2, 3),
    frozen_stages: int = -1,
    norm_eval: bool = False,
    fpn_channels: int = 256,
    **options: Any,
) -> FasterRCNN:
    """Faster R-CNN (arXiv 1506.01497) on a pyramid of levels P2 to P6.

    Args:
        arch: a name known to `gemnet.genome_for`.
        genome: instead, a genome: path, dict or `Genome`.
        num_classes: classes, background included.
        weights: the backbone's weights: a path or a zoo tag, which also says how images are normalised; None for none.
        out_indices: levels of the backbone that the pyramid is built on; one more is put on top.
        frozen_stages: as in `gemnet.detection.GEMNet`.
        norm_eval: as in `gemnet.detection.GEMNet`.
        fpn_channels: channels of the pyramid.
        **options: of `torchvision.models.detection.FasterRCNN`.

    Raises:
        GemnetError: as `gemnet.detection.GEMNet`.
    """
    body = _body(arch, genome, weights, out_indices, frozen_stages, norm_eval)
    options = {**_statistics(weights), **options}
    pyramid = GEMNetPyramid(body, fpn_channels, LastLevelMaxPool())
    if "rpn_anchor_generator" not in options:
        sizes = tuple((BASE_SIZE * stride,) for stride in _strides(body, extra=1))
        options["rpn_anchor_generator"] = AnchorGenerator(sizes, (RATIOS,) * len(sizes))
    if "box_roi_pool" not in options:
        names = [str(n) for n in range(len(body.out_channels))]
        options["box_roi_pool"] = MultiScaleRoIAlign(featmap_names=names, output_size=7, sampling_ratio=2)
    return FasterRCNN(pyramid, num_classes, **options)


def _statistics(weights: object) -> dict[str, list[float]]:
    """How torchvision's detectors are to normalise images, where the weights say so."""
    found = image_statistics(weights)
    return {} if found is None else {"image_mean": list(found[0]), "image_std": list(found[1])}


def _body(
    arch: str | None,
    genome: GenomeSource | None,
    weights: str | os.PathLike[str] | None,
    out_indices: Sequence[int],
    frozen_stages: int,
    norm_eval: bool,
) -> GEMNet:
    body = GEMNet(arch, genome, out_indices, frozen_stages, norm_eval, init_cfg=weights)
    body.init_weights()
    return body


def _strides(body: GEMNet, extra: int) -> list[int]:
    return [*body.strides, *(body.strides[-1] * 2 ** (n + 1) for n in range(extra))]
