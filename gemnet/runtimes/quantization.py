"""Static int8 quantisation of an ONNX file, by onnxruntime.

Its average pools in int8 take many times what they take in float32: those that a convolution can do are one. And a
convolution of three channels takes longer in int8: that of the images stays in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemnet.runtimes.packages import require


def quantize(file: Path, calibration: NDArray[np.float32]) -> None:
    """Replaces a float32 file by its int8 form: weights a range each output channel, activations one a tensor.

    Args:
        file: an ONNX file with one input.
        calibration: images from which the ranges of activations are taken, n x channels x side x side.

    Raises:
        MissingPackageError: onnxruntime or onnx is not installed.
    """
    onnx = require("onnx")
    quantization = require("onnxruntime.quantization")
    properties = {each.key: each.value for each in onnx.load(file).metadata_props}
    name = onnx.load(file).graph.input[0].name

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]  # an extra
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, Any]] = ({name: each[None]} for each in calibration)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    with TemporaryDirectory(dir=file.parent) as folder:
        prepared, made = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        quantization.shape_inference.quant_pre_process(file, prepared, skip_symbolic_shape=True)
        proto = onnx.load(prepared)
        pools_as_convolutions(proto)
        onnx.save(proto, prepared)
        of_images = [node.name for node in proto.graph.node if node.op_type == "Conv" and node.input[0] == name]
        quantization.quantize_static(
            prepared,
            made,
            Reader(),
            nodes_to_exclude=of_images,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        proto = onnx.load(made)
        del proto.metadata_props[:]
        onnx.helper.set_model_props(proto, properties)
        file.write_bytes(proto.SerializeToString())


def pools_as_convolutions(proto: Any) -> None:
    """Writes average pools that cut an image into patches as depthwise convolutions, in place.

    A pool whose windows overlap, or go beyond the image, counts fewer pixels at the borders: it stays, as does one of
    an image whose size is open.

    Args:
        proto: an ONNX model.
    """
    from onnx import helper, numpy_helper, shape_inference

    known = shape_inference.infer_shapes(proto).graph
    shapes = {
        value.name: [each.dim_value for each in value.type.tensor_type.shape.dim]  # 0 where open
        for value in (*known.input, *known.value_info)
    }
    graph = proto.graph
    for place, node in enumerate(graph.node):
        if node.op_type != "AveragePool":
            continue
        has = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        sides, shape = list(has["kernel_shape"]), shapes.get(node.input[0], [])
        cuts = list(has.get("strides", [1, 1])) == sides and not any(has.get("pads", ()))
        if (
            len(shape) != 4
            or not cuts
            or not all(size and size % side == 0 for size, side in zip(shape[2:], sides, strict=True))
        ):
            continue
        share = np.full((shape[1], 1, *sides), 1 / (sides[0] * sides[1]), np.float32)
        weight = numpy_helper.from_array(share, f"{node.output[0]}_share")
        graph.initializer.append(weight)
        reads, writes = [node.input[0], weight.name], list(node.output)
        conv = helper.make_node(
            "Conv", reads, writes, name=node.name, kernel_shape=sides, strides=sides, group=shape[1]
        )
        graph.node[place].CopyFrom(conv)
