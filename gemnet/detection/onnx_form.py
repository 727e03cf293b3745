"""A whole detector of MMDetection as one ONNX file: normalisation, network, boxes, suppression if wanted.

``boxes, scores, labels = session.run(None, {"images": images})`` with images float32 ``1 x 3 x h x w``, RGB from 0 to
255, of the size that was exported.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gemnet.detection.onnx_parts import ImageLevels, OnnxError, Suppression, exported, finish
from gemnet.detection.onnx_two_stage import two_stage_model

__all__ = ["OnnxError", "export_onnx"]


class DenseDetector(ImageLevels):
    """Boxes and scores of all places of a one-stage detector, for images of one size.

    Args:
        model: MMDetection's detector.
        size: height and width of the images.

    Raises:
        OnnxError: a detector of another kind, or a size that its levels don't fit.
    """

    priors: Tensor

    def __init__(self, model: Any, size: tuple[int, int]) -> None:
        head: Any = getattr(model, "bbox_head", None)
        if not all(hasattr(head, part) for part in ("prior_generator", "bbox_coder", "cls_out_channels")):
            raise OnnxError(
                f"{type(model).__name__} is neither a one-stage detector with boxes at fixed places (RetinaNet, FCOS, "
                "ATSS, RTMDet and their like) nor a Faster R-CNN, which are what can be written as ONNX here."
            )
        super().__init__(model, size)
        self.least_side = float((model.test_cfg or {}).get("min_bbox_size", -1))
        with torch.no_grad():
            levels = head(model.extract_feat(torch.zeros(1, 3, *size)))[0]
            sizes = [tuple(level.shape[-2:]) for level in levels]
            priors = torch.cat(head.prior_generator.grid_priors(sizes, dtype=torch.float32, device="cpu"))
        self.register_buffer("priors", priors)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Corners in pixels ``1 x places x 4`` and scores ``1 x places x classes`` of an image ``1 x 3 x h x w``.

        Boxes that MMDetection sorts out for their size (``test_cfg.min_bbox_size``) have score 0.
        """
        head = self.model.bbox_head
        classes, boxes, *factors = head(self.levels(images))
        scores = _joined(classes, head.cls_out_channels)
        scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(-1)[:, :-1]
        if factors:
            scores = scores * _joined(factors[0], 1).sigmoid()
        found = head.bbox_coder.decode(self.priors, _joined(boxes, 4), max_shape=self.size)
        if self.least_side >= 0:
            sides = found[:, 2:] - found[:, :2]
            scores = scores * (sides > self.least_side).all(1, keepdim=True)
        return found[None], scores[None]


def _joined(levels: Any, channels: int) -> Tensor:
    return torch.cat([level.permute(0, 2, 3, 1).reshape(-1, channels) for level in levels])


def export_onnx(model: Any, path: str | os.PathLike[str], size: tuple[int, int], nms: bool = True) -> None:
    """Writes a detector as an ONNX file.

    Args:
        model: MMDetection's detector, its weights loaded.
        path: the file. It takes ``images`` (1, 3, h, w), float32, RGB from 0 to 255, and gives ``boxes`` (k, 4),
            corners in pixels, ``scores`` (k,) and ``labels`` (k,), best first; without ``nms`` ``boxes`` (1, places, 4)
            and ``scores`` (1, places, classes).
        size: height and width of the images.
        nms: whether overlapping boxes are suppressed, by the thresholds of the detector's ``test_cfg``. Unlike there,
            none of a one-stage detector's are sorted out before it (``nms_pre``). A two-stage detector's regions are
            chosen by it in either case; without it ``boxes`` are (classes, regions, 4), ``scores`` (classes, regions).

    Raises:
        OnnxError: a detector that can't be written, or the libraries for it are not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # which torch.onnx needs
    except ImportError as error:
        raise OnnxError(f"Writing ONNX needs {error.name}: pip install 'gemnet[export]'") from None
    if hasattr(model, "roi_head"):
        written = two_stage_model(model, size, nms)
    else:
        detector = DenseDetector(model, size).eval()
        written = exported(detector, (torch.zeros(1, 3, *size),), ["images"], ["boxes", "scores"])
        if nms:
            _append_nms(written, dict(model.test_cfg))
    onnx.checker.check_model(written)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(written, os.fspath(path))


def _append_nms(written: Any, options: dict[str, Any]) -> None:
    """Puts ONNX's suppression behind ``boxes`` and ``scores``, in place."""
    from onnx import helper

    graph = written.graph
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name in ("boxes", "scores"):
                    names[place] = f"all_{name}"
    graph.node.append(helper.make_node("Transpose", ["all_scores"], ["class_scores"], perm=[0, 2, 1]))
    least = options.get("score_thr", 0.05)
    finish(graph, Suppression("nms_", "all_boxes", "class_scores", options, least), column=1)
