"""What layers cost in a runtime: each measured by itself at the sizes at which it occurs, and kept for the next time.

A network is estimated by the sum over its deployed layers. Copies of a layer are run one after another, twice as many
in one graph as in another: the difference is without what a call costs, and with data where they lie in a network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from timm.layers import SqueezeExcite
from torch import nn

from gemnet.cache import cache_root, make_cache_folder
from gemnet.files import stored_json, write_json
from gemnet.genome import Genome
from gemnet.layers import ACTIVATIONS, build_activation
from gemnet.runtimes.latency import ONNX_BACKENDS, LatencyError, Runtime, in_turns
from gemnet.runtimes.onnx_graph import Graph, model_of
from gemnet.runtimes.onnx_kernels import FUSED, steps_of

FORMAT = 1
KINDS = ("conv", "dw", "pool", "act", "sum", "concat", "se")
FEW, MANY = 2, 6
"""Copies in the two graphs."""
GROUP, ROUNDS, QUANTILE = 40, 15, 0.05
"""Layers measured in turns, turns of each, and the share of the turns that are faster than what counts."""


@dataclass(frozen=True)
class LayerAt:
    """A layer at a size, as it is run.

    Args:
        kind: as `gemnet.layers.Layer.kind`, or ``se``, ``sum``, ``concat``.
        in_channels, out_channels, kernel, stride, dilation, groups: as those of `gemnet.layers.Layer`.
        size: (height, width) of what it reads.
        reads: of a sum or join, how many values.
        scaled: of a sum, how many of them have a factor.
        activation: computed along with a convolution; "" for none.
    """

    kind: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    dilation: int
    groups: int
    size: tuple[int, int]
    reads: int = 1
    scaled: int = 0
    activation: str = ""

    @property
    def key(self) -> str:
        """The layer as a text."""
        return " ".join(str(part).replace(" ", "") or "-" for part in astuple(self))

    @property
    def family(self) -> str:
        """Which of `KINDS` it belongs to."""
        if self.kind == "conv":
            return "dw" if self.groups == self.in_channels > 1 else "conv"
        return "pool" if self.kind.endswith("_pool") else "act" if self.kind in ACTIVATIONS else self.kind


def layers_of(genome: Genome, in_chans: int = 3) -> list[LayerAt]:
    """The layers of a genome's deployed network between the images and the global pool."""
    found: list[LayerAt] = []
    for step, _, size in steps_of(genome, in_chans):
        layer = step.layer
        if layer.kind in FUSED and found and found[-1].kind == "conv" and not found[-1].activation:
            found[-1] = replace(found[-1], activation=layer.kind)
            continue
        shape = (layer.kind, layer.in_channels, layer.out_channels, layer.kernel, layer.stride, layer.dilation)
        scaled = sum(factor != 1 for factor in step.factors)
        found.append(LayerAt(*shape, layer.groups, size, len(step.reads), scaled))
    return found


class LayerTable:
    """Milliseconds of layers in a runtime, measured when they are first asked for, kept in the cache.

    Args:
        runtime: one that runs ONNX, on the CPU.
        batch: images at a time; costs are the batch's, divided by it.
        folder: where tables are kept; the cache's by default.

    Raises:
        LatencyError: the runtime runs no ONNX, or the file is of another device.
    """

    def __init__(self, runtime: Runtime, batch: int = 1, folder: Path | None = None) -> None:
        if runtime.backend not in ONNX_BACKENDS:
            raise LatencyError(f"Layers are measured in {' or '.join(ONNX_BACKENDS)}, not in {runtime.backend}.")
        self.runtime, self.batch = runtime, batch
        self.device = f"{runtime.name}, batch {batch}"
        folder = folder or cache_root() / "layers"
        self.file = folder / f"{hashlib.sha256(self.device.encode()).hexdigest()[:16]}.json"
        kept = stored_json(self.file)
        if kept and kept.get("device") != self.device:
            raise LatencyError(
                f"{self.file} is the table of another device, {kept.get('device')!r}; this is {self.device!r}. "
                "Take it away."
            )
        self.milliseconds: dict[str, float] = kept.get("milliseconds", {}) if kept.get("format") == FORMAT else {}

    def measure(self, layers: Iterable[LayerAt], on_layers: Callable[[int], None] | None = None) -> int:
        """Measures those layers that are not known yet; returns how many.

        Args:
            layers: any, also repeatedly.
            on_layers: called with how many are still to be measured.
        """
        missing = list({layer.key: layer for layer in layers if layer.key not in self.milliseconds}.values())
        if missing:
            make_cache_folder(self.file.parent)
        for start in range(0, len(missing), GROUP):
            part = missing[start : start + GROUP]
            calls = [
                self.runtime.call(_chain(layer, copies), (self.batch, layer.in_channels, *layer.size))
                for layer in part
                for copies in (FEW, MANY)
            ]
            timings = in_turns(calls, ROUNDS, self.runtime.threads)
            spent = np.quantile(timings.cpu if self.runtime.threads == 1 else timings.wall, QUANTILE, axis=1)
            each = np.maximum(spent[1::2] - spent[::2], 0) / (MANY - FEW) / self.batch
            self.milliseconds.update(zip((layer.key for layer in part), each.tolist(), strict=True))
            write_json(self.file, {"format": FORMAT, "device": self.device, "milliseconds": self.milliseconds})
            if on_layers is not None:
                on_layers(len(missing) - start - len(part))
        return len(missing)

    def by_kind(self, layers: Iterable[LayerAt]) -> NDArray[np.float64]:
        """Milliseconds of a network's layers, measured before, summed by `KINDS`; (kinds,)."""
        found = np.zeros(len(KINDS))
        for layer in layers:
            found[KINDS.index(layer.family)] += self.milliseconds[layer.key]
        return found


def _chain(layer: LayerAt, copies: int) -> bytes:
    """An ONNX model with copies of a layer: one after another where shapes allow it, else side by side."""
    graph = Graph(layer.in_channels)
    module = _module(layer)
    x = graph.module(nn.Conv2d(layer.in_channels, layer.in_channels, 1), "images")
    in_line = layer.in_channels == layer.out_channels and layer.stride == 1 and layer.kind != "concat"
    written = []
    for _ in range(copies):
        y = graph.module(module, x) if module is not None else _joined(graph, layer, x)
        written.append(y)
        x = y if in_line else x
    pooled = [graph.add("GlobalAveragePool", y) for y in (written[-1:] if in_line else written)]
    graph.add("Concat", *pooled, axis=1)
    return model_of(graph, (1, layer.in_channels, *layer.size), ("batch",)).SerializeToString()


def _module(layer: LayerAt) -> nn.Module | None:
    channels, kernel, stride = layer.in_channels, layer.kernel, layer.stride
    margin = layer.dilation * (kernel - 1) // 2
    if layer.kind == "conv":
        conv = nn.Conv2d(channels, layer.out_channels, kernel, stride, margin, layer.dilation, layer.groups)
        return nn.Sequential(conv, build_activation(layer.activation)) if layer.activation else conv
    if layer.kind == "avg_pool":
        return nn.AvgPool2d(kernel, stride, margin, ceil_mode=kernel % 2 == 0, count_include_pad=False)
    if layer.kind == "max_pool":
        return nn.MaxPool2d(kernel, stride, margin)
    if layer.kind == "se":
        return SqueezeExcite(channels, rd_channels=layer.groups, gate_layer="hard_sigmoid")
    return build_activation(layer.kind) if layer.kind in ACTIVATIONS else None


def _joined(graph: Graph, layer: LayerAt, x: str) -> str:
    if layer.kind == "concat":
        return graph.add("Concat", *[x] * layer.reads, channels=layer.out_channels, axis=1)
    values: list[Any] = [graph.scaled(x, 0.5) if place < layer.scaled else x for place in range(layer.reads)]
    total = values[0]
    for value in values[1:]:
        total = graph.add("Add", total, value)
    return total
