"""A whole one-stage detector of MMDetection as one ONNX file: normalisation, network, boxes, suppression if wanted.

``boxes, scores, labels = session.run(None, {"images": images})`` with images float32 ``1 x 3 x h x w``, RGB from 0 to
255, of the size that was exported.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gemnet.errors import GemnetError
from gemnet.private_mmengine import normalises, turns_channels

OPSET = 18
"""The last in which average pools keep onnxruntime's blocked layout: twice as fast as by 20, PyTorch's default."""
MAX_BOXES = 1000
"""A class, before the best of all classes are taken."""


class OnnxError(GemnetError):
    """A detector that can't be written as ONNX."""


class DenseDetector(nn.Module):
    """Boxes and scores of all places of a one-stage detector, for images of one size.

    Args:
        model: MMDetection's detector.
        size: height and width of the images.

    Raises:
        OnnxError: a detector of another kind, or a size that its levels don't fit.
    """

    mean: Tensor
    std: Tensor
    priors: Tensor

    def __init__(self, model: Any, size: tuple[int, int]) -> None:
        super().__init__()
        head: Any = getattr(model, "bbox_head", None)
        if not all(hasattr(head, part) for part in ("prior_generator", "bbox_coder", "cls_out_channels")):
            raise OnnxError(
                f"{type(model).__name__} is no one-stage detector with boxes at fixed places (RetinaNet, FCOS, ATSS, "
                "RTMDet and their like), which are what can be written as ONNX here."
            )
        preprocessor = model.data_preprocessor
        divisor = getattr(preprocessor, "pad_size_divisor", 1)
        if any(side < 1 or side % divisor for side in size):
            raise OnnxError(f"The images' size is {size[0]}x{size[1]}; both sides must be multiples of {divisor}.")
        self.model, self.size = model.eval(), size
        self.least_side = float((model.test_cfg or {}).get("min_bbox_size", -1))
        # MMDetection's pipelines load BGR; where that is not turned, the network was trained on it.
        self.turn = not turns_channels(preprocessor)
        normalised = normalises(preprocessor)
        self.register_buffer("mean", preprocessor.mean.clone() if normalised else torch.zeros(3, 1, 1))
        self.register_buffer("std", preprocessor.std.clone() if normalised else torch.ones(3, 1, 1))
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
        images = ((images.flip(1) if self.turn else images) - self.mean) / self.std
        classes, boxes, *factors = head(self.model.extract_feat(images))
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
            none are sorted out before it (``nms_pre``).

    Raises:
        OnnxError: a detector that can't be written, or the libraries for it are not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # which torch.onnx needs
    except ImportError as error:
        raise OnnxError(f"Writing ONNX needs {error.name}: pip install 'gemnet[export]'") from None
    detector = DenseDetector(model, size).eval()
    program: Any = torch.onnx.export(
        detector,
        (torch.zeros(1, 3, *size),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["boxes", "scores"],
        verbose=False,
    )
    written = program.model_proto
    if nms:
        _append_nms(written, dict(model.test_cfg))
    onnx.checker.check_model(written)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(written, os.fspath(path))


def _append_nms(written: Any, options: dict[str, Any]) -> None:
    """Puts ONNX's suppression behind ``boxes`` and ``scores``, in place."""
    from onnx import TensorProto, helper, numpy_helper

    graph = written.graph
    suppression = dict(options.get("nms") or {})
    if suppression.get("type", "nms") != "nms":
        raise OnnxError(f"test_cfg.nms is {suppression['type']!r}; ONNX has plain suppression ('nms'). Export without.")
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name in ("boxes", "scores"):
                    names[place] = f"all_{name}"
    constants = {
        "most": np.array([MAX_BOXES], np.int64),
        "iou": np.array([suppression.get("iou_threshold", 0.5)], np.float32),
        "least": np.array([options.get("score_thr", 0.05)], np.float32),
        "limit": np.array([options.get("max_per_img", 100)], np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "zero": np.array([0], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(value, f"nms_{name}") for name, value in constants.items())
    nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("Transpose", ["all_scores"], ["nms_scores"], {"perm": [0, 2, 1]}),
        ("NonMaxSuppression", ["all_boxes", "nms_scores", "nms_most", "nms_iou", "nms_least"], ["nms_kept"], {}),
        ("GatherND", ["nms_scores", "nms_kept"], ["nms_found"], {}),
        ("Shape", ["nms_found"], ["nms_count"], {}),
        ("Min", ["nms_count", "nms_limit"], ["nms_k"], {}),
        ("TopK", ["nms_found", "nms_k"], ["scores", "nms_order"], {"axis": 0, "largest": 1, "sorted": 1}),
        ("Gather", ["nms_kept", "nms_order"], ["nms_chosen"], {"axis": 0}),
        ("Gather", ["nms_chosen", "nms_one"], ["nms_label"], {"axis": 1}),  # columns: image, class, place
        ("Gather", ["nms_chosen", "nms_two"], ["nms_place"], {"axis": 1}),
        ("Squeeze", ["nms_label", "nms_one"], ["labels"], {}),
        ("Squeeze", ["nms_place", "nms_one"], ["nms_index"], {}),
        ("Squeeze", ["all_boxes", "nms_zero"], ["nms_boxes"], {}),
        ("Gather", ["nms_boxes", "nms_index"], ["boxes"], {"axis": 0}),
    ]
    graph.node.extend(
        helper.make_node(kind, inputs, outputs, **attributes) for kind, inputs, outputs, attributes in nodes
    )
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["k", 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["k"]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, ["k"]),
        ]
    )
