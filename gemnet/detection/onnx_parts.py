"""What one-stage and two-stage detectors share as ONNX: pyramid levels, writing a module, suppression of boxes."""

from __future__ import annotations

from collections.abc import Mapping
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


class ImageLevels(nn.Module):
    """The levels of a detector's pyramid, of images as files have them.

    Args:
        model: MMDetection's detector.
        size: height and width of the images.

    Raises:
        OnnxError: a size that the levels don't fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, size: tuple[int, int]) -> None:
        super().__init__()
        preprocessor = model.data_preprocessor
        divisor = getattr(preprocessor, "pad_size_divisor", 1)
        if any(side < 1 or side % divisor for side in size):
            raise OnnxError(f"The images' size is {size[0]}x{size[1]}; both sides must be multiples of {divisor}.")
        self.model, self.size = model.eval(), size
        # MMDetection's pipelines load BGR; where that is not turned, the network was trained on it.
        self.turn = not turns_channels(preprocessor)
        normalised = normalises(preprocessor)
        self.register_buffer("mean", preprocessor.mean.clone() if normalised else torch.zeros(3, 1, 1))
        self.register_buffer("std", preprocessor.std.clone() if normalised else torch.ones(3, 1, 1))

    def levels(self, images: Tensor) -> Any:
        """What heads read, of images ``1 x 3 x h x w``, RGB from 0 to 255."""
        return self.model.extract_feat(((images.flip(1) if self.turn else images) - self.mean) / self.std)


def exported(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    reads: list[str],
    writes: list[str],
    dynamic: tuple[dict[int, Any], ...] | None = None,
) -> Any:
    """A module as ``onnx.ModelProto``.

    Args:
        module: in eval mode.
        inputs: examples.
        reads: names of the inputs.
        writes: names of the outputs.
        dynamic: of each input, dimensions that stay open, as ``torch.export`` has them.
    """
    program: Any = torch.onnx.export(
        module.eval(),
        inputs,
        dynamo=True,
        opset_version=OPSET,
        input_names=reads,
        output_names=writes,
        dynamic_shapes=dynamic,
        verbose=False,
    )
    return program.model_proto


class Suppression:
    """ONNX's suppression of overlapping boxes, as nodes and constants for a graph.

    Args:
        prefix: of the names of its values.
        boxes: name of the boxes, ``groups x places x 4``.
        scores: name of the scores, ``groups x classes x places``.
        options: a ``test_cfg``: ``nms``, ``max_per_img``.
        least: score that must be surpassed.

    Attributes:
        found: names of boxes ``k x 4`` and scores ``k``, best first.
        chosen: name of ``k x 3``: group, class, place.

    Raises:
        OnnxError: another suppression than ONNX has.
    """

    def __init__(self, prefix: str, boxes: str, scores: str, options: Mapping[str, Any], least: float) -> None:
        from onnx import helper, numpy_helper

        settings = dict(options.get("nms") or {})
        if settings.get("type", "nms") != "nms":
            raise OnnxError(
                f"test_cfg.nms is {settings['type']!r}; ONNX has plain suppression ('nms'). Export without."
            )
        constants = {
            "most": np.array([max(MAX_BOXES, options.get("max_per_img", 100))], np.int64),
            "iou": np.array([settings.get("iou_threshold", 0.5)], np.float32),
            "least": np.array([least], np.float32),
            "limit": np.array([options.get("max_per_img", 100)], np.int64),
            "place": np.array([0, 2], np.int64),
        }
        own = {name: f"{prefix}{name}" for name in constants}
        self.constants = [numpy_helper.from_array(value, own[name]) for name, value in constants.items()]
        self.chosen, self.found = f"{prefix}chosen", (f"{prefix}boxes", f"{prefix}scores")
        kept, values, count, k, order, where = (
            f"{prefix}{name}" for name in ("kept", "values", "count", "k", "order", "where")
        )
        nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
            ("NonMaxSuppression", [boxes, scores, own["most"], own["iou"], own["least"]], [kept], {}),
            ("GatherND", [scores, kept], [values], {}),
            ("Shape", [values], [count], {}),
            ("Min", [count, own["limit"]], [k], {}),
            ("TopK", [values, k], [self.found[1], order], {"axis": 0, "largest": 1, "sorted": 1}),
            ("Gather", [kept, order], [self.chosen], {"axis": 0}),
            ("Gather", [self.chosen, own["place"]], [where], {"axis": 1}),
            ("GatherND", [boxes, where], [self.found[0]], {}),
        ]
        self.nodes = [helper.make_node(kind, inputs, outputs, **more) for kind, inputs, outputs, more in nodes]


def finish(graph: Any, suppression: Suppression, column: int) -> None:
    """Puts a suppression at the end of a graph, in place: its outputs are ``boxes``, ``scores`` and ``labels``.

    Args:
        graph: of ``onnx.ModelProto``.
        suppression: of values that the graph has.
        column: of the suppression's ``chosen`` with the number of the class.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph.initializer.extend([*suppression.constants, numpy_helper.from_array(np.array(column), "label_column")])
    graph.node.extend(suppression.nodes)
    label = helper.make_node("Gather", [suppression.chosen, "label_column"], ["labels"], axis=1)
    same = zip(suppression.found, ("boxes", "scores"), strict=True)
    graph.node.extend([label, *(helper.make_node("Identity", [name], [out]) for name, out in same)])
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["k", 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["k"]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, ["k"]),
        ]
    )
