"""Cell: runs a labelled DAG as an `nn.Module`.

    input -> [expand 1x1] -> DAG at constant inner width -> [squeeze-excitation] -> [project 1x1] -> [+ input] -> [act]

A node aggregates what it reads and applies its operation. Depthwise convolutions may precede the expansion's. Where the
cell strides or changes width without an expansion, a node that reads nothing but the cell's input does so itself;
everything else that reads the input reads one shared *adapted* input (2x2 average pool, then ``conv1x1_bn`` where the
width changes). `none` is the absence of a node, and nodes that can't reach the output are not built. A node left with
nothing to read reads zeros. Every window pads its own input with zeros; an average pool counts none of them. Means and
sums of identities are means and sums of what those read: whoever reads an identity reads that, each with its share, and
the identity is not run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from timm.layers import DropPath, SqueezeExcite
from torch import nn

from gemnet.cell_graph import CellGraph
from gemnet.genome import CellSpec
from gemnet.layers import Cost, Steps, build_activation, changed
from gemnet.operations import Operation, parse_operation

RAW, ADAPTED = 0, -1
"""Keys of the cell's input among the values that nodes read: as it is, and adapted to the cell's inside."""


@dataclass(frozen=True)
class NodeLayout:
    """One node that is run.

    Args:
        node: its number in the graph (the output's number for the output).
        operation: what it does; None for the output node.
        sources: what it reads, `RAW`, `ADAPTED` or node numbers, ascending.
        zeros_like: with no sources, the input whose shape its zeros have.
        in_channels: channels read.
        stride: stride it takes.
        shares: factor on each source in a mean or sum; empty where sources are weighed by learnt weights or joined.
        release: values nobody reads after this node.
    """

    node: int
    operation: Operation | None
    sources: tuple[int, ...]
    zeros_like: int
    in_channels: int
    stride: int
    shares: tuple[float, ...] = ()
    release: tuple[int, ...] = ()


class Projection(NamedTuple):
    """What a shortcut does where size or width change.

    Args:
        operation: what it runs.
        pools: whether a 2x2 average pool comes first, which takes the cell's stride.
        stride: the one that the operation takes itself.
    """

    operation: Operation
    pools: bool
    stride: int


@dataclass(frozen=True)
class CellLayout:
    """What a `CellSpec` becomes between two given widths: every size settled, nothing built.

    Args:
        spec: the cell.
        in_channels: channels of the cell's input.
        width: channels of its output.
        stride: 1 or 2.
        inner: channels inside the DAG.
        raw_channels: channels of the DAG's input (`inner` where the cell expands).
        nodes: nodes in running order, the output last.
        adapts: whether anything reads the adapted input.
    """

    spec: CellSpec
    in_channels: int
    width: int
    stride: int
    inner: int
    raw_channels: int
    nodes: tuple[NodeLayout, ...]
    adapts: bool

    @property
    def joined(self) -> int:
        """Channels after the output node's aggregation."""
        parts = max(len(self.nodes[-1].sources), 1) if self.spec.output == "concat" else 1
        return self.inner * parts

    @property
    def squeezed(self) -> int:
        """Channels inside the squeeze-excitation; 0 without one."""
        return self.spec.squeeze_width(self.joined)

    @property
    def shortcut(self) -> str:
        """What the residual does here: ``none``, ``identity``, or the name of its projection."""
        same = self.stride == 1 and self.in_channels == self.width
        if self.spec.residual == "identity":
            return "identity" if same else "none"
        return "identity" if same and self.spec.residual != "none" else self.spec.residual

    @property
    def projection(self) -> Projection | None:
        """What the shortcut runs; None where there is no shortcut, or it passes on what it reads."""
        if self.shortcut in ("none", "identity"):
            return None
        name = self.shortcut.removeprefix("pool_")
        pools = name != self.shortcut and self.stride != 1
        return Projection(parse_operation(name), pools, 1 if pools else self.stride)

    def cost(self, size: tuple[int, int]) -> Cost:
        """Cost of one cell on an input of ``size`` (height, width), deployed with norms folded and nothing else.

        `gemnet.macs.cost` knows what else collapses.
        """
        spec, inside = self.spec, shrunk(size, self.stride)
        total = self.cost_around(size, max(len(self.nodes[-1].sources), 1))
        if self.adapts:
            total += self.cost_of_adapting(size)
        for layout in self.nodes:
            at = size if layout.stride != 1 else inside
            if layout.operation is not None:
                total += layout.operation.cost(layout.in_channels, self.inner, at, layout.stride)
            total += cost_of_reading(aggregation(spec, layout), len(layout.sources), layout.in_channels, at)
        return total

    def cost_around(self, size: tuple[int, int], reads: int) -> Cost:
        """Cost of expansion, squeeze-excitation, projection, residual and last activation.

        Args:
            size: (height, width) of the cell's input.
            reads: nodes that the output reads.
        """
        spec, inside = self.spec, shrunk(size, self.stride)
        joined = self.inner * (reads if spec.output == "concat" else 1)
        written = self.width if spec.project is not None else joined
        total = squeeze_cost(joined, spec.squeeze_width(joined), inside)
        if spec.expand is not None:
            total += parse_operation(spec.expand).cost(self.in_channels, self.inner, size)
        if spec.project is not None:
            total += parse_operation(spec.project).cost(joined, self.width, inside)
        if self.shortcut != "none":
            total += Cost(traffic=3 * written * math.prod(inside), passes=1)
        projection = self.projection
        if projection is not None:
            if projection.pools:
                total += _pool_cost(self.in_channels, size, inside)
            at = inside if projection.pools else size
            total += projection.operation.cost(self.in_channels, self.width, at, projection.stride)
        if spec.final_activation is not None:
            total += Cost(traffic=2 * written * math.prod(inside), passes=1)
        return total

    def cost_of_adapting(self, size: tuple[int, int]) -> Cost:
        """Cost of the shared adapted input, where something reads it."""
        inside = shrunk(size, self.stride)
        total = _pool_cost(self.raw_channels, size, inside) if self.stride != 1 else Cost()
        if self.raw_channels != self.inner:
            total += parse_operation("conv1x1_bn").cost(self.raw_channels, self.inner, inside)
        return total


def cost_of_reading(how: str, reads: int, channels: int, size: tuple[int, int]) -> Cost:
    """Cost of aggregating what a node reads; factors go into the weights of what comes after.

    Args:
        how: ``mean``, ``sum``, ``sigmoid_weighted`` or ``concat``.
        reads: how many it reads.
        channels: of each.
        size: (height, width) of each.
    """
    each = channels * math.prod(size)
    if reads < 2:
        return Cost()
    if how == "concat":
        return Cost(traffic=2 * reads * each, passes=1)
    params = reads if how == "sigmoid_weighted" else 0
    return Cost(params=params, traffic=3 * (reads - 1) * each, passes=reads - 1)


def squeeze_cost(channels: int, squeezed: int, size: tuple[int, int]) -> Cost:
    """Cost of a squeeze-excitation: the mean, two 1x1 convolutions with bias and their activations, the product."""
    if not squeezed:
        return Cost()
    weights = 2 * channels * squeezed
    traffic = 3 * channels * math.prod(size) + 6 * channels + 4 * squeezed
    return Cost(weights, weights + channels + squeezed, traffic, 6)


def _pool_cost(channels: int, size: tuple[int, int], pooled: tuple[int, int]) -> Cost:
    return Cost(traffic=channels * (math.prod(size) + math.prod(pooled)), passes=1)


def shrunk(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """(height, width) after a stride."""
    return -(-size[0] // stride), -(-size[1] // stride)


def aggregation(spec: CellSpec, layout: NodeLayout) -> str:
    """How this node combines what it reads."""
    return spec.output if layout.operation is None else spec.aggregate


def has_edge_weights(spec: CellSpec, layout: NodeLayout) -> bool:
    """Whether this node weighs its inputs: with one input there is nothing to weigh."""
    return aggregation(spec, layout) == "sigmoid_weighted" and len(layout.sources) > 1


def reads_input_itself(operation: Operation, strides: bool, widens: bool) -> bool:
    """Whether a node with this operation that reads only the cell's input takes stride and change of width itself."""
    return (operation.can_stride or not strides) and (operation.can_widen or not widens)


def lay_out(spec: CellSpec, in_channels: int, width: int, stride: int) -> CellLayout:
    """Settles every size of a cell.

    Args:
        spec: the cell.
        in_channels: channels of its input.
        width: channels of its output.
        stride: 1 or 2.
    """
    inner = spec.inner_width(in_channels, width)
    raw_channels = inner if spec.expand is not None else in_channels
    strides, widens = stride != 1, raw_channels != inner
    graph = spec.graph
    sources = _effective_sources(graph)
    last = graph.size - 1
    nodes: list[NodeLayout] = []
    adapts = False
    for node, reads in sources.items():
        operation = parse_operation(graph.ops[node - 1]) if node != last else None
        raw = not (strides or widens) or (
            operation is not None and not any(reads) and reads_input_itself(operation, strides, widens)
        )
        own = RAW if raw else ADAPTED
        adapts |= not raw and (not reads or RAW in reads)
        nodes.append(
            NodeLayout(
                node=node,
                operation=operation,
                sources=tuple(own if source == RAW else source for source in reads),
                zeros_like=own,
                in_channels=raw_channels if raw and not any(reads) else inner,
                stride=stride if raw and not any(reads) else 1,
            )
        )
    nodes = _without_identities(spec, nodes)
    return CellLayout(spec, in_channels, width, stride, inner, raw_channels, _with_releases(nodes), adapts)


@lru_cache(maxsize=64)  # the blocks of a network are laid out one after another
def _effective_sources(graph: CellGraph) -> Mapping[int, tuple[int, ...]]:
    """What each node that reaches the output reads, `none` nodes taken away, in running order."""
    absent = {node for node, op in enumerate(graph.ops, start=1) if parse_operation(op).is_none}
    alive = {graph.size - 1}
    for node in range(graph.size - 2, -1, -1):
        if node not in absent and alive.intersection(graph.successors(node)):
            alive.add(node)
    return {
        node: tuple(source for source in graph.predecessors(node) if source in alive) for node in sorted(alive - {RAW})
    }


def _without_identities(spec: CellSpec, nodes: list[NodeLayout]) -> list[NodeLayout]:
    """Gives every source of a mean or sum its share, and has nodes read past identities, which are left out."""
    replaced: dict[int, dict[int, float]] = {}
    found: list[NodeLayout] = []
    for layout in nodes:
        how = aggregation(spec, layout)
        if how in ("mean", "sum") and layout.sources:
            share = 1.0 / len(layout.sources) if how == "mean" else 1.0
            shares: dict[int, float] = {}
            for source in layout.sources:
                for key, part in replaced.get(source, {source: 1.0}).items():
                    shares[key] = shares.get(key, 0.0) + share * part
            keys = tuple(sorted(shares))
            layout = changed(layout, sources=keys, shares=tuple(shares[key] for key in keys))
            if layout.operation is not None and layout.operation.is_identity:
                replaced[layout.node] = shares
        found.append(layout)
    read = {source for layout in found for source in layout.sources}
    return [layout for layout in found if layout.node not in replaced or layout.node in read]


def _with_releases(nodes: list[NodeLayout]) -> tuple[NodeLayout, ...]:
    """Notes at each node which values have their last reader there, so that they can be freed."""
    last_reader: dict[int, int] = {}
    for place, layout in enumerate(nodes):
        for source in layout.sources or (layout.zeros_like,):
            last_reader[source] = place
    released: dict[int, list[int]] = {}
    for source, place in last_reader.items():
        released.setdefault(place, []).append(source)
    return tuple(changed(layout, release=tuple(released.get(place, ()))) for place, layout in enumerate(nodes))


class Cell(nn.Module):
    """A cell as a module; see the module's docstring.

    Args:
        spec: the cell.
        in_channels: channels of its input.
        width: channels of its output.
        stride: 1 or 2.
        dilation: spread of the cell's input: every ``dilation``-th of its pixels is one of the undilated network's.
        activation: what ``act`` means.
        drop_path: probability of dropping the branch beside a residual while training.
        dilates: whether the stride is not taken, but spreads what comes after it (see `Operation.layers`).
        device: where parameters are made.
        dtype: what type they have.
    """

    def __init__(
        self,
        spec: CellSpec,
        in_channels: int,
        width: int,
        stride: int = 1,
        dilation: int = 1,
        activation: str = "relu",
        drop_path: float = 0.0,
        dilates: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        dd = {"device": device, "dtype": dtype}
        super().__init__()
        inside = dilation * stride if dilates else dilation
        layout = lay_out(spec, in_channels, width, stride)
        self.layout = layout
        self.keeps_raw = any(RAW in (*node.sources, node.zeros_like) for node in layout.nodes)

        def build(name: str, channels: int, out: int, spread: int) -> nn.Module:
            return parse_operation(name).build(channels, out, 1, spread, activation, dd)

        def pool() -> nn.Module:
            # ceil_mode gives the size that a padded convolution of the same stride gives on odd inputs.
            if dilates:
                return SpreadHalfPool2d(dilation)
            return nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)

        self.expand = build(spec.expand, in_channels, layout.inner, dilation) if spec.expand is not None else None
        self.adapter: nn.Module | None = None
        if layout.adapts:
            self.adapter = nn.Sequential()
            if stride != 1:
                self.adapter.add_module("pool", pool())
            if layout.raw_channels != layout.inner:
                self.adapter.add_module("conv", build("conv1x1_bn", layout.raw_channels, layout.inner, inside))
        self.operations = nn.ModuleDict(
            {
                str(node.node): node.operation.build(
                    node.in_channels,
                    layout.inner,
                    node.stride,
                    dilation if node.stride != 1 else inside,
                    activation,
                    dd,
                    dilates,
                )
                for node in layout.nodes
                if node.operation is not None
            }
        )
        self.edge_weights = nn.ParameterDict(
            {
                str(node.node): nn.Parameter(torch.zeros(len(node.sources), **dd))
                for node in layout.nodes
                if has_edge_weights(spec, node)
            }
        )
        self.se: nn.Module | None = None
        if layout.squeezed:
            self.se = SqueezeExcite(layout.joined, rd_channels=layout.squeezed, gate_layer="hard_sigmoid", **dd)
        self.project = build(spec.project, layout.joined, width, inside) if spec.project is not None else None
        self.shortcut: nn.Module | None = None
        if layout.shortcut != "none":
            self.shortcut = Steps()
            projection = layout.projection
            if projection is not None:
                if projection.pools:
                    self.shortcut.add_module("pool", pool())
                spread = inside if projection.pools else dilation
                built = projection.operation.build(
                    in_channels, width, projection.stride, spread, activation, dd, dilates
                )
                for part, module in built.named_children():
                    self.shortcut.add_module(part, module)
            if len(self.shortcut) == 0:
                self.shortcut = nn.Identity()
        self.drop_path = DropPath(drop_path) if drop_path > 0 and self.shortcut is not None else nn.Identity()
        self.final_act: nn.Module | None = None
        if spec.final_activation is not None:
            name = activation if spec.final_activation == "act" else spec.final_activation
            self.final_act = build_activation(name, inplace=self.shortcut is not None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From ``batch x in_channels x h x w`` to ``batch x width x ceil(h / stride) x ceil(w / stride)``."""
        branch = x if self.expand is None else self.expand(x)
        values = {RAW: branch} if self.keeps_raw else {}
        if self.adapter is not None:
            values[ADAPTED] = self.adapter(branch)
        for layout in self.layout.nodes:
            branch = self._read(layout, values)
            for key in layout.release:
                del values[key]
            if layout.operation is not None:
                values[layout.node] = branch = self.operations[str(layout.node)](branch)
        if self.se is not None:
            branch = self.se(branch)
        if self.project is not None:
            branch = self.project(branch)
        if self.shortcut is not None:
            branch = self.drop_path(branch) + self.shortcut(x)
        if self.final_act is not None:
            branch = self.final_act(branch)
        return branch

    def _read(self, layout: NodeLayout, values: dict[int, torch.Tensor]) -> torch.Tensor:
        """What a node reads, aggregated."""
        sources, shares = layout.sources, layout.shares
        if not sources:
            return torch.zeros_like(values[layout.zeros_like])
        if len(sources) == 1:
            value = values[sources[0]]
            return value if shares in ((), (1.0,)) else value * shares[0]
        if not shares:
            if aggregation(self.layout.spec, layout) == "concat":
                return torch.cat([values[source] for source in sources], dim=1)
            weights = torch.sigmoid(self.edge_weights[str(layout.node)])
            total = values[sources[0]] * weights[0]
            for place, source in enumerate(sources[1:], start=1):
                total = torch.addcmul(total, values[source], weights[place])
            return total
        # Multiples of the greatest share, so that it is one pass over memory a source and one at the end, and none
        # overflows in half precision. The first sum makes a tensor of our own; neither addition nor scaling needs its
        # operands in the backward pass, so the rest may happen in place.
        (start, most), second, *others = _greatest_first(sources, shares)
        total = torch.add(values[start], values[second[0]], alpha=second[1] / most)
        for source, share in others:
            total = total.add_(values[source], alpha=share / most)
        return total if most == 1 else total.mul_(most)


def _greatest_first(sources: tuple[int, ...], shares: tuple[float, ...]) -> list[tuple[int, float]]:
    """Sources with their shares, the first of the greatest moved to the front, the others in order."""
    pairs = list(zip(sources, shares, strict=True))
    pairs.insert(0, pairs.pop(shares.index(max(shares))))
    return pairs


class SpreadHalfPool2d(nn.Module):
    """A 2x2 average pool that keeps the size: of each pixel and those ``dilation`` further on, where there are such.

    Args:
        dilation: how far on.
    """

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``batch x channels x h x w`` to the same."""
        step = self.dilation  # slices end at the border by themselves, where an image is smaller than the step
        x = (x + torch.cat([x[:, :, step:], x[:, :, -step:]], 2)) / 2
        return (x + torch.cat([x[..., step:], x[..., -step:]], 3)) / 2
