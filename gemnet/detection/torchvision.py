"""torchvision's RetinaNet and Faster R-CNN on a GEMNet: no OpenMMLab needed.

model = retinanet(arch="gemnet_b", num_classes=91)
losses = model(images, targets)
"""

from __future__ import annotations

import inspect
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from gemnet.detection.backbone import BackboneError, GEMNet
from gemnet.detection.statistics import register_statistics, restore_statistics
from gemnet.errors import nearest
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


class NormalisingTransform(GeneralizedRCNNTransform):
    """torchvision's transform of images, whose mean and deviation belong to the saved state.

    In torchvision they are settings of the constructor: weights loaded into a detector that was built with others would
    be fed wrongly without a word.

    Args:
        settings: the transform whose settings are taken over.
    """

    def __init__(self, settings: GeneralizedRCNNTransform) -> None:
        super().__init__(
            settings.min_size,
            settings.max_size,
            settings.image_mean,
            settings.image_std,
            settings.size_divisible,
            settings.fixed_size,
            _skip_resize=settings._skip_resize,
        )
        del self.image_mean, self.image_std
        register_statistics(self, settings.image_mean, settings.image_std)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        restore_statistics(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def retinanet(
    arch: str | None = None,
    genome: GenomeSource | None = None,
    num_classes: int = 91,
    weights: str | os.PathLike[str] | None = None,
    out_indices: Sequence[int] = (1, 2, 3),
    frozen_stages: int = -1,
    norm_eval: bool = False,
    fpn_channels: int = 256,
    in_channels: int = 3,
    output_stride: int | None = None,
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
        in_channels: channels of the images.
        output_stride: as in `gemnet.detection.GEMNet`: 16 dilates the last stage.
        **options: of `torchvision.models.detection.RetinaNet`.

    Raises:
        BackboneError: an option that nobody reads.
        GemnetError: as `gemnet.detection.GEMNet`.
    """
    _check_options(RetinaNet, options)
    body = GEMNet(
        arch,
        genome,
        out_indices,
        frozen_stages,
        norm_eval,
        in_channels=in_channels,
        output_stride=output_stride,
        channels_last=True,
        init_cfg=weights,
    )
    body.init_weights()
    options = {**_statistics(weights, in_channels), **options}
    pyramid = GEMNetPyramid(body, fpn_channels, LastLevelP6P7(body.out_channels[-1], fpn_channels))
    if "anchor_generator" not in options:
        sides = [BASE_SIZE * stride // 2 for stride in _strides(body, extra=2)]
        sizes = tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for side in sides)
        options["anchor_generator"] = AnchorGenerator(sizes, (RATIOS,) * len(sizes))
    return _with_saved_statistics(RetinaNet(pyramid, num_classes, **options))


def faster_rcnn(
    arch: str | None = None,
    genome: GenomeSource | None = None,
    num_classes: int = 91,
    weights: str | os.PathLike[str] | None = None,
    out_indices: Sequence[int] = (0, 1, 2, 3),
    frozen_stages: int = -1,
    norm_eval: bool = False,
    fpn_channels: int = 256,
    in_channels: int = 3,
    output_stride: int | None = None,
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
        in_channels: channels of the images.
        output_stride: as in `gemnet.detection.GEMNet`: 16 dilates the last stage.
        **options: of `torchvision.models.detection.FasterRCNN`.

    Raises:
        BackboneError: an option that nobody reads.
        GemnetError: as `gemnet.detection.GEMNet`.
    """
    _check_options(FasterRCNN, options)
    body = GEMNet(
        arch,
        genome,
        out_indices,
        frozen_stages,
        norm_eval,
        in_channels=in_channels,
        output_stride=output_stride,
        channels_last=True,
        init_cfg=weights,
    )
    body.init_weights()
    options = {**_statistics(weights, in_channels), **options}
    pyramid = GEMNetPyramid(body, fpn_channels, LastLevelMaxPool())
    if "rpn_anchor_generator" not in options:
        sizes = tuple((BASE_SIZE * stride,) for stride in _strides(body, extra=1))
        options["rpn_anchor_generator"] = AnchorGenerator(sizes, (RATIOS,) * len(sizes))
    if "box_roi_pool" not in options:
        names = [str(n) for n in range(len(body.out_channels))]
        options["box_roi_pool"] = MultiScaleRoIAlign(featmap_names=names, output_size=7, sampling_ratio=2)
    return _with_saved_statistics(FasterRCNN(pyramid, num_classes, **options))


def _statistics(weights: object, channels: int) -> dict[str, list[float]]:
    """How images are to be normalised: as the weights say, else by ImageNet's statistics."""
    mean, std = image_statistics(weights) or (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    if len(mean) != channels:
        mean, std = ([sum(values) / len(values)] * channels for values in (mean, std))
    return {"image_mean": list(mean), "image_std": list(std)}


def _check_options(detector: type[nn.Module], options: dict[str, Any]) -> None:
    """torchvision's detectors hand what they don't know to a transform that drops it."""
    ours = retinanet if detector is RetinaNet else faster_rcnn
    known = set()
    for function in (ours, detector.__init__, GeneralizedRCNNTransform.__init__):
        known |= set(inspect.signature(function).parameters)
    known -= {"self", "backbone", "options", "kwargs"}
    for name in options:
        if name not in known:
            raise BackboneError(f"{ours.__name__} has no option {name!r}.{nearest(name, known)}")


def _with_saved_statistics(model: Any) -> Any:
    model.transform = NormalisingTransform(model.transform)
    return model


def _strides(body: GEMNet, extra: int) -> list[int]:
    return [*body.strides, *(body.strides[-1] * 2 ** (n + 1) for n in range(extra))]
