"""GEMNet as a Detectron2 backbone.

    from gemnet.detection.detectron2 import add_gemnet_config
    cfg = get_cfg(); cfg.merge_from_file(model_zoo.get_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml"))
    add_gemnet_config(cfg, arch="gemnet_b")

Importing this module registers ``build_gemnet_backbone`` and, with a feature pyramid, ``build_gemnet_fpn_backbone`` and
``build_retinanet_gemnet_fpn_backbone`` in Detectron2's ``BACKBONE_REGISTRY``, and ``GEMNetRes5ROIHeads``, the region
head of C4 detectors. Levels have the names of Detectron2's ResNets, ``res2`` (stride 4) to ``res5`` (stride 32), so its
configs need no other change. In a DC5 detector ``res5`` is dilated and has stride 16.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

try:
    from detectron2.config import CfgNode
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import BACKBONE_REGISTRY, Backbone
    from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
    from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads
except ImportError as error:
    raise ImportError(
        f"gemnet.detection.detectron2 needs Detectron2 ({error}). It is not on PyPI: see its installation page, "
        "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"
    ) from error

from gemnet.detection.backbone import BackboneError, GEMNet, check_levels, resolve_genome
from gemnet.detection.statistics import register_statistics, restore_statistics, saved_statistics
from gemnet.genome import Genome
from gemnet.models import GenomeSource
from gemnet.weights import image_statistics


class GEMNetBackbone(Backbone):
    """A GEMNet whose levels have Detectron2's names, channels and strides.

    Args:
        arch: a name known to `gemnet.genome_for`.
        genome: instead, a genome: path, dict or `Genome`.
        out_features: levels to return, ``res2`` to ``res5`` (the number is the logarithm of the stride).
        freeze_at: Detectron2's ``MODEL.BACKBONE.FREEZE_AT``: 1 freezes the stem, 2 also the stages up to ``res2``, and
            so on.
        weights: a path or a zoo tag; None for none.
        in_channels: channels of the images.
        statistics: mean and deviation of the images' channels, in [0, 1] and RGB, that Detectron2 normalises by. They
            are saved with the weights, and weights that were trained with others are refused. None: ImageNet's.
        output_stride: as in `gemnet.detection.GEMNet`: 16 dilates the last stage.

    Raises:
        GemnetError: as `gemnet.detection.GEMNet`.
    """

    def __init__(
        self,
        arch: str | None = None,
        genome: GenomeSource | None = None,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        freeze_at: int = 0,
        weights: str | os.PathLike[str] | None = None,
        in_channels: int = 3,
        statistics: tuple[Sequence[float], Sequence[float]] | None = None,
        output_stride: int | None = None,
    ) -> None:
        super().__init__()
        register_statistics(self, *(statistics or (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)))
        read = resolve_genome(arch, genome)
        names = level_names(read)
        unknown = [name for name in out_features if name not in names]
        if unknown:
            raise BackboneError(f"There is no level {unknown[0]!r}; this network has {', '.join(names)}.")
        chosen = check_levels(read, sorted(names.index(name) for name in out_features))
        self.body = GEMNet(
            genome=read,
            out_indices=chosen,
            frozen_stages=freeze_at - 1,
            in_channels=in_channels,
            output_stride=output_stride,
            channels_last=True,
            init_cfg=weights,
        )
        self.body.init_weights()
        self._out_features = [names[index] for index in chosen]
        self._out_feature_channels = dict(zip(self._out_features, self.body.out_channels, strict=True))
        self._out_feature_strides = dict(zip(self._out_features, self.body.strides, strict=True))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Levels by name of images ``batch x in_channels x h x w``."""
        return dict(zip(self._out_features, self.body(x), strict=True))

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        saved = saved_statistics(state_dict, prefix)
        if saved is None:
            restore_statistics(self, state_dict, prefix)
        elif not all(
            mine.shape == theirs.shape and torch.allclose(mine.cpu(), torch.as_tensor(theirs).cpu(), atol=1e-3)
            for mine, theirs in zip((self.image_mean, self.image_std), saved, strict=True)
        ):
            mean, std = ([round(255 * float(value), 3) for value in values] for values in saved)
            error_msgs.append(
                f"these weights were trained on images normalised by cfg.MODEL.PIXEL_MEAN = {mean}, "
                f"cfg.MODEL.PIXEL_STD = {std} (cfg.INPUT.FORMAT = 'RGB'), and this config has others. Set these after "
                "add_gemnet_config."
            )
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


@ROI_HEADS_REGISTRY.register()
class GEMNetRes5ROIHeads(Res5ROIHeads):
    """The heads of a C4 detector (`Res5ROIHeads`), whose shared block is the GEMNet's own last stage."""

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Module, int]:
        own = cfg.MODEL.GEMNET
        body = GEMNet(own.ARCH, own.GENOME, init_cfg=own.WEIGHTS)
        body.init_weights()
        levels = body.genome.levels
        return body.stages[levels[-2].stage + 1 : levels[-1].stage + 1], levels[-1].width


def level_names(genome: Genome) -> list[str]:
    """``res2`` for the level of stride 4, ``res3`` for stride 8, and so on, where nothing is dilated."""
    return [f"res{level.reduction.bit_length() - 1}" for level in genome.levels]


def add_gemnet_config(
    cfg: CfgNode,
    arch: str | None = "gemnet_b",
    genome: str | None = None,
    weights: str | None = None,
) -> CfgNode:
    """Puts a GEMNet in the place of the backbone of one of Detectron2's configs.

    A config with ``build_resnet_fpn_backbone`` or ``build_retinanet_resnet_fpn_backbone`` keeps its pyramid; one with
    ``Res5ROIHeads`` (C4) gets the network's last stage as its heads' shared block; with a ``RES5_DILATION`` of 2 (DC5)
    the last stage is dilated. Input becomes RGB, normalised as the weights were trained with where they say so, else by
    ImageNet's statistics.

    Args:
        cfg: the config, changed in place.
        arch: a name known to `gemnet.genome_for`; None with a genome.
        genome: instead, the path of a genome's JSON.
        weights: a path or a zoo tag; None for none.

    Returns:
        The config.

    Raises:
        BackboneError: a dilation of the last stage that no stride makes up for.
    """
    dilation = cfg.MODEL.RESNETS.RES5_DILATION
    if dilation not in (1, 2):
        raise BackboneError(
            f"cfg.MODEL.RESNETS.RES5_DILATION is {dilation}; expected 1, or 2 for a last stage that is dilated instead "
            "of taking its stride of 2 (DC5)."
        )
    pyramids = {
        "build_resnet_fpn_backbone": "build_gemnet_fpn_backbone",
        "build_retinanet_resnet_fpn_backbone": "build_retinanet_gemnet_fpn_backbone",
    }
    cfg.MODEL.GEMNET = CfgNode(
        {
            "ARCH": arch if genome is None else None,
            "GENOME": genome,
            "WEIGHTS": weights,
            "OUTPUT_STRIDE": 16 if dilation == 2 else None,
            "OUT_FEATURES": list(cfg.MODEL.FPN.IN_FEATURES)
            or sorted({*cfg.MODEL.RPN.IN_FEATURES, *cfg.MODEL.ROI_HEADS.IN_FEATURES}),
        }
    )
    if cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeads":
        cfg.MODEL.ROI_HEADS.NAME = "GEMNetRes5ROIHeads"
    cfg.MODEL.BACKBONE.NAME = pyramids.get(cfg.MODEL.BACKBONE.NAME, "build_gemnet_backbone")
    if weights is None:
        cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.WEIGHTS = ""
    mean, std = image_statistics(weights) or (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = ([255 * value for value in values] for values in (mean, std))
    cfg.INPUT.FORMAT = "RGB"
    return cfg


@BACKBONE_REGISTRY.register()
def build_gemnet_backbone(cfg: Any, input_shape: Any) -> GEMNetBackbone:
    """The backbone that ``cfg.MODEL.GEMNET`` describes, without a pyramid."""
    own = cfg.MODEL.GEMNET
    mean, std = ([value / 255 for value in values] for values in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))
    if cfg.INPUT.FORMAT == "BGR":
        mean, std = mean[::-1], std[::-1]
    return GEMNetBackbone(
        own.ARCH,
        own.GENOME,
        own.OUT_FEATURES,
        cfg.MODEL.BACKBONE.FREEZE_AT,
        own.WEIGHTS,
        input_shape.channels,
        (mean, std),
        own.get("OUTPUT_STRIDE"),  # which configs of earlier versions don't have
    )


@BACKBONE_REGISTRY.register()
def build_gemnet_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """The same with a pyramid of one level more, as Detectron2's Faster R-CNN uses it."""
    return FPN(
        bottom_up=build_gemnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


@BACKBONE_REGISTRY.register()
def build_retinanet_gemnet_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """The same with two levels more, P6 and P7, as Detectron2's RetinaNet uses it."""
    body = build_gemnet_backbone(cfg, input_shape)
    last = body.output_shape()["res5"].channels
    return FPN(
        bottom_up=body,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelP6P7(last, cfg.MODEL.FPN.OUT_CHANNELS),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
