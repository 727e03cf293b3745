"""Static int8 quantisation of an ONNX file, by onnxruntime."""

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

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, Any]] = ({name: each[None]} for each in calibration)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    with TemporaryDirectory(dir=file.parent) as folder:
        prepared, made = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        quantization.shape_inference.quant_pre_process(file, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            made,
            Reader(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        proto = onnx.load(made)
        del proto.metadata_props[:]
        onnx.helper.set_model_props(proto, properties)
        file.write_bytes(proto.SerializeToString())
