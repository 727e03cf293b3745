"""Genome: everything a network is built from, as one versioned JSON file.

    {
      "format": 1,
      "stem":   [{"op": "conv3x3_bn_act", "width": 32, "stride": 2}],
      "cells":  {"cell": {"graph": {"ops": [...], "edges": [...]}, "expand": "conv1x1_bn_act", ...}},
      "stages": [{"cell": "cell", "width": 24, "depth": 2, "stride": 2}, ...],
      "head":   [{"op": "conv1x1_bn_act", "width": 1280}],
      "activation": "relu6"
    }

Read strictly: an unknown key, a wrong type or an absurd size is a `GenomeError` that names the key and what is
allowed. Graphs are kept in canonical form, so that isomorphic cells give the same network.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from timm.layers import make_divisible

from gemnet.cell_graph import CellGraph
from gemnet.errors import GemnetError, GenomeError, nearest
from gemnet.files import write_text
from gemnet.layers import ACTIVATIONS
from gemnet.operations import Step, parse_operation
from gemnet.strict import check_keys
from gemnet.strict_json import parse_json

FORMAT = 1
MAX_WIDTH = 4096
MAX_INNER_WIDTH = 32768
MAX_DEPTH = 64
MAX_STAGES = 16
MAX_LAYERS = 8
MAX_INPUT_SIZE = 4096
MAX_CLASSES = 1_000_000

AGGREGATES = ("mean", "sum", "sigmoid_weighted")
OUTPUTS = ("mean", "sum", "sigmoid_weighted", "concat")
RESIDUALS = ("none", "identity", "conv1x1", "conv1x1_bn", "pool_conv1x1", "pool_conv1x1_bn")

T = TypeVar("T")


@dataclass(frozen=True)
class LayerSpec:
    """One operation of the stem or the head.

    Args:
        op: the operation's name.
        width: channels it writes; as many as it reads by default.
        stride: 1, 2 or 4.
    """

    op: str
    width: int | None = None
    stride: int = 1

    def __post_init__(self) -> None:
        operation = _operation("op", self.op)
        if operation.is_none:
            raise GenomeError("op is 'none', which computes nothing. Leave the layer out.")
        if self.width is not None:
            _integer("width", self.width, 1, MAX_WIDTH)
        _choice("stride", self.stride, (1, 2, 4))
        if self.stride != 1 and not operation.can_stride:
            raise GenomeError(f"stride is {self.stride}, but {self.op!r} can't stride. Use a convolution or a pool.")


@dataclass(frozen=True)
class CellSpec:
    """A cell: its graph and what surrounds it.

    Args:
        graph: the DAG; kept in canonical form.
        aggregate: how a node combines what it reads: ``mean`` (the default: the one that keeps activations bounded
            however many identity paths there are), ``sum``, or ``sigmoid_weighted`` (sum with a learnt weight in
            (0, 1) an edge).
        output: how the output node does: one of these or ``concat``.
        expand: 1x1 convolution before the DAG, such as ``conv1x1_bn_act``, or depthwise ones and then it, such as
            ``dw5x5_bn_conv1x1_bn_act``; None for none.
        inner_ratio: channels inside the DAG, as a multiple of `inner_of`'s (rounded to a multiple of 8 unless 1).
        inner_of: ``output`` (the stage's width, as in ResNet) or ``input`` (as in MobileNetV2).
        se_ratio: channels inside a squeeze-excitation after the DAG, as a fraction of the DAG's; 0 for none.
        project: 1x1 convolution after the DAG, such as ``conv1x1_bn``; None for none.
        residual: ``none``; ``identity``, where size and width stay; or the projection to use where they don't
            (``pool_``: average pool first).
        final_activation: activation after the residual; None for none.
    """

    graph: CellGraph
    aggregate: str = "mean"
    output: str = "mean"
    expand: str | None = None
    inner_ratio: float = 1.0
    inner_of: str = "output"
    se_ratio: float = 0.0
    project: str | None = None
    residual: str = "none"
    final_activation: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.graph, CellGraph):
            raise GenomeError(f"graph is a CellGraph, got {type(self.graph).__name__}.")
        for place, op in enumerate(self.graph.ops):
            _operation(f"graph.ops[{place}]", op)
        if not self.graph.predecessors(self.graph.size - 1):
            raise GenomeError(f"graph: nothing leads to the output (node {self.graph.size - 1}). Add an edge to it.")
        object.__setattr__(self, "graph", self.graph.canonical())
        _choice("aggregate", self.aggregate, AGGREGATES)
        _choice("output", self.output, OUTPUTS)
        _choice("inner_of", self.inner_of, ("output", "input"))
        _choice("residual", self.residual, RESIDUALS)
        _number("inner_ratio", self.inner_ratio, 1 / 64, 64)
        _number("se_ratio", self.se_ratio, 0, 1)
        for key in ("inner_ratio", "se_ratio"):
            object.__setattr__(self, key, float(getattr(self, key)))  # 6 and 6.0 are one genome
        for key in ("expand", "project"):
            name = getattr(self, key)
            if name is not None:
                windows = [step for step in _operation(key, name).steps if step.kind not in ("bn", "act", *ACTIVATIONS)]
                before = windows[:-1] if key == "expand" else []
                if [*before, Step("conv")] != windows or any(step.kind != "dw" for step in before):
                    also = " (after depthwise ones, if any)" if key == "expand" else ""
                    raise GenomeError(
                        f"{key} is {name!r}; expected one 1x1 convolution{also} such as 'conv1x1_bn', or null."
                    )
        if self.final_activation is not None:
            _choice("final_activation", self.final_activation, ("act", *ACTIVATIONS))
        if self.project is None:
            if self.output == "concat":
                raise GenomeError("project is missing; output 'concat' needs one, such as 'conv1x1_bn'.")
            if self.inner_ratio != 1 or self.inner_of != "output":
                raise GenomeError(
                    "project is missing; without one the DAG must have the stage's width (inner_ratio 1, inner_of "
                    "'output')."
                )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "graph"}
        return {"graph": self.graph.to_json(), **rest}

    @classmethod
    def from_dict(cls, data: Any, where: str = "cell") -> CellSpec:
        """Reads what `to_dict` wrote; keys that have a default may be missing.

        Args:
            data: the JSON form.
            where: what the cell is called in messages.

        Raises:
            GenomeError: an unknown or missing key, a value out of range.
        """
        if isinstance(data, Mapping) and "graph" in data:
            try:
                data = {**data, "graph": CellGraph.from_json(data["graph"])}
            except GemnetError as error:
                raise GenomeError(f"{where}.graph: {error}") from None
        return _make(cls, data, where)

    def inner_width(self, in_channels: int, width: int) -> int:
        """Channels inside the DAG, between ``in_channels`` and the stage's ``width``."""
        base = width if self.inner_of == "output" else in_channels
        return base if self.inner_ratio == 1 else make_divisible(base * self.inner_ratio)

    def squeeze_width(self, channels: int) -> int:
        """Channels inside the squeeze-excitation on ``channels``; 0 without one."""
        return make_divisible(channels * self.se_ratio) if self.se_ratio else 0


@dataclass(frozen=True)
class StageSpec:
    """Blocks of one width.

    Args:
        cell: name of the cell that is repeated.
        width: channels the stage writes.
        depth: number of cells.
        stride: 1 or 2, taken by the first block.
        downsample: name of a cell put before the others, which then takes stride and change of width.
    """

    cell: str
    width: int
    depth: int
    stride: int = 1
    downsample: str | None = None

    def __post_init__(self) -> None:
        _text("cell", self.cell)
        _integer("width", self.width, 1, MAX_WIDTH)
        _integer("depth", self.depth, 1, MAX_DEPTH)
        _choice("stride", self.stride, (1, 2))
        if self.downsample is not None:
            _text("downsample", self.downsample)


@dataclass(frozen=True)
class Block:
    """One cell of a network, placed: stage number, name of the cell, channels in and out, stride."""

    stage: int
    cell: str
    in_channels: int
    width: int
    stride: int


@dataclass(frozen=True)
class Level:
    """One level of the feature pyramid: the last stage at its size.

    Args:
        stage: number of the stage.
        width: channels.
        reduction: input size divided by the level's.
    """

    stage: int
    width: int
    reduction: int


@dataclass(frozen=True)
class Genome:
    """What a network is built from.

    Args:
        stem: operations before the first stage; the first is a dense convolution with a width.
        cells: the cells by name.
        stages: stages in order.
        head: operations between the last stage and the global pool.
        activation: what ``act`` means.
        input_size: side of the images it is meant for, in pixels.
        num_classes: classes of the classifier unless asked otherwise.
        name: a name to show; says nothing about the network.
        origin: where the genome comes from; says nothing about the network.

    Raises:
        GenomeError: a value out of range, a cell that is not there, sizes that don't fit.
    """

    stem: tuple[LayerSpec, ...]
    cells: Mapping[str, CellSpec]
    stages: tuple[StageSpec, ...]
    head: tuple[LayerSpec, ...] = ()
    activation: str = "relu"
    input_size: int = 224
    num_classes: int = 1000
    name: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stem", tuple(self.stem))
        object.__setattr__(self, "cells", MappingProxyType(dict(self.cells)))
        object.__setattr__(self, "stages", tuple(self.stages))
        object.__setattr__(self, "head", tuple(self.head))
        _choice("activation", self.activation, tuple(ACTIVATIONS))
        _integer("input_size", self.input_size, 8, MAX_INPUT_SIZE)
        _integer("num_classes", self.num_classes, 0, MAX_CLASSES)
        _text("name", self.name, empty=True)
        _text("origin", self.origin, empty=True)
        for key, items, least, most in (
            ("stem", self.stem, 1, MAX_LAYERS),
            ("head", self.head, 0, MAX_LAYERS),
            ("stages", self.stages, 1, MAX_STAGES),
        ):
            if not least <= len(items) <= most:
                raise GenomeError(f"{key} has {len(items)} entries; expected {least} to {most}.")
        # Its first layer reads the images: weights for other channels are made of it (timm's first_conv).
        if self.stem[0].width is None or parse_operation(self.stem[0].op).first_kind != "conv":
            raise GenomeError("stem[0] must be a dense convolution with a width, such as 'conv3x3_bn_act'.")
        for place, stage in enumerate(self.stages):
            for key in ("cell", "downsample"):
                name = getattr(stage, key)
                if name is not None and name not in self.cells:
                    raise GenomeError(f"stages[{place}].{key} is {name!r}.{nearest(name, self.cells)}")
        used = {name for stage in self.stages for name in (stage.cell, stage.downsample)}
        for name in self.cells:
            if name not in used:
                raise GenomeError(f"cells.{name} is used by no stage. Remove it, or name it in a stage.")
        self._check_layers("stem", self.stem, self.stem[0].width)
        self._check_layers("head", self.head, self.stages[-1].width)
        for block in self.blocks():
            inner = self.cells[block.cell].inner_width(block.in_channels, block.width)
            if inner > MAX_INNER_WIDTH:
                raise GenomeError(
                    f"stages[{block.stage}]: cell {block.cell!r} would be {inner} channels wide inside; at most "
                    f"{MAX_INNER_WIDTH}. Lower its inner_ratio or the stage's width."
                )

    @staticmethod
    def _check_layers(key: str, layers: tuple[LayerSpec, ...], channels: int) -> None:
        for place, layer in enumerate(layers):
            width = layer.width or channels
            if width != channels and not parse_operation(layer.op).can_widen:
                raise GenomeError(
                    f"{key}[{place}].width is {width}, but {layer.op!r} keeps its {channels} channels. Use a dense "
                    "convolution, or leave the width out."
                )
            channels = width

    def __reduce__(self) -> tuple[Any, ...]:
        return Genome.from_dict, (self.to_dict(),)  # a read-only mapping can't be pickled

    @property
    def stem_width(self) -> int:
        """Channels of the stem's output."""
        return next((layer.width for layer in reversed(self.stem) if layer.width), 0)  # stem[0] has one

    @property
    def num_features(self) -> int:
        """Channels of the last feature map, after the head's operations."""
        return next((layer.width for layer in reversed(self.head) if layer.width), self.stages[-1].width)

    def blocks(self) -> Iterator[Block]:
        """All cells of the network in order."""
        channels = self.stem_width
        for number, stage in enumerate(self.stages):
            names = [stage.cell] * stage.depth
            if stage.downsample is not None:
                names.insert(0, stage.downsample)
            for place, name in enumerate(names):
                yield Block(number, name, channels, stage.width, stage.stride if place == 0 else 1)
                channels = stage.width

    @property
    def levels(self) -> tuple[Level, ...]:
        """The feature pyramid: the last stage of each size."""
        reduction = 1
        for layer in self.stem:
            reduction *= layer.stride
        found = []
        for number, stage in enumerate(self.stages):
            reduction *= stage.stride
            if number + 1 == len(self.stages) or self.stages[number + 1].stride != 1:
                found.append(Level(number, stage.width, reduction))
        return tuple(found)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that genomes of the same network share, whatever their name, origin or class count."""
        data = self.to_dict()
        for key in ("name", "origin", "num_classes", "input_size"):
            data.pop(key, None)
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def replace(self, **changes: Any) -> Genome:
        """A copy with other values."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, every key written out."""
        return {
            "format": FORMAT,
            "name": self.name,
            "origin": self.origin,
            "input_size": self.input_size,
            "num_classes": self.num_classes,
            "activation": self.activation,
            "stem": [asdict(layer) for layer in self.stem],
            "stages": [asdict(stage) for stage in self.stages],
            "head": [asdict(layer) for layer in self.head],
            "cells": {name: cell.to_dict() for name, cell in self.cells.items()},
        }

    @classmethod
    def from_dict(cls, data: Any) -> Genome:
        """Reads what `to_dict` wrote; keys that have a default may be missing.

        Raises:
            GenomeError: another format version, an unknown or missing key, a value out of range.
        """
        if not isinstance(data, Mapping):
            raise GenomeError(f"A genome is a mapping, got {type(data).__name__}.")
        if "format" not in data:
            raise GenomeError(f"format is missing; expected {FORMAT}. Is this file a genome?")
        if data["format"] != FORMAT or type(data["format"]) is not int:
            raise GenomeError(
                f"format is {data['format']!r}; this version of GEMNet reads format {FORMAT}. Use the version that "
                "wrote the file, or export the network again."
            )
        rest = {key: value for key, value in data.items() if key != "format"}
        check_keys(cls, rest, "", "genome", GenomeError)
        for key in ("stem", "head"):
            rest[key] = read_layers(rest, key)
        rest["stages"] = tuple(_make(StageSpec, item, f"stages[{n}]") for n, item in enumerate(_list(rest, "stages")))
        cells = rest["cells"]
        if not isinstance(cells, Mapping):
            raise GenomeError(f"cells is {type(cells).__name__}; expected a mapping from names to cells.")
        rest["cells"] = {
            _text("cells", name): CellSpec.from_dict(item, f"cells.{name}") for name, item in cells.items()
        }
        return cls(**rest)

    def to_json(self) -> str:
        """The JSON text of `to_dict`, edges and layers one to a line."""
        return _compact_json(self.to_dict()) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the JSON form in one step."""
        write_text(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Genome:
        """Reads a genome file.

        Raises:
            GenomeError: no such file, not JSON, or as `from_dict`; the message starts with the path.
        """
        try:
            data = parse_json(Path(path).read_bytes())
        except OSError as error:
            raise GenomeError(f"{path}: can't be read ({error.strerror}). Give the path of a genome's JSON.") from None
        except ValueError as error:
            raise GenomeError(f"{path}: {error}.") from None
        try:
            return cls.from_dict(data)
        except GemnetError as error:
            raise GenomeError(f"{path}: {error}") from None

    @classmethod
    def read(cls, source: Genome | Mapping[str, Any] | str | os.PathLike[str]) -> Genome:
        """A genome from whatever holds one: itself, its dict or its file."""
        if isinstance(source, Genome):
            return source
        if isinstance(source, Mapping):
            return cls.from_dict(source)
        if isinstance(source, str | os.PathLike):
            return cls.load(source)
        raise GenomeError(f"genome is a path, a mapping or a Genome, got {type(source).__name__}.")


def read_layers(data: Mapping[str, Any], key: str) -> tuple[LayerSpec, ...]:
    """The layers that ``data`` lists under ``key``, each as a mapping; none where it has no such key.

    Raises:
        GenomeError: no list, an unknown or missing key, a value out of range.
    """
    return tuple(_make(LayerSpec, item, f"{key}[{n}]") for n, item in enumerate(_list(data, key)))


def _make(kind: type[T], data: Any, where: str) -> T:
    if not isinstance(data, Mapping):
        raise GenomeError(f"{where} is {data!r}; expected a mapping.")
    check_keys(kind, data, f"{where}.", "genome", GenomeError)
    try:
        return kind(**data)
    except GenomeError as error:
        raise GenomeError(f"{where}.{error}") from None


def _list(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list | tuple):
        raise GenomeError(f"{key} is {value!r}; expected a list.")
    return list(value)


def _operation(key: str, name: Any) -> Any:
    if not isinstance(name, str):
        raise GenomeError(f"{key} is {name!r}; expected the name of an operation.")
    try:
        return parse_operation(name)
    except GemnetError as error:
        raise GenomeError(f"{key}: {error}") from None


def _integer(key: str, value: Any, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise GenomeError(f"{key} is {value!r}; expected an integer from {least} to {most}.")


def _number(key: str, value: Any, least: float, most: float) -> None:
    if type(value) not in (int, float) or not least <= value <= most:
        raise GenomeError(f"{key} is {value!r}; expected a number from {least:g} to {most:g}.")


def _choice(key: str, value: Any, allowed: Sequence[Any]) -> None:
    if not any(value == item and type(value) is type(item) for item in allowed):
        listed = ", ".join(repr(item) for item in allowed)
        raise GenomeError(f"{key} is {value!r}; expected one of {listed}.")


def _text(key: str, value: Any, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        raise GenomeError(f"{key} is {value!r}; expected a text.")
    return value


def _compact_json(value: Any, indent: int = 0) -> str:
    """JSON in which a list or mapping stands on one line where it fits, so that a cell reads like a table."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(flat) + indent <= 116:
        return flat
    pad, close = " " * (indent + 2), " " * indent
    if isinstance(value, dict):
        items = [f"{pad}{json.dumps(key)}: {_compact_json(item, indent + 2)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{close}}}"
    items = [pad + _compact_json(item, indent + 2) for item in value]
    if all(len(item) < 24 for item in items):  # short pairs and names: fill the lines
        lines, line = [], pad
        for item in items:
            word = item.strip() + ", "
            if len(line) + len(word) > 118:
                lines.append(line.rstrip())
                line = pad
            line += word
        lines.append(line.rstrip(", "))
        return "[\n" + "\n".join(lines) + f"\n{close}]"
    return "[\n" + ",\n".join(items) + f"\n{close}]"
