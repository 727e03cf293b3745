"""A Faster R-CNN of MMDetection as ONNX: regions, their features and their classes, with suppression between and after.

What is network is written by PyTorch, in two parts; between them stand ONNX's own operators: suppression, and RoIAlign
of each region on the level that its size says (Lin et al., arXiv 1612.03144, equation 1).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gemnet.detection.onnx_parts import ImageLevels, OnnxError, Suppression, exported, finish


class Regions(ImageLevels):
    """What a region proposal network says of images of one size.

    Args:
        model: MMDetection's detector.
        size: height and width of the images.

    Raises:
        OnnxError: heads of another kind than Faster R-CNN's, or a size that its levels don't fit.
    """

    of_level: Tensor

    def __init__(self, model: Any, size: tuple[int, int]) -> None:
        _check(model)
        super().__init__(model, size)
        self.settings = dict(model.rpn_head.test_cfg)
        self.most = int(self.settings.get("nms_pre", -1))
        with torch.no_grad():
            levels = model.extract_feat(torch.zeros(1, 3, *size))
            scores, _ = model.rpn_head(levels)
        self.priors = model.rpn_head.prior_generator.grid_priors(
            [tuple(level.shape[-2:]) for level in scores], dtype=torch.float32, device="cpu"
        )
        counts = [len(each) if self.most <= 0 else min(len(each), self.most) for each in self.priors]
        level = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        self.register_buffer("of_level", nn.functional.one_hot(level).T.float())

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Levels that regions are read from, corners ``1 x places x 4``, and scores ``1 x levels x places``.

        A box has a score on its own level alone: so suppression leaves levels apart.
        """
        head: Any = self.model.rpn_head
        levels = self.levels(images)
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        for scores, deltas, priors in zip(*head(levels), self.priors, strict=True):
            scores = scores[0].permute(1, 2, 0).reshape(-1, head.cls_out_channels)
            scores = scores.sigmoid()[:, 0] if head.use_sigmoid_cls else scores.softmax(-1)[:, 0]
            deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4)
            if 0 < self.most < len(priors):
                scores, order = scores.topk(self.most)
                deltas, priors = deltas[order], priors[order]
            kept.append((scores, deltas, priors))
        scores, deltas, priors = (torch.cat(parts) for parts in zip(*kept, strict=True))
        boxes = head.bbox_coder.decode(priors, deltas, max_shape=self.size)
        least = self.settings.get("min_bbox_size", -1)
        if least >= 0:
            scores = scores * ((boxes[:, 2:] - boxes[:, :2]) > least).all(1)
        used = len(self.model.roi_head.bbox_roi_extractor.featmap_strides)
        return (*levels[:used], boxes[None], scores * self.of_level[None])


class RegionHead(nn.Module):
    """Boxes and scores of regions.

    Args:
        head: MMDetection's ``bbox_head``.
        size: height and width of the images.
    """

    def __init__(self, head: Any, size: tuple[int, int]) -> None:
        super().__init__()
        self.head, self.size = head, size

    def forward(self, features: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Corners ``classes x k x 4`` and scores ``classes x 1 x k``.

        Args:
            features: of each region, ``k x channels x side x side``.
            regions: corners in pixels, ``k x 4``.
        """
        logits, deltas = self.head(features)
        scores = logits.softmax(-1)[:, :-1]
        each = deltas.shape[1] // 4
        repeated = regions[:, None].expand(-1, each, -1).reshape(-1, 4)
        boxes = self.head.bbox_coder.decode(repeated, deltas.reshape(-1, 4), max_shape=self.size)
        boxes = boxes.reshape(-1, each, 4).permute(1, 0, 2)
        return boxes.expand(scores.shape[1], -1, -1).contiguous(), scores.T[:, None].contiguous()


def two_stage_model(model: Any, size: tuple[int, int], nms: bool) -> Any:
    """A Faster R-CNN as ``onnx.ModelProto``; arguments and errors as `gemnet.detection.onnx_form.export_onnx`."""
    from onnx import TensorProto, compose, helper

    regions = Regions(model, size).eval()
    extractor, head = model.roi_head.bbox_roi_extractor, model.roi_head.bbox_head
    levels = [f"level{number}" for number in range(len(extractor.featmap_strides))]
    written = exported(regions, (torch.zeros(1, 3, *size),), ["images"], [*levels, "region_boxes", "region_scores"])
    side = extractor.roi_layers[0].output_size[0]
    examples = torch.zeros(3, extractor.out_channels, side, side), torch.tensor([[0.0, 0.0, 8.0, 8.0]]).repeat(3, 1)
    count = torch.export.Dim("k", min=2)
    names = ["features", "regions"], ["all_boxes", "all_scores"]
    second = exported(RegionHead(head, size), examples, *names, dynamic=({0: count}, {0: count}))
    second = compose.add_prefix(second, "head_")

    graph = written.graph
    chosen = Suppression("region_nms_", "region_boxes", "region_scores", regions.settings, least=0.0)
    graph.initializer.extend(chosen.constants)
    graph.node.extend(chosen.nodes)
    _align(graph, extractor, levels, chosen.found[0])
    graph.initializer.extend(second.graph.initializer)
    graph.node.extend(second.graph.node)
    if nms:
        options = dict(model.roi_head.test_cfg)
        best = Suppression("nms_", "head_all_boxes", "head_all_scores", options, options.get("score_thr", 0.05))
        finish(graph, best, column=0)
        return written
    axis = helper.make_tensor("score_axis", TensorProto.INT64, [1], [1])
    graph.initializer.append(axis)
    graph.node.append(helper.make_node("Identity", ["head_all_boxes"], ["boxes"]))
    graph.node.append(helper.make_node("Squeeze", ["head_all_scores", "score_axis"], ["scores"]))
    del graph.output[:]
    shapes = {"boxes": [head.num_classes, "k", 4], "scores": [head.num_classes, "k"]}
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, each) for name, each in shapes.items())
    return written


def _check(model: Any) -> None:
    """Whether the detector is one that is written here.

    Raises:
        OnnxError: it is not, with what it has instead.
    """
    roi = model.roi_head
    extractor: Any = getattr(roi, "bbox_roi_extractor", None)
    layer = extractor.roi_layers[0] if hasattr(extractor, "roi_layers") else None
    for part, found, expected in (
        ("model.roi_head", type(roi).__name__, "StandardRoIHead"),
        ("its bbox_roi_extractor", type(extractor).__name__, "SingleRoIExtractor"),
        ("its roi_layer", type(layer).__name__, "RoIAlign"),
        ("its roi_layer's pool_mode", getattr(layer, "pool_mode", "avg"), "avg"),
        ("its shared_head", type(getattr(roi, "shared_head", None)).__name__, "NoneType"),
        ("its mask_head", type(getattr(roi, "mask_head", None)).__name__, "NoneType"),
    ):
        if found != expected:
            raise OnnxError(
                f"{type(model).__name__}: {part} is {found}, expected {expected.replace('NoneType', 'none')}. Of "
                "two-stage detectors Faster R-CNN can be written as ONNX here."
            )


def _align(graph: Any, extractor: Any, levels: list[str], regions: str) -> None:
    """Has the features of regions read, each on the level of its size: ``head_features``, with ``head_regions``."""
    from onnx import helper, numpy_helper

    def constant(name: str, value: Any, kind: Any = np.float32) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(value, kind), f"align_{name}"))
        return f"align_{name}"

    def add(kind: str, reads: list[str], name: str, **more: Any) -> str:
        graph.node.append(helper.make_node(kind, reads, [name], **more))
        return name

    low, high = constant("low", [0, 1], np.int64), constant("high", [2, 3], np.int64)
    one, zero = constant("one", [1], np.int64), constant("zero", [0], np.int64)
    corners = (add("Gather", [regions, each], f"align_corner_{each}", axis=1) for each in (high, low))
    sides = add("Sub", list(corners), "align_sides")
    area = add("ReduceProd", [sides, one], "align_area", keepdims=0)
    share = add("Div", [add("Sqrt", [area], "align_scale"), constant("finest", extractor.finest_scale)], "align_share")
    log = add("Log", [add("Add", [share, constant("little", 1e-6)], "align_above")], "align_log")
    level = add("Floor", [add("Div", [log, constant("two", math.log(2))], "align_log2")], "align_floor")
    last = constant("last", len(levels) - 1)
    level = add("Clip", [level, constant("first", 0), last], "align_level")
    found: tuple[list[str], list[str]] = ([], [])
    for number, (name, layer) in enumerate(zip(levels, extractor.roi_layers, strict=True)):
        mine = add("Equal", [level, constant(f"number{number}", number)], f"align_mine{number}")
        places = add("Squeeze", [add("NonZero", [mine], f"align_nonzero{number}"), zero], f"align_places{number}")
        own = add("Gather", [regions, places], f"align_regions{number}", axis=0)
        image = add("Mul", [places, zero], f"align_image{number}")
        found[1].append(own)
        found[0].append(
            add(
                "RoiAlign",
                [name, own, image],
                f"align_features{number}",
                coordinate_transformation_mode="half_pixel" if layer.aligned else "output_half_pixel",
                output_height=layer.output_size[0],
                output_width=layer.output_size[1],
                sampling_ratio=max(layer.sampling_ratio, 0),
                spatial_scale=float(layer.spatial_scale),
            )
        )
    for names, name in zip(found, ("head_features", "head_regions"), strict=True):
        add("Concat", names, name, axis=0)
