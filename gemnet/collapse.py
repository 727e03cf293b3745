"""Collapse: from a cell as it is trained to the program that computes the same with fewer, larger operations.

The cell is walked once. A value that is linear in values computed before is not computed but kept as a `Form`: a sum of
linear maps of them, and a constant. Norms, factors, identities and further convolutions change the form; what reads the
form has it computed, one convolution for all maps that read one value, where that takes no longer than one for each
(`LinearMap.price`). A factor goes past what gives a multiple of the result for a multiple of its input.

A convolution of a convolution is one map only where that is the same function at the borders too: each window pads its
own input with zeros, so one of the two must read single pixels, and if that is the first, it must have no constant.
Only what an operation pads once (see `gemnet.operations`) is one map whatever its windows.

What is walked are modules, with their weights, or the `Layer`s of a network that is not built, for what it will cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from timm.layers import DropPath, SqueezeExcite
from torch import Tensor, nn

from gemnet.cell import ADAPTED, RAW, Cell, CellLayout, SpreadHalfPool2d, aggregation
from gemnet.errors import GemnetError
from gemnet.layers import ACTIVATIONS, DilatedPool2d, Layer, changed
from gemnet.linear_map import PASS, LinearMap
from gemnet.operations import parse_operation
from gemnet.program import INPUT, Instruction, Program

Part = nn.Module | Layer | Sequence[Layer]
"""A module, or what it is made of."""

_UNKNOWN = torch.zeros(())
"""A constant of which nothing is known."""


class DeployError(GemnetError):
    """A model that can't be deployed. The message names the module."""


@dataclass(frozen=True)
class Form:
    """A value that is linear in others.

    Args:
        terms: (value, map) of each summand.
        constant: added to it, a number a channel; None for none.
    """

    terms: tuple[tuple[int, LinearMap], ...]
    constant: Tensor | None = None

    @classmethod
    def of(cls, value: int, channels: int, scale: float = 1.0) -> Form:
        """A value, or a multiple of it."""
        return cls(((value, LinearMap.factor(channels, scale)),))

    @property
    def is_value(self) -> bool:
        """Whether it is one value, but for a factor: reading it costs nothing."""
        return len(self.terms) == 1 and self.terms[0][1].scale is not None and self.constant is None

    @property
    def channels(self) -> int:
        """Its channels."""
        return self.terms[0][1].channels[1]

    @property
    def macs(self) -> int:
        """Multiply-adds of computing it, for a pixel."""
        return sum(each.macs for _, each in self.terms)

    @property
    def price(self) -> int:
        """What computing it takes for a pixel, in multiply-adds."""
        return sum(each.price for _, each in self.terms) + (len(self.terms) - 1) * PASS * self.channels

    def __mul__(self, scale: float) -> Form:
        if scale == 1:
            return self
        constant = None if self.constant is None else self.constant * scale
        return Form(tuple((value, each * scale) for value, each in self.terms), constant)

    def __truediv__(self, scale: float) -> Form:
        constant = None if self.constant is None else self.constant / scale
        return Form(tuple((value, each / scale) for value, each in self.terms), constant)

    def __add__(self, other: Form) -> Form:
        terms = list(self.terms)
        for value, each in other.terms:
            at, place = len(terms), 0
            while place < len(terms):
                its, mine = terms[place]
                if its == value and mine.stride == each.stride:
                    together = mine + each
                    if together.price <= mine.price + each.price + PASS * each.channels[1]:
                        del terms[place]
                        at, each, place = min(at, place), together, 0  # which may now go with another
                        continue
                place += 1
            terms.insert(at, (value, each))
        return Form(tuple(terms), self.constant).plus(other.constant)

    def plus(self, constant: Tensor | None) -> Form:
        """With something added to its constant."""
        if constant is None:
            return self
        return Form(self.terms, constant if self.constant is None else self.constant + constant)

    def read_by(self, outer: LinearMap) -> Form | None:
        """``outer`` of it as a form; None where that is another function, or takes longer than computing this first."""
        through = all(inner.is_pointwise for _, inner in self.terms) and self.constant is None
        if not outer.is_pointwise and not through:
            return None
        constant = None if self.constant is None else outer.of_constant(self.constant)
        whole = Form(tuple((value, outer.after(inner)) for value, inner in self.terms), constant)
        if len(self.terms) > 1 and whole.macs > outer.macs + self.macs:
            return None  # one convolution of the sum, not one of each summand
        return whole if whole.price <= outer.price + self.price else None


class Collapse:
    """Writes a program while a cell is walked.

    Args:
        like: a weight, of the device and type that the program's are to have; None to write no modules.
    """

    def __init__(self, like: Tensor | None) -> None:
        self.like = like
        self.instructions: list[Instruction] = []
        self.modules: dict[str, nn.Module] = {}
        self._reductions = {INPUT: 1}
        self._made: dict[tuple[Layer, tuple[int, ...], tuple[float, ...]], int] = {}
        self._names: Counter[str] = Counter()

    def run(self, part: Part | None, form: Form) -> Form:
        """What a part makes of a form.

        Raises:
            DeployError: a module of a kind that is not known.
        """
        if part is None or isinstance(part, nn.Identity | nn.Dropout | DropPath):
            return form
        if isinstance(part, nn.Sequential | Sequence):
            parts: list[Part] = list(part)
            while parts:
                first = parts.pop(0)
                if _pads_once(first):
                    form = self._linear(*_chain_of(parts, form.channels), form)
                else:
                    form = self.run(first, form)
            return form
        if isinstance(part, nn.Conv2d):
            return self._linear(_map_of(part), None if part.bias is None else part.bias.detach().double(), form)
        if isinstance(part, nn.BatchNorm2d | nn.SyncBatchNorm):
            return self._linear(*_folded(part), form)
        if isinstance(part, Layer) and part.kind in ("conv", "bn"):
            return self._linear(LinearMap.of_layer(part), _UNKNOWN if part.kind == "bn" else None, form)
        layer = part if isinstance(part, Layer) else _layer_of(part, form.channels)
        scale = 1.0
        if layer.kind in HOMOGENEOUS:
            form, scale = self.without_factor(form)
        value = self._write(layer, (self.value(form),), part if isinstance(part, nn.Module) else None)
        return Form.of(value, form.channels, scale)

    def _linear(self, outer: LinearMap, constant: Tensor | None, form: Form) -> Form:
        found = form.read_by(outer)
        if found is None:
            form, scale = self.without_factor(form)
            found = Form(((self.value(form), outer * scale),))
        return found.plus(constant)

    def without_factor(self, form: Form) -> tuple[Form, float]:
        """A form and a factor, the product of which is ``form``, such that fewer of its values need factors."""
        factors = [each.scale for _, each in form.terms if each.scale is not None]
        scale = max(factors) if factors else 1.0
        return (form, 1.0) if scale in (0.0, 1.0) else (form / scale, scale)

    def kept(self, form: Form, readers: int) -> Form:
        """The form, computed now where several read it and it takes computing."""
        if readers < 2 or form.is_value:
            return form
        form, scale = self.without_factor(form)
        return Form.of(self.value(form), form.channels, scale)

    def value(self, form: Form) -> int:
        """Has a form computed; returns the value."""
        constant = form.constant
        mapped = [(value, each) for value, each in form.terms if each.scale is None]
        plain = [(value, each.scale) for value, each in form.terms if each.scale is not None]
        if constant is not None and not mapped:
            value, scale = plain.pop()
            mapped = [(value, LinearMap.factor(form.channels, scale).in_groups(form.channels))]
        reads: list[int] = []
        factors = [1.0] * len(mapped)
        for value, each in mapped:
            reads.append(self._convolved(value, each, constant))
            constant = None
        for value, scale in sorted(plain, key=lambda pair: -pair[1]):
            reads.append(value)
            factors.append(scale)
        if len(reads) == 1 and factors[0] == 1:
            return reads[0]
        layer = Layer("sum", "sum", form.channels, form.channels)
        return self._write(layer, tuple(reads), None, tuple(factors), fresh=bool(mapped))

    def _convolved(self, value: int, whole: LinearMap, constant: Tensor | None) -> int:
        """Has a map of a value computed, and a constant added to it."""
        steps, margins = whole.steps, [0]
        for each in reversed(whole.steps[1:]):
            margins.insert(0, each.reach + each.stride * margins[0])
        for place, (each, margin) in enumerate(zip(steps, margins, strict=True)):
            padding = None if len(steps) == 1 else each.reach + each.stride * margin if place == 0 else 0
            bias = constant if each is steps[-1] else None
            module = None if self.like is None else each.build(bias, self.like, padding)
            value = self._write(each.layer, (value,), module, margin=margin)
        return value

    def join(self, forms: Iterable[Form]) -> Form:
        """The channels of several forms, one after another."""
        forms = tuple(forms)
        channels = sum(form.channels for form in forms)
        value = self._write(Layer("concat", "concat", channels, channels), tuple(self.value(form) for form in forms))
        return Form.of(value, channels)

    def _write(
        self,
        layer: Layer,
        reads: tuple[int, ...],
        module: nn.Module | None = None,
        factors: tuple[float, ...] = (),
        fresh: bool = False,
        margin: int = 0,
    ) -> int:
        key = (layer, reads, factors)
        if key in self._made and layer.kind not in ("conv", "se"):  # what has no weights of its own is done once
            return self._made[key]
        name = ""
        if module is not None:
            label = layer.name
            self._names[label] += 1
            name = label if self._names[label] == 1 else f"{label}{self._names[label]}"
            self.modules[name] = module
        writes = len(self.instructions) + 1
        reduction = self._reductions[reads[0]]
        self.instructions.append(Instruction(layer, reads, writes, reduction, factors, name, fresh, margin=margin))
        self._reductions[writes] = reduction * layer.stride
        self._made[key] = writes
        return writes

    def finished(self, form: Form) -> tuple[Instruction, ...]:
        """All instructions, the last of which gives ``form``."""
        value = self.value(form)
        if not self.instructions or value != self.instructions[-1].writes:
            # Nothing to do at all, or the last thing done is not the result: a sum of one says so.
            value = self._write(Layer("sum", "sum", form.channels, form.channels), (value,), None, (1.0,))
        last = {key: place for place, step in enumerate(self.instructions) for key in step.reads}
        released: dict[int, list[int]] = {}
        for key, place in last.items():
            released.setdefault(place, []).append(key)
        steps = []
        for place, step in enumerate(self.instructions):
            free = tuple(released.get(place, ()))
            steps.append(changed(step, release=free))
            module = self.modules.get(step.module)
            if hasattr(module, "inplace"):
                setattr(module, "inplace", free == step.reads and INPUT not in free)  # noqa: B010 - not all have it
        return tuple(steps)


HOMOGENEOUS = ("relu", "max_pool", "avg_pool")
"""What gives a multiple of the result for a positive multiple of its input."""


def _pads_once(part: Part) -> bool:
    """Whether a chain begins there that is padded once."""
    return isinstance(part, nn.ZeroPad2d) or (isinstance(part, Layer) and part.kind == "pad")


def _chain_of(parts: list[Part], channels: int) -> tuple[LinearMap, Tensor | None]:
    """The map of the linear parts that come first, which read ``channels``, and its constant; they are taken away."""
    whole: LinearMap | None = None
    constant: Tensor | None = None
    while parts and (found := _link_of(parts[0], channels)) is not None:
        parts.pop(0)
        outer, own = found
        whole, channels = outer if whole is None else whole.then(outer), outer.channels[1]
        constant = None if constant is None else outer.of_constant(constant)
        if own is not None:
            constant = own if constant is None else constant + own
    assert whole is not None  # as names of operations are read
    return whole, constant


def _link_of(part: Part, channels: int) -> tuple[LinearMap, Tensor | None] | None:
    """The map of a part in a chain that is padded once, and its constant; None where the chain ends."""
    if isinstance(part, Layer):
        known = part.is_linear and not _pads_once(part)
        return (LinearMap.of_layer(part), _UNKNOWN if part.kind == "bn" else None) if known else None
    if isinstance(part, nn.Conv2d):
        return LinearMap.of_convolution(part, centred=True), None if part.bias is None else part.bias.detach().double()
    if isinstance(part, nn.BatchNorm2d | nn.SyncBatchNorm):
        return _folded(part)
    if isinstance(part, nn.AvgPool2d | DilatedPool2d):
        layer = _layer_of(part, channels)
        return (LinearMap.of_average(layer), None) if layer.kind == "avg_pool" else None
    return None


def _map_of(conv: nn.Conv2d) -> LinearMap:
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str) or len(set(conv.stride)) > 1:
        raise DeployError(f"a convolution has padding or strides that cells don't have: {conv}.")
    return LinearMap.of_convolution(conv)


def _folded(norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> tuple[LinearMap, Tensor]:
    if norm.running_mean is None or norm.running_var is None:
        raise DeployError("a norm keeps no statistics and can't be folded; build it with track_running_stats=True.")
    factors = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        factors = factors * norm.weight.detach().double()
    offset = -norm.running_mean.double() * factors
    return LinearMap.of_factors(factors), offset + norm.bias.detach().double() if norm.affine else offset


def _layer_of(module: nn.Module, channels: int) -> Layer:
    """What a module that is kept as it is does."""
    if isinstance(module, SqueezeExcite):
        return squeeze_layer(channels, module.fc1.out_channels)
    for name, kind in ACTIVATIONS.items():
        if type(module) is kind:
            return Layer(name, "act", channels, channels)
    if isinstance(module, nn.AvgPool2d | nn.MaxPool2d):
        kind_of_pool = "avg_pool" if isinstance(module, nn.AvgPool2d) else "max_pool"
        kernel, stride = module.kernel_size, module.stride
        if isinstance(kernel, int) and isinstance(stride, int):
            return Layer(kind_of_pool, "pool", channels, channels, kernel, stride)
    if isinstance(module, DilatedPool2d):
        return Layer(module.kind, "pool", channels, channels, module.kernel, 1, module.dilation)
    if isinstance(module, SpreadHalfPool2d):
        return Layer("avg_pool", "pool", channels, channels, 2, 1, module.dilation)
    raise DeployError(
        f"a module of type {type(module).__name__} stands in it, which can't be folded. Parts of a GEMNet that can be "
        f"deployed consist of convolutions, batch norms, pools, squeeze-excitations and {', '.join(ACTIVATIONS)}."
    )


def squeeze_layer(channels: int, squeezed: int) -> Layer:
    """A squeeze-excitation as one layer, ``groups`` standing for the channels inside."""
    return Layer("se", "se", channels, channels, groups=squeezed)


def plan_layers(layers: Sequence[Layer]) -> tuple[Instruction, ...]:
    """The instructions that layers which follow one another are deployed as, without weights."""
    writer = Collapse(None)
    return writer.finished(writer.run(layers, Form.of(INPUT, layers[0].in_channels if layers else 1)))


def collapse_layers(layers: nn.Sequential) -> Program:
    """The program of layers that follow one another, such as those of a stem."""
    like = next(layers.parameters(), torch.zeros(()))
    channels = next((module.in_channels for module in layers.modules() if isinstance(module, nn.Conv2d)), 1)
    writer = Collapse(like)
    steps = writer.finished(writer.run(layers, Form.of(INPUT, channels)))
    return Program(writer.modules, steps)


@dataclass(frozen=True)
class CellParts:
    """What stands where in a cell; see `gemnet.cell.Cell`."""

    expand: Part | None
    adapter: Part | None
    operations: Mapping[int, Part]
    squeeze: Part | None
    project: Part | None
    shortcut: Part | None
    final: Part | None
    weights: Mapping[int, Sequence[float]] = field(default_factory=dict)


def collapse_cell(cell: Cell) -> Program:
    """The program of a cell in eval mode."""
    weights = {
        int(node): torch.sigmoid(each.detach().double()).tolist() for node, each in cell.edge_weights.named_parameters()
    }
    operations = {int(node): module for node, module in cell.operations.items()}
    parts = CellParts(
        cell.expand, cell.adapter, operations, cell.se, cell.project, cell.shortcut, cell.final_act, weights
    )
    writer = Collapse(next(cell.parameters(), torch.zeros(())))
    return Program(writer.modules, _walk(writer, cell.layout, parts))


@lru_cache(maxsize=4096)
def _layers(operation: str, channels: int, out: int, stride: int, activation: str) -> tuple[Layer, ...]:
    return parse_operation(operation).layers(channels, out, stride, 1, activation)


def plan(layout: CellLayout, activation: str) -> tuple[Instruction, ...]:
    """The instructions that the cell of a layout is deployed as, without weights.

    Args:
        layout: the cell.
        activation: what ``act`` means.
    """
    spec, inner, raw, stride = layout.spec, layout.inner, layout.raw_channels, layout.stride

    def layers(name: str, channels: int, out: int, step: int = 1) -> tuple[Layer, ...]:
        return _layers(name, channels, out, step, activation)

    def half(channels: int) -> tuple[Layer, ...]:
        return (Layer("avg_pool", "pool", channels, channels, 2, 2),) if stride != 1 else ()

    shortcut: tuple[Layer, ...] | None = None
    if layout.shortcut != "none":
        shortcut, projection = (), layout.projection
        if projection is not None:
            shortcut += half(layout.in_channels) if projection.pools else ()
            shortcut += layers(projection.operation.name, layout.in_channels, layout.width, projection.stride)
    final = activation if spec.final_activation == "act" else spec.final_activation
    parts = CellParts(
        None if spec.expand is None else layers(spec.expand, layout.in_channels, inner),
        half(raw) + (layers("conv1x1_bn", raw, inner) if raw != inner else ()) if layout.adapts else None,
        {
            node.node: layers(node.operation.name, node.in_channels, inner, node.stride)
            for node in layout.nodes
            if node.operation is not None
        },
        squeeze_layer(layout.joined, layout.squeezed) if layout.squeezed else None,
        None if spec.project is None else layers(spec.project, layout.joined, layout.width),
        shortcut,
        None if final is None else Layer(final, "act", layout.width, layout.width),
        {  # learnt weights: none like another
            node.node: [0.5 + 1e-3 * node.node + 1e-5 * place for place in range(len(node.sources))]
            for node in layout.nodes
            if not node.shares
        },
    )
    return _walk(Collapse(None), layout, parts)


def _walk(writer: Collapse, layout: CellLayout, parts: CellParts) -> tuple[Instruction, ...]:
    """Writes the program of a cell, in the order of `Cell.forward`."""
    readers = Counter(key for node in layout.nodes for key in node.sources or (node.zeros_like,))
    x = Form.of(INPUT, layout.in_channels)
    raw = writer.kept(writer.run(parts.expand, x), readers[RAW] + layout.adapts)
    forms = {RAW: raw}
    if layout.adapts:
        forms[ADAPTED] = writer.kept(writer.run(parts.adapter, raw), readers[ADAPTED])
    form = raw
    for node in layout.nodes:
        read = [forms[source] for source in node.sources]
        shares = node.shares or parts.weights.get(node.node, ())
        if not read:
            form = forms[node.zeros_like] * 0.0
        elif len(read) == 1:
            form = read[0] * (node.shares[0] if node.shares else 1.0)
        elif aggregation(layout.spec, node) == "concat":
            form = writer.join(read)
        else:
            form = read[0] * shares[0]
            for each, share in zip(read[1:], shares[1:], strict=True):
                form = form + each * share
        if node.operation is not None:
            forms[node.node] = form = writer.kept(writer.run(parts.operations[node.node], form), readers[node.node])
    form = writer.run(parts.project, writer.run(parts.squeeze, form))
    if layout.shortcut != "none":
        form = form + writer.run(parts.shortcut, x)
    return writer.finished(writer.run(parts.final, form))
