"""The formats a network is exported to. Each writes files into a folder and hands back what runs them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gemnet.errors import GemnetError
from gemnet.metadata import Metadata
from gemnet.runtimes import onnx_form
from gemnet.runtimes.images import Images
from gemnet.runtimes.packages import require
from gemnet.runtimes.quantization import quantize

Predict = Callable[[Images], Images]

PREDICT = Path(__file__).with_name("predict.py")
"""Copied beside an exported ONNX file; reads all it needs from the file."""


@dataclass(frozen=True)
class ExportTask:
    """What is to be written.

    Args:
        name: of the files, without suffix.
        model: deployed, in eval mode.
        metadata: complete.
        dynamic: what stays open: ``batch``, ``size``, both, or nothing.
        calibration: images to quantise with; None leaves the network in float32.
    """

    name: str
    model: nn.Module
    metadata: Metadata
    dynamic: tuple[str, ...] = ()
    calibration: Images | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of one image's batch."""
        side = self.metadata.input_size
        assert side is not None
        return 1, self.metadata.in_chans or 3, side, side


Writer = Callable[[ExportTask, Path], tuple[Path, Predict]]


def write_onnx(task: ExportTask, folder: Path) -> tuple[Path, Predict]:
    """``NAME.onnx`` with the metadata inside, and ``predict.py``."""
    file = folder / f"{task.name}.onnx"
    onnx_form.save(onnx_form.to_onnx(task.model, task.shape, task.dynamic), file, task.metadata)
    if task.calibration is not None:
        quantize(file, task.calibration)
    shutil.copyfile(PREDICT, folder / PREDICT.name)
    session = onnx_form.session(file)
    return file, one_by_one(lambda images: onnx_form.run(session, images))


def write_openvino(task: ExportTask, folder: Path) -> tuple[Path, Predict]:
    """``NAME.xml`` and ``NAME.bin``; the metadata under ``gemnet`` of the runtime information."""
    openvino = require("openvino")
    draft, _ = write_onnx(task, folder)
    converted = openvino.convert_model(draft)
    for item in (draft, folder / PREDICT.name):
        item.unlink()
    for key, text in task.metadata.to_texts().items():
        converted.set_rt_info(text, ["gemnet", key])
    file = folder / f"{task.name}.xml"
    openvino.save_model(converted, file, compress_to_fp16=False)
    compiled = openvino.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return file, one_by_one(lambda images: compiled(images)[0])


def write_torch_export(task: ExportTask, folder: Path) -> tuple[Path, Predict]:
    """``NAME.pt2`` for ``torch.export.load``; the metadata in its extra file ``metadata.json``."""
    _refuse_int8(task, "torch-export")
    program = onnx_form.traced(task.model, task.shape, task.dynamic)
    file = folder / f"{task.name}.pt2"
    torch.export.save(program, file, extra_files={"metadata.json": json.dumps(task.metadata.to_texts())})
    loaded = torch.export.load(file).module()

    def predict(images: Images) -> Images:
        with torch.no_grad():
            found: Images = loaded(torch.from_numpy(images)).numpy()
        return found

    return file, one_by_one(predict)


def write_litert(task: ExportTask, folder: Path) -> tuple[Path, Predict]:
    """``NAME.tflite``, images as ``batch x channels x height x width``, and ``metadata.json`` beside it."""
    _refuse_int8(task, "litert")
    if task.dynamic:
        raise FormatError("--dynamic does not go with --to litert: its files have fixed sizes.")
    litert = require("litert_torch")
    program = onnx_form.traced(task.model, task.shape)
    _without_factors_in_sums(program.graph_module)
    converted: Any = litert.convert(program.module(), (torch.zeros(task.shape),))
    file = folder / f"{task.name}.tflite"
    converted.export(str(file))
    (folder / "metadata.json").write_text(json.dumps(task.metadata.to_texts(), indent=1) + "\n", encoding="utf-8")
    return file, one_by_one(lambda images: np.asarray(converted(images)))


def _without_factors_in_sums(graph_module: torch.fx.GraphModule) -> None:
    """``a + factor * b`` in two steps: LiteRT's converter (0.10) knows no sum with a factor."""
    graph = graph_module.graph
    for node in graph.nodes:
        if "alpha" in node.kwargs and "add" in str(node.target):
            with graph.inserting_before(node):
                scaled = graph.call_function(torch.ops.aten.mul.Tensor, (node.args[1], node.kwargs["alpha"]))
            node.target, node.args, node.kwargs = torch.ops.aten.add.Tensor, (node.args[0], scaled), {}
    graph_module.recompile()


FORMATS: dict[str, Writer] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "torch-export": write_torch_export,
    "litert": write_litert,
}


class FormatError(GemnetError):
    """A format that can't do what is asked of it."""


def one_by_one(predict: Predict) -> Predict:
    """``predict`` of a batch, image by image: a file may hold one at a time."""
    return lambda images: np.concatenate([predict(images[place : place + 1]) for place in range(len(images))])


def _refuse_int8(task: ExportTask, name: str) -> None:
    if task.calibration is not None:
        raise FormatError(f"--int8 goes with --to onnx and --to openvino, not with {name}.")
