"""ONNX straight from a deployed GEMNet, operator by operator.

torch's exporter takes seconds a network; this takes milliseconds, so that a search can measure hundreds, and decides
what every operator is written as. Sizes stay open by themselves: no operator here holds one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from timm.layers import SelectAdaptivePool2d, SqueezeExcite
from torch import nn

from gemnet.layers import EndPaddedConv2d
from gemnet.network import GEMNet
from gemnet.program import INPUT as START
from gemnet.program import Program

SIMPLE = {nn.ReLU: "Relu", nn.Hardswish: "HardSwish", nn.Hardsigmoid: "HardSigmoid", nn.Sigmoid: "Sigmoid"}


OPSET, IR = 18, 9
"""Versions of ONNX's operators and of its files."""
INPUT, OUTPUT = "images", "logits"
AXES = {0: "batch", 2: "height", 3: "width"}
"""Names of the dimensions that may stay open."""


class UnknownModule(Exception):
    """A module that is not written here."""


class Graph:
    """Nodes and constants of an ONNX graph that is being written.

    Args:
        in_chans: channels of the images.
    """

    def __init__(self, in_chans: int) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.channels = {INPUT: in_chans}

    def add(self, kind: str, *reads: str, channels: int | None = None, **attributes: Any) -> str:
        """A node; returns the name of what it writes, which has the channels of what it reads first or ``channels``."""
        from onnx import helper

        writes = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(reads), [writes], name=writes, **attributes))
        self.channels[writes] = self.channels[reads[0]] if channels is None else channels
        return writes

    def constant(self, value: torch.Tensor | float) -> str:
        """A constant; returns its name."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.array(value, np.float32)
        self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def module(self, module: nn.Module, x: str) -> str:
        """A module of ``x``.

        Raises:
            UnknownModule: it is of a kind that is not written here.
        """
        if isinstance(module, Program):
            return self.program(module, x)
        if isinstance(module, nn.Sequential):
            for part in module:
                x = self.module(part, x)
            return x
        if isinstance(module, nn.Identity | nn.Dropout):
            return x
        if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros":
            return self.convolution(module, x)
        if isinstance(module, nn.AvgPool2d | nn.MaxPool2d):
            return self.pool(module, x)
        if isinstance(module, SqueezeExcite):
            gate = self.add("GlobalAveragePool", x)
            for part in (module.fc1, module.bn, module.act, module.fc2, module.gate):
                gate = self.module(part, gate)
            return self.add("Mul", x, gate)
        if isinstance(module, nn.ReLU6):
            return self.add("Clip", x, self.constant(0.0), self.constant(6.0))
        if isinstance(module, nn.SiLU):
            return self.add("Mul", x, self.add("Sigmoid", x))
        if isinstance(module, nn.GELU) and module.approximate == "none":
            erf = self.add("Erf", self.add("Mul", x, self.constant(0.5**0.5)))
            twice = self.add("Mul", x, self.add("Add", erf, self.constant(1.0)))
            return self.add("Mul", twice, self.constant(0.5))
        if type(module) is nn.Hardsigmoid:
            return self.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)
        if type(module) in SIMPLE:
            return self.add(SIMPLE[type(module)], x)
        raise UnknownModule(type(module).__name__)

    def convolution(self, conv: nn.Conv2d, x: str) -> str:
        """A convolution with zeros around the image."""
        if isinstance(conv.padding, str):
            raise UnknownModule(f"padding={conv.padding!r}")
        reads = [x, self.constant(conv.weight)] + ([] if conv.bias is None else [self.constant(conv.bias)])
        begin = [*map(int, conv.padding)]
        end = begin
        if isinstance(conv, EndPaddedConv2d):  # a whole reach at the end gives ceil(size / stride) at every size
            reach = zip(conv.kernel_size, conv.dilation, strict=True)
            end = [(kernel - 1) * dilation for kernel, dilation in reach]
        return self.add(
            "Conv",
            *reads,
            channels=conv.out_channels,
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=[*begin, *end],
            dilations=list(conv.dilation),
            group=conv.groups,
        )

    def pool(self, pool: nn.AvgPool2d | nn.MaxPool2d, x: str) -> str:
        """An average or max pool."""
        sides: dict[str, Any] = {
            key: [value, value] if isinstance(value, int) else list(value)
            for key, value in (("kernel_shape", pool.kernel_size), ("strides", pool.stride), ("pads", pool.padding))
        }
        sides["pads"] = 2 * sides["pads"]
        if isinstance(pool, nn.AvgPool2d):
            counts = int(pool.count_include_pad)
            return self.add("AveragePool", x, ceil_mode=int(pool.ceil_mode), count_include_pad=counts, **sides)
        if pool.dilation not in (1, (1, 1)):
            raise UnknownModule("dilated pool")
        return self.add("MaxPool", x, ceil_mode=int(pool.ceil_mode), **sides)

    def program(self, program: Program, x: str) -> str:
        """A deployed cell or run of layers."""
        values = {START: x}
        for step in program.instructions:
            read = [values[key] for key in step.reads]
            if step.module:
                x = self.module(program.get_submodule(step.module), read[0])
            elif step.factors:
                scaled = [self.scaled(value, factor) for value, factor in zip(read, step.factors, strict=True)]
                x = scaled[0]
                for other in scaled[1:]:
                    x = self.add("Add", x, other)
            else:
                x = self.add("Concat", *read, channels=sum(self.channels[each] for each in read), axis=1)
            values[step.writes] = x
        return x

    def scaled(self, x: str, factor: float) -> str:
        """``factor * x`` as a convolution: onnxruntime has those, but no products, in its blocked layout."""
        if factor == 1:
            return x
        channels = self.channels[x]
        weight = self.constant(torch.full((channels, 1, 1, 1), factor))
        return self.add("Conv", x, weight, kernel_shape=[1, 1], group=channels)


def graph_of(model: GEMNet) -> Graph | None:
    """Graph of a deployed classifier, from ``images`` to ``logits``; None where it holds what is not written here."""
    graph = Graph(model.in_chans)
    if not isinstance(model.global_pool, SelectAdaptivePool2d) or model.global_pool.pool_type != "avg":
        return None
    if not isinstance(model.classifier, nn.Linear):
        return None
    try:
        x = INPUT
        for part in (model.stem, model.stages, model.head):
            x = graph.module(part, x)
    except UnknownModule:
        return None
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", x), axis=1)
    weight, bias = graph.constant(model.classifier.weight), graph.constant(model.classifier.bias)
    graph.add("Gemm", pooled, weight, bias, channels=model.num_classes, transB=1)
    return graph


def model_of(graph: Graph, shape: tuple[int, int, int, int], dynamic: Sequence[str] = ()) -> Any:
    """A graph as ``onnx.ModelProto``, whose output is what its last node writes.

    Args:
        graph: reads ``images``.
        shape: of the images.
        dynamic: ``batch``, ``size``, both or nothing: what stays open.
    """
    from onnx import TensorProto, helper

    last = graph.nodes[-1]
    channels = graph.channels[last.output[0]]
    last.output[0] = OUTPUT
    images: list[int | str] = list(shape)
    for axis in open_axes(dynamic):
        images[axis] = AXES[axis]
    written = [images[0], channels] if last.op_type == "Gemm" else None
    made = helper.make_graph(
        graph.nodes,
        "gemnet",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, images)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, written)],
        graph.constants,
    )
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="gemnet"
    )


def open_axes(dynamic: Sequence[str]) -> list[int]:
    """Axes of the images that stay open."""
    return [axis for axis, name in AXES.items() if name in dynamic or (axis and "size" in dynamic)]
