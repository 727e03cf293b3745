"""A network as ONNX, in the form that onnxruntime runs fused.

The version of the operators matters by a factor of two: from opset 19 on onnxruntime (1.32) runs average pools outside
its blocked layout, and reorders memory before and after each. Global pools that are written as means leave it too.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gemnet.errors import GemnetError
from gemnet.metadata import Metadata
from gemnet.network import GEMNet
from gemnet.runtimes.onnx_graph import AXES, INPUT, OPSET, OUTPUT, graph_of, model_of
from gemnet.runtimes.packages import require

DIMENSIONS = ("batch", "size")
"""What may stay open in an exported file."""


class OnnxError(GemnetError):
    """A network that can't be written as ONNX, or a file that can't be read as such."""


def traced(model: nn.Module, shape: tuple[int, int, int, int], dynamic: Sequence[str] = ()) -> Any:
    """A network as ``torch.export.ExportedProgram``.

    Args:
        model: in eval mode, on the CPU.
        shape: of the images: batch, channels, height, width.
        dynamic: those of `DIMENSIONS` that stay open.

    Raises:
        OnnxError: torch can't trace the network, or not with these dimensions open.
    """
    axes = [axis for axis, name in AXES.items() if name in dynamic or (axis and "size" in dynamic)]
    open_dimensions = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    batch = max(shape[0], 2) if "batch" in dynamic else shape[0]  # torch takes a dimension of one for a constant
    try:
        with torch.no_grad():
            return torch.export.export(
                model,
                (torch.zeros(batch, *shape[1:]),),
                dynamic_shapes=(open_dimensions,) if open_dimensions else None,
            )
    except Exception as error:  # of many kinds
        text = " ".join(str(error).split())[:300]
        remedy = " Leave out --dynamic, or its 'size'." if open_dimensions else ""
        raise OnnxError(f"torch can't trace the network: {type(error).__name__}: {text}{remedy}") from error


def to_onnx(model: nn.Module, shape: tuple[int, int, int, int], dynamic: Sequence[str] = ()) -> Any:
    """A network as ``onnx.ModelProto``: one input ``images``, one output ``logits``. Arguments as `traced`.

    Raises:
        OnnxError: the network can't be written, or can't have these dimensions open.
        MissingPackageError: onnx or onnxscript is not installed.
    """
    require("onnx")
    if isinstance(model, GEMNet) and (graph := graph_of(model)) is not None:
        return model_of(graph, shape, dynamic)
    require("onnxscript")
    program = traced(model, shape, dynamic)
    loud = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loud]
    try:
        for logger in loud:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except Exception as error:  # of many kinds
        text = " ".join(str(error).split())[:300]
        raise OnnxError(f"The network can't be written as ONNX: {type(error).__name__}: {text}") from error
    finally:
        for logger, level in zip(loud, levels, strict=True):
            logger.setLevel(level)
    assert made is not None
    proto = made.model_proto
    for tensor in (*proto.graph.input, *proto.graph.output):
        for axis, size in enumerate(tensor.type.tensor_type.shape.dim):
            if size.HasField("dim_param"):
                size.dim_param = AXES[axis]
    del proto.graph.value_info[:]  # they speak of open dimensions by the names that these had before
    _pool_globally(proto)
    return proto


def _pool_globally(proto: Any) -> None:
    """Writes means over height and width as what they are: onnxruntime keeps its blocked layout through a pool."""
    from onnx import numpy_helper

    constants = {each.name: each for each in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type != "ReduceMean" or len(node.input) != 2 or node.input[1] not in constants:
            continue
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
        keeps = {each.name: each.i for each in node.attribute}.get("keepdims", 1)
        if keeps and sorted(axis % 4 for axis in axes) == [2, 3]:
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]
    read = {name for node in proto.graph.node for name in node.input}
    for each in [each for each in proto.graph.initializer if each.name not in read]:
        proto.graph.initializer.remove(each)


def save(proto: Any, file: Path, metadata: Metadata) -> None:
    """Writes the file, with what the network says about itself among its properties.

    Args:
        proto: as `to_onnx` makes it.
        file: where to.
        metadata: complete, as `gemnet.runtimes.networks.open_network` gives it.
    """
    onnx = require("onnx")
    texts = {key: text for key, text in metadata.to_texts().items() if key != "format"}
    texts.setdefault("classes", json.dumps([str(number) for number in range(metadata.num_classes or 0)]))
    onnx.helper.set_model_props(proto, texts)
    onnx.checker.check_model(proto)
    file.write_bytes(proto.SerializeToString())


def read_about(file: Path) -> Metadata:
    """What an exported file says about its network; empty for files of others.

    Raises:
        OnnxError: the file can't be read.
        CheckpointError: it says what can't be.
    """
    onnx = require("onnx")
    try:
        proto = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf's own kinds
        raise OnnxError(f"{file} can't be read as ONNX ({' '.join(str(error).split())[:200]}).") from None
    return Metadata.from_texts({each.key: each.value for each in proto.metadata_props}, file)


def session(model: Path | bytes, threads: int = 1, optimized: Path | None = None, profile: Path | None = None) -> Any:
    """An onnxruntime session on the CPU.

    Args:
        model: the file, or its bytes.
        threads: that one call may use.
        optimized: where to write the graph that is run in the end.
        profile: begin of the name of the file that ``end_profiling`` of the session writes.

    Raises:
        OnnxError: onnxruntime can't run it.
        MissingPackageError: onnxruntime is not installed.
    """
    onnxruntime = require("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own kinds
        name = "The network" if isinstance(model, bytes) else str(model)
        raise OnnxError(f"{name} can't be run by onnxruntime: {' '.join(str(error).split())[:300]}") from None


def run(session: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of some images."""
    found: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: images})[0]
    return found


def operators(file: Path) -> Counter[str]:
    """How often each operator occurs in a file; of an optimised one, what is really run."""
    onnx = require("onnx")
    return Counter(node.op_type for node in onnx.load(file).graph.node)


def input_shape(file: Path) -> list[int | str]:
    """Shape of a file's first input; names where a dimension is open."""
    onnx = require("onnx")
    shape = onnx.load(file, load_external_data=False).graph.input[0].type.tensor_type.shape.dim
    return [each.dim_value if each.HasField("dim_value") else each.dim_param for each in shape]
