"""Collapse: from a cell as it is trained to the program that computes the same with fewer, larger operations.

The cell is walked once. A value that is linear in values computed before is not computed but kept as a `Form`: a sum of
linear maps of them, and a constant. Norms, factors, identities and further convolutions change the form; what reads the
form has it computed, one convolution for all maps that read one value.

A convolution of a convolution is one map only where that is the same function at the borders too: each window pads its
own input with zeros, so one of the two must read single pixels, and if that is the first, it must have no constant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from timm.layers import DropPath, SqueezeExcite
from torch import Tensor, nn

from gemnet.cell import ADAPTED, RAW, Cell, NodeLayout, SpreadHalfPool2d
from gemnet.deploy.linear import LinearMap
from gemnet.deploy.program import INPUT, Instruction, Program
from gemnet.errors import GemnetError
from gemnet.operations import ACTIVATIONS, DilatedPool2d


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

    @property
    def is_value(self) -> bool:
        """Whether it is one value, but for a factor: reading it costs nothing."""
        return len(self.terms) == 1 and self.terms[0][1].scale is not None and self.constant is None

    @property
    def channels(self) -> int:
        """Its channels."""
        return self.terms[0][1].channels[1]

    def __mul__(self, scale: float) -> Form:
        constant = None if self.constant is None else self.constant * scale
        return Form(tuple((value, each * scale) for value, each in self.terms), constant)

    def __add__(self, other: Form) -> Form:
        terms = list(self.terms)
        for value, each in other.terms:
            for place, (its, mine) in enumerate(terms):
                if its == value and mine.stride == each.stride:
                    together = mine + each
                    if together.macs <= mine.macs + each.macs:
                        terms[place] = (value, together)
                        break
            else:
                terms.append((value, each))
        constants = [each for each in (self.constant, other.constant) if each is not None]
        return Form(tuple(terms), sum(constants[1:], constants[0]) if constants else None)

    def read_by(self, outer: LinearMap) -> Form | None:
        """``outer`` of it as a form; None where that is another function, or costs more than computing this first."""
        if not outer.is_pointwise and not all(inner.is_pointwise and self.constant is None for _, inner in self.terms):
            return None
        found = tuple((value, outer.after(inner)) for value, inner in self.terms)
        if sum(whole.macs for _, whole in found) > outer.macs + sum(inner.macs for _, inner in self.terms):
            return None
        return Form(found, None if self.constant is None else outer.of_constant(self.constant))


class Collapse:
    """Writes a program while a cell is walked."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.instructions: list[Instruction] = []
        self.modules: dict[str, nn.Module] = {}
        self._made: dict[tuple[str, int], int] = {}
        self._names: Counter[str] = Counter()

    def run(self, module: nn.Module, form: Form) -> Form:
        """``module`` of a form.

        Raises:
            DeployError: a module of a kind that is not known.
        """
        if isinstance(module, nn.Identity | nn.Dropout | DropPath):
            return form
        if isinstance(module, nn.Sequential):
            for part in module:
                form = self.run(part, form)
            return form
        if isinstance(module, nn.Conv2d):
            return self._linear(*_of_convolution(module), form)
        if isinstance(module, nn.BatchNorm2d):
            return self._linear(*_of_norm(module), form)
        if not isinstance(module, (*KEEP, *HOMOGENEOUS)):
            raise DeployError(
                f"a module of type {type(module).__name__} stands inside a cell. Cells are deployed that consist of "
                "convolutions, batch norms, pools and known activations."
            )
        scale = 1.0
        if isinstance(module, HOMOGENEOUS):
            form, scale = self.without_factor(form)
        value = self.value(form)
        key = (repr(module), value)
        if isinstance(module, SqueezeExcite) or key not in self._made:
            self._made[key] = self._write((value,), module=self._named(module))
        return Form(((self._made[key], LinearMap.factor(form.channels, scale)),))

    def _linear(self, outer: LinearMap, constant: Tensor | None, form: Form) -> Form:
        found = form.read_by(outer)
        if found is None:
            form, scale = self.without_factor(form)
            found = Form(((self.value(form), outer * scale),))
        return found if constant is None else found + Form((), constant)

    def without_factor(self, form: Form) -> tuple[Form, float]:
        """A form and a factor, the product of which is ``form``, so that fewer of its values need factors."""
        factors = [each.scale for _, each in form.terms if each.scale is not None]
        scale = max(factors) if factors else 1.0
        return (form, 1.0) if scale in (0.0, 1.0) else (form * (1 / scale), scale)

    def kept(self, form: Form, readers: int) -> Form:
        """The form, computed now where several read it and it takes computing."""
        if readers < 2 or form.is_value:
            return form
        form, scale = self.without_factor(form)
        return Form(((self.value(form), LinearMap.factor(form.channels, scale)),))

    def value(self, form: Form) -> int:
        """Has a form computed; returns the value."""
        constant = form.constant
        mapped = [(value, each) for value, each in form.terms if each.scale is None]
        plain = [(value, each.scale) for value, each in form.terms if each.scale is not None]
        if constant is not None and not mapped:
            value, scale = plain.pop()
            mapped = [(value, LinearMap.factor(form.channels, scale).in_groups(form.channels))]
        reads, factors = [], []
        for value, each in mapped:
            reads.append(self._write((value,), module=self._named(each.build(constant, self.like), "conv")))
            factors.append(1.0)
            constant = None
        for value, scale in sorted(plain, key=lambda pair: -pair[1]):
            reads.append(value)
            factors.append(scale)
        if len(reads) == 1 and factors[0] == 1:
            return reads[0]
        return self._write(tuple(reads), factors=tuple(factors), fresh=bool(mapped))

    def join(self, forms: Iterable[Form]) -> Form:
        """The channels of several forms, one after another."""
        forms = tuple(forms)
        value = self._write(tuple(self.value(form) for form in forms))
        return Form(((value, LinearMap.factor(sum(form.channels for form in forms))),))

    def _write(
        self, reads: tuple[int, ...], module: str = "", factors: tuple[float, ...] = (), fresh: bool = False
    ) -> int:
        writes = len(self.instructions) + 1
        self.instructions.append(Instruction(reads, writes, module, factors, fresh))
        return writes

    def _named(self, module: nn.Module, label: str = "") -> str:
        if not label:
            pools = "Pool" in type(module).__name__
            label = "pool" if pools else "se" if isinstance(module, SqueezeExcite) else "act"
        self._names[label] += 1
        name = label if self._names[label] == 1 else f"{label}{self._names[label]}"
        self.modules[name] = module
        return name

    def program(self, form: Form) -> Program:
        """The program whose result is ``form``."""
        value = self.value(form)
        if not self.instructions or value != self.instructions[-1].writes:
            # Nothing to do at all, or the last thing done is not the result: say so with a sum of one.
            value = self._write((value,), factors=(1.0,))
        last = {key: place for place, step in enumerate(self.instructions) for key in step.reads}
        steps = []
        for place, step in enumerate(self.instructions):
            free = tuple(key for key, at in last.items() if at == place)
            steps.append(replace(step, release=free))
            if step.module:
                owned = free == step.reads and step.reads[0] != INPUT and self._is_new(step.reads[0])
                module = self.modules[step.module]
                if hasattr(module, "inplace"):
                    setattr(module, "inplace", owned)  # noqa: B010 - only some activations have it
        return Program(self.modules, steps)

    def _is_new(self, value: int) -> bool:
        """Whether the value is a tensor of its own that no other value shares."""
        return self.instructions[value - 1].module != "" or self.instructions[value - 1].factors != (1.0,)


HOMOGENEOUS = (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, DilatedPool2d, SpreadHalfPool2d)
"""What gives a multiple of the result for a positive multiple of its input."""
KEEP = (SqueezeExcite, *ACTIVATIONS.values())


def _of_convolution(conv: nn.Conv2d) -> tuple[LinearMap, Tensor | None]:
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str) or len(set(conv.stride)) > 1:
        raise DeployError(f"a convolution {conv} has padding or strides that cells don't have.")
    return LinearMap.of_convolution(conv), None if conv.bias is None else conv.bias.detach().double()


def _of_norm(norm: nn.BatchNorm2d) -> tuple[LinearMap, Tensor]:
    if norm.running_mean is None or norm.running_var is None:
        raise DeployError(f"a norm {norm} keeps no statistics, and can't be folded. Build it with track_running_stats.")
    factors = (norm.running_var.double() + norm.eps).rsqrt()
    offset = -norm.running_mean.double() * factors
    if norm.affine:
        factors, offset = factors * norm.weight.detach().double(), offset * norm.weight.detach().double()
        offset = offset + norm.bias.detach().double()
    return LinearMap.of_factors(factors), offset


def collapse_layers(layers: nn.Module) -> Program:
    """The program of layers that follow one another, such as those of a stem."""
    first = next(layers.parameters(), torch.zeros(()))
    channels = next((module.in_channels for module in layers.modules() if isinstance(module, nn.Conv2d)), 1)
    writer = Collapse(first)
    return writer.program(writer.run(layers, Form(((INPUT, LinearMap.factor(channels)),))))


def collapse_cell(cell: Cell) -> Program:
    """The program of a cell in eval mode."""
    layout = cell.layout
    writer = Collapse(next(cell.parameters(), torch.zeros(())))
    x = Form(((INPUT, LinearMap.factor(layout.in_channels)),))
    readers = Counter(key for node in layout.nodes for key in node.sources or (node.zeros_like,))
    raw = writer.kept(x if cell.expand is None else writer.run(cell.expand, x), readers[RAW] + layout.adapts)
    forms = {RAW: raw}
    if cell.adapter is not None:
        forms[ADAPTED] = writer.kept(writer.run(cell.adapter, raw), readers[ADAPTED])
    form = raw
    for node in layout.nodes:
        form = _read(writer, cell, node, forms)
        if node.operation is not None:
            form = writer.run(cell.operations[str(node.node)], form)
            forms[node.node] = form = writer.kept(form, readers[node.node])
    for module in (cell.se, cell.project):
        form = form if module is None else writer.run(module, form)
    if cell.shortcut is not None:
        form = form + writer.run(cell.shortcut, x)
    if cell.final_act is not None:
        form = writer.run(cell.final_act, form)
    return writer.program(form)


def _read(writer: Collapse, cell: Cell, node: NodeLayout, forms: dict[int, Form]) -> Form:
    """What a node reads, aggregated."""
    if not node.sources:
        zeros = forms[node.zeros_like] * 0.0
        return zeros
    read = [forms[source] for source in node.sources]
    if len(read) == 1:
        return read[0] * (node.shares[0] if node.shares else 1.0)
    if str(node.node) in cell.edge_weights:
        shares = torch.sigmoid(cell.edge_weights[str(node.node)].detach().double()).tolist()
    elif node.shares:
        shares = list(node.shares)
    else:
        return writer.join(read)
    total = read[0] * shares[0]
    for form, share in zip(read[1:], shares[1:], strict=True):
        total = total + form * share
    return total
