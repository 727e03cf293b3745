"""The vocabulary of node operations: a name is read once and says everything.

An operation's name is the list of its steps in the order in which they run, joined by ``_``:

    conv3x3  dense convolution            dw3x3   depthwise convolution
    sep3x3   depthwise, then 1x1          avg_pool_3x3, max_pool_3x3
    bn       batch normalisation          act     the network's activation
    relu relu6 hswish silu gelu           that activation, whatever the network's is
    pad                                   begins a chain that is padded once, see below
    identity, none                        alone: pass on, contribute nothing

So ``dw5x5_bn_act`` normalises after the convolution and ``relu_conv3x3_bn`` activates before it. ``conv3x3d2`` is
dilated by 2; ``conv3x3w16`` has groups of 16 channels, or the next wider ones that divide all channels evenly. Padding
keeps the size, convolutions have no bias (a norm carries it). Windows have odd sides, but for ``conv2x2`` and other
even ones, which begin at their pixel: with a stride of their own side they cut the image into patches. The first
windowed step (convolution or pool) takes the stride, the first dense one (conv, sep) takes the change of width.

Each window pads its own input, and average pools leave out what lies outside the image. So two windows in a row are not
one larger window at the borders, and stay two when a network is deployed. The linear steps after ``pad``, up to the
first that is not, are: all zeros that they need are put around the image where they begin, and average pools count
them. In such a chain the last window of more than a pixel takes the stride. ``pad_conv1x1_bn_conv3x3_bn_act`` trains
two convolutions that are deployed as one.
"""

from __future__ import annotations

import math
import re
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gemnet.errors import OperationError, nearest

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hswish": nn.Hardswish,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}

KNOWN_OPERATIONS = (
    *(f"dw{k}x{k}_bn_act" for k in (3, 5, 7)),
    *(f"dw{k}x{k}_bn" for k in (3, 5, 7)),
    *(f"conv{k}x{k}_bn_{act}" for k in (1, 3, 5, 7) for act in ("act", "relu")),
    *(f"conv{k}x{k}_bn" for k in (1, 3, 5, 7)),
    *(f"conv{k}x{k}_bn{act}" for k in (2, 4) for act in ("", "_act")),
    *(f"conv3x3w{w}_bn{act}" for w in (8, 16, 32, 64) for act in ("", "_act")),
    *(f"sep{k}x{k}_bn_act" for k in (3, 5)),
    *(f"relu_conv{k}x{k}_bn" for k in (1, 3)),
    *(f"relu_sep{k}x{k}_bn" for k in (3, 5)),
    *(f"pad_{first}_bn_conv3x3_bn{act}" for first in ("conv1x1", "conv3x3", "dw3x3") for act in ("", "_act")),
    *(f"pad_avg_pool_3x3_conv1x1_bn{act}" for act in ("", "_act")),
    "avg_pool_3x3",
    "max_pool_3x3",
    "bn",
    "bn_relu",
    "bn_act",
    "act",
    "identity",
    "none",
)
"""Names for suggestions; any name the grammar allows is an operation."""

_TOKEN = re.compile(
    r"(?P<window>conv|dw|sep|avg_pool_|max_pool_)(?P<kernel>\d+)x(?P<other>\d+)(?:d(?P<dilation>\d+))?(?:w(?P<group>\d+))?"
    r"|(?P<plain>bn|act|pad|" + "|".join(sorted(ACTIVATIONS, key=len, reverse=True)) + r")"
)
_MAX_KERNEL = 15
_MAX_DILATION = 8
_MAX_GROUP_WIDTH = 4096
_MAX_STEPS = 8
_IN_PLACE = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU)
_CONVOLUTIONS = ("conv", "dw", "sep")
_LINEAR = ("conv", "dw", "sep", "avg_pool", "bn", "pad")


class NarrowStridedConv2d(nn.Conv2d):
    """A 1x1 convolution with a stride, of fewer than 16 channels.

    oneDNN's gradient of its weights writes past its buffer in channels_last
    (https://github.com/uxlfoundation/oneDNN/issues/6035): processes die, or weights go wrong. Leaving the skipped
    pixels out first is the same function and goes another way.
    """

    def forward(self, input: Tensor) -> Tensor:  # torch's own name
        """``batch x in_channels x h x w`` to ``batch x out_channels x ceil(h / stride) x ceil(w / stride)``."""
        if torch.is_grad_enabled():
            picked = input[:, :, :: self.stride[0], :: self.stride[1]]
            return F.conv2d(picked, self.weight, self.bias, groups=self.groups)
        return self._conv_forward(input, self.weight, self.bias)


class EndPaddedConv2d(nn.Conv2d):
    """A convolution of an even window, which begins at its pixel and is padded with zeros where it leaves the image."""

    def forward(self, input: Tensor) -> Tensor:  # torch's own name
        """``batch x in_channels x h x w`` to ``batch x out_channels x ceil(h / stride) x ceil(w / stride)``."""
        missing = [
            (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size
            for size, kernel, stride, dilation in zip(
                input.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True
            )
        ]
        if any(type(each) is not int or each != 0 for each in missing):  # sizes of an export may be symbols
            input = F.pad(input, [0, missing[1], 0, missing[0]])
        return self._conv_forward(input, self.weight, self.bias)


class DilatedPool2d(nn.Module):
    """A 3x3 pool (or larger) whose window is spread, of stride 1; what lies outside the image counts for nothing.

    `nn.AvgPool2d` knows no dilation, and `nn.MaxPool2d` no padding as wide as a spread window needs.

    Args:
        kind: ``avg_pool`` or ``max_pool``.
        kernel: side of the window.
        dilation: spread of the window.
        pads: whether it has a margin around the image; if not, it writes only where the whole window is inside.
    """

    def __init__(self, kind: str, kernel: int, dilation: int, pads: bool = True) -> None:
        super().__init__()
        self.kind, self.kernel, self.dilation, self.pads = kind, kernel, dilation, pads

    def forward(self, x: Tensor) -> Tensor:
        """``batch x channels x h x w`` to the same, or less where it does not pad."""
        reach = self.dilation * (self.kernel - 1)
        margin = [reach // 2 if self.pads else 0] * 4
        if self.kind == "max_pool":
            return F.max_pool2d(F.pad(x, margin, value=-math.inf), self.kernel, 1, dilation=self.dilation)
        total, count = F.pad(x, margin), F.pad(torch.ones_like(x[:1, :1]), margin)
        for dim in (2, 3):
            size, places = total.shape[dim] - reach, range(0, reach + 1, self.dilation)
            total, count = (
                torch.stack([each.narrow(dim, at, size) for at in places]).sum(0) for each in (total, count)
            )
        return total / count

    def extra_repr(self) -> str:
        """For printing."""
        return f"{self.kind}, kernel={self.kernel}, dilation={self.dilation}"


class Steps(nn.Sequential):
    """The layers of an operation, one after another.

    `timm.utils.reparameterize_model` knows `fuse`, and so prepares a whole trained network, or one inside a detector,
    for inference.
    """

    def fuse(self) -> nn.Sequential:
        """The same function with every norm that follows a convolution folded into it, for inference.

        A norm with fixed statistics is a factor and an offset for each channel, which a convolution can have in its
        weights and a bias: one pass over memory less for each.

        Raises:
            OperationError: the module is in training mode, where statistics are the batch's.
        """
        if self.training:
            raise OperationError("Norms are folded for inference only. Call model.eval() first.")
        fused: OrderedDict[str, nn.Module] = OrderedDict()
        for name, module in self.named_children():
            last = next(reversed(fused), "")
            before = fused.get(last)
            if isinstance(module, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
                fused[last] = fuse_conv_bn_eval(before, module)
            else:
                fused[name] = module
        return nn.Sequential(fused).eval()


class Cost(NamedTuple):
    """What something costs for one image.

    Args:
        macs: multiply-adds of convolutions and linear layers.
        params: parameters.
        traffic: numbers that layers read and write; weights are not among them.
        passes: layers that run. On a processor, most of a small network's time goes into these two.
    """

    macs: int = 0
    params: int = 0
    traffic: int = 0
    passes: int = 0

    def __add__(self, other: object) -> Cost:
        if not isinstance(other, Cost):
            return NotImplemented
        return Cost(*(mine + its for mine, its in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Layer:
    """One layer of an operation, with its sizes settled.

    Args:
        kind: ``conv``, ``avg_pool``, ``max_pool``, ``bn``, ``pad`` or the name of an activation.
        name: attribute name inside the module.
        in_channels: channels read.
        out_channels: channels written.
        kernel: side of the window; of ``pad``, that of the window which its zeros are for.
        stride: step of the window.
        dilation: spread of the window.
        groups: groups of a convolution.
        pads: whether it pads its input; what stands in a chain that is padded once does not.
    """

    kind: str
    name: str
    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    pads: bool = True

    @property
    def is_linear(self) -> bool:
        """Whether what it writes is linear in what it reads, at inference, and an offset."""
        return self.kind in _LINEAR

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros before and after each row and column; after it, those that a stride of 1 needs."""
        if not self.pads:
            return (0, 0)
        reach = self.dilation * (self.kernel - 1)
        return (reach // 2, reach // 2) if self.kernel % 2 else (0, reach)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) after this layer."""
        return -(-size[0] // self.stride), -(-size[1] // self.stride)

    def cost(self, size: tuple[int, int]) -> Cost:
        """Cost on an input of ``size`` (height, width). Norms, activations and pools have no MACs."""
        pixels = math.prod(self.output_size(size))
        traffic = self.in_channels * math.prod(size) + self.out_channels * pixels
        if self.kind == "conv":
            weights = self.kernel * self.kernel * (self.in_channels // self.groups) * self.out_channels
            return Cost(weights * pixels, weights, traffic, 1)
        return Cost(0, 2 * self.out_channels if self.kind == "bn" else 0, traffic, 1)

    def build(self, after_window: bool, dd: dict[str, Any]) -> nn.Module:
        """The module. ``after_window``: the input is nobody else's, so an activation may overwrite it."""
        padding = self.padding[0]
        if self.kind == "pad":
            return nn.ZeroPad2d(padding)
        if self.kind == "conv":
            convolution: type[nn.Conv2d] = nn.Conv2d
            if self.kernel % 2 == 0:
                convolution = EndPaddedConv2d
            elif self.kernel == 1 and self.stride > 1 and self.in_channels < 16:
                convolution = NarrowStridedConv2d
            return convolution(
                self.in_channels,
                self.out_channels,
                self.kernel,
                self.stride,
                padding,
                self.dilation,
                self.groups,
                bias=False,
                **dd,
            )
        if self.kind in ("avg_pool", "max_pool") and self.dilation > 1:
            return DilatedPool2d(self.kind, self.kernel, self.dilation, self.pads)
        if self.kind == "avg_pool":
            return nn.AvgPool2d(self.kernel, self.stride, padding, count_include_pad=False)
        if self.kind == "max_pool":
            return nn.MaxPool2d(self.kernel, self.stride, padding)
        if self.kind == "bn":
            return nn.BatchNorm2d(self.out_channels, **dd)
        return build_activation(self.kind, inplace=after_window)


class Step(NamedTuple):
    """One step of an operation's name.

    Args:
        kind: ``conv``, ``dw``, ``sep``, ``avg_pool``, ``max_pool``, ``bn``, ``pad``, ``act`` or the name of an
            activation.
        kernel: side of the window.
        dilation: spread of the window.
        group_width: least number of channels in a group of a dense convolution; 0 for a single group of all.
    """

    kind: str
    kernel: int = 1
    dilation: int = 1
    group_width: int = 0


@dataclass(frozen=True)
class Operation:
    """A parsed operation name.

    Args:
        name: the name.
        steps: in order; empty for ``identity`` and ``none``.
    """

    name: str
    steps: tuple[Step, ...]

    @property
    def is_none(self) -> bool:
        """Whether the operation contributes nothing."""
        return self.name == "none"

    @property
    def is_identity(self) -> bool:
        """Whether the operation passes on what it reads."""
        return self.name == "identity"

    @property
    def first_kind(self) -> str:
        """Kind of the first step that is no activation or pad, such as ``conv``; "" where there is none."""
        return next((step.kind for step in self.steps if step.kind not in ("act", "pad", *ACTIVATIONS)), "")

    @property
    def collapse(self) -> str:
        """What may collapse around it when it is deployed.

        ``none``: nothing, its convolution reads a value that is there and an activation or a pool ends it;
        ``window``: it ends with one depthwise window, which can be added to others; ``any``: anything else.
        """
        kinds = [step.kind for step in self.steps]
        alone = [
            kind
            for place, kind in enumerate(kinds)
            if kind == "bn" and (place == 0 or kinds[place - 1] not in _CONVOLUTIONS)
        ]
        ends = kinds[next((n for n in range(len(kinds), 0, -1) if kinds[n - 1] not in (*_CONVOLUTIONS, "bn")), 0) :]
        if alone or "pad" in kinds or sum(kind in _CONVOLUTIONS for kind in kinds) > 1:
            return "any"
        if not ends:
            return "none"
        return "window" if ends[0] == "dw" else "any"

    @property
    def can_stride(self) -> bool:
        """Whether a step of it can take a stride."""
        return self._striding is not None

    @property
    def _striding(self) -> int | None:
        """Number of the step that takes the stride: the first windowed one, in a padded chain the last larger one."""
        for place, step in enumerate(self.steps):
            if step.kind == "pad":
                chain = takewhile(lambda each: each.kind in _LINEAR, self.steps[place + 1 :])
                return max(place + 1 + number for number, each in enumerate(chain) if each.kernel > 1)
            if step.kind in (*_CONVOLUTIONS, "avg_pool", "max_pool"):
                return place
        return None

    @property
    def can_widen(self) -> bool:
        """Whether a step of it can change the number of channels."""
        return any(step.kind in ("conv", "sep") for step in self.steps)

    @property
    def is_linear(self) -> bool:
        """Whether what it writes is linear in what it reads, at inference, and an offset."""
        return not self.is_none and all(step.kind in _LINEAR for step in self.steps)

    def layers(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        dilation: int = 1,
        activation: str = "relu",
        dilates: bool = False,
    ) -> tuple[Layer, ...]:
        """The layers in order.

        Args:
            in_channels: channels read.
            out_channels: channels written.
            stride: 1 or 2.
            dilation: factor on every window's own dilation.
            activation: what ``act`` means.
            dilates: whether the stride is not taken, but spreads the windows that come after it: what comes out is
                as large as what goes in, and every ``stride``-th pixel of it is what would have come out.

        Raises:
            OperationError: the operation can't take this stride or change of width.
        """
        if self.is_none:
            raise OperationError("Operation 'none' has no layers; leave its node out of the network.")
        if stride != 1 and not self.can_stride:
            raise OperationError(f"Operation {self.name!r} can't take stride {stride}; it has no convolution or pool.")
        if in_channels != out_channels and not self.can_widen:
            raise OperationError(
                f"Operation {self.name!r} can't turn {in_channels} channels into {out_channels}; "
                "it has no dense convolution."
            )
        layers: list[Layer] = []
        seen: Counter[str] = Counter()
        channels, striding = in_channels, self._striding

        def add(
            kind: str, label: str, out: int, kernel: int = 1, spread: int = 1, groups: int = 1, step: int = 1
        ) -> None:
            nonlocal channels, dilation
            seen[label] += 1
            name = label if seen[label] == 1 else f"{label}{seen[label]}"
            layers.append(Layer(kind, name, channels, out, kernel, 1 if dilates else step, spread, groups))
            dilation *= step if dilates else 1
            channels = out

        for place, (kind, kernel, own, group_width) in enumerate(self.steps):
            spread = own * dilation if kernel > 1 else 1
            step = stride if place == striding else 1
            if kind == "conv":
                groups = groups_of(group_width, channels, out_channels)
                add("conv", "conv", out_channels, kernel, spread, groups, step)
            elif kind == "dw":
                add("conv", "conv_dw", channels, kernel, spread, channels, step)
            elif kind == "sep":
                add("conv", "conv_dw", channels, kernel, spread, channels, step)
                add("conv", "conv_pw", out_channels)
            elif kind in ("avg_pool", "max_pool"):
                add(kind, "pool", channels, kernel, spread, step=step)
            elif kind in ("bn", "pad"):
                add(kind, kind, channels)
            else:
                add(activation if kind == "act" else kind, "act", channels)
        return _padded_once(layers)

    def build(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        dilation: int = 1,
        activation: str = "relu",
        dd: dict[str, Any] | None = None,
        dilates: bool = False,
    ) -> nn.Module:
        """The module; arguments and errors as `layers`, ``dd`` holds ``device`` and ``dtype``."""
        module = Steps()
        layers = self.layers(in_channels, out_channels, stride, dilation, activation, dilates)
        for place, layer in enumerate(layers):
            after_window = place > 0 and layers[place - 1].kind in ("conv", "bn", "avg_pool", "max_pool")
            module.add_module(layer.name, layer.build(after_window, dd or {}))
        if not layers:
            return nn.Identity()
        return module

    def cost(self, in_channels: int, out_channels: int, size: tuple[int, int], stride: int = 1) -> Cost:
        """Cost on an input of ``size`` (height, width): parameters of the module of `build`, all else as deployed.

        A norm is part of the convolution before it, or without one a depthwise convolution of single pixels.
        """
        total = Cost()
        before = ""
        for layer in self.layers(in_channels, out_channels, stride):
            own = layer.cost(size)
            if layer.kind == "bn":
                own = own._replace(macs=own.traffic // 2) if before not in ("conv", "bn") else Cost(params=own.params)
            total += own
            size = layer.output_size(size)
            before = layer.kind
        return total


def _padded_once(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers with every pad as wide as its chain needs, whose layers then have none of their own."""
    found: list[Layer] = []
    start: int | None = None
    for layer in layers:
        if layer.kind == "pad":
            start, step = len(found), 1
        elif not layer.is_linear:
            start = None
        if start is not None and layer.kind != "pad":
            reach = step * layer.dilation * (layer.kernel - 1)
            step *= layer.stride
            found[start] = replace(found[start], kernel=found[start].kernel + reach)
            layer = replace(layer, pads=False)
        found.append(layer)
    return tuple(found)


def groups_of(width: int, in_channels: int, out_channels: int) -> int:
    """Groups of a convolution: the most that divide both channel counts into groups of at least ``width`` each.

    Args:
        width: least channels of a group, on either side; 0 for a single group.
        in_channels: channels read.
        out_channels: channels written.
    """
    most = min(in_channels, out_channels) // width if width else 1
    return next((n for n in range(most, 1, -1) if in_channels % n == 0 and out_channels % n == 0), 1)


def build_activation(name: str, inplace: bool = False) -> nn.Module:
    """An activation by its name in `ACTIVATIONS`.

    Raises:
        OperationError: the name is unknown.
    """
    if name not in ACTIVATIONS:
        raise OperationError(f"Unknown activation {name!r}.{nearest(name, ACTIVATIONS)}")
    kind = ACTIVATIONS[name]
    return kind(inplace=True) if inplace and kind in _IN_PLACE else kind()


@lru_cache(maxsize=4096)
def parse_operation(name: str) -> Operation:
    """Reads an operation's name.

    Raises:
        OperationError: the grammar does not allow the name; the message has the nearest name that exists.
    """
    if name in ("identity", "none"):
        return Operation(name, ())
    steps: list[Step] = []
    at = 0
    while isinstance(name, str):
        match = _TOKEN.match(name, at)
        if match is None:
            break
        end = match.end()
        if match["plain"]:
            steps.append(Step(match["plain"]))
        else:
            kind, kernel, dilation = match["window"].rstrip("_"), int(match["kernel"]), int(match["dilation"] or 1)
            group_width = int(match["group"] or 0)
            if match["kernel"] != match["other"]:
                break
            if match["dilation"] and kind.endswith("_pool"):
                raise OperationError(f"Operation {name!r}: a pool has no dilation, got {match[0]!r}.")
            if match["group"] and (kind != "conv" or not 1 <= group_width <= _MAX_GROUP_WIDTH):
                raise OperationError(
                    f"Operation {name!r}: groups are for 'conv', 1 to {_MAX_GROUP_WIDTH} channels each, got "
                    f"{match[0]!r}."
                )
            even = kernel % 2 == 0
            if not 1 <= kernel <= _MAX_KERNEL or (even and kind != "conv") or not 1 <= dilation <= _MAX_DILATION:
                raise OperationError(
                    f"Operation {name!r}: a window has an odd side of at most {_MAX_KERNEL} (of 'conv' also an even "
                    f"one) and a dilation of 1 to {_MAX_DILATION}, got {match[0]!r}."
                )
            steps.append(Step(kind, kernel, dilation, group_width))
        if end == len(name) and len(steps) <= _MAX_STEPS:
            _check_pads(name, steps)
            return Operation(name, tuple(steps))
        if end < len(name) and name[end] != "_":
            break
        at = end + 1
    raise OperationError(
        f"Unknown operation {name!r}.{nearest(str(name), KNOWN_OPERATIONS)} A name lists its steps, joined by '_': "
        "conv3x3, dw5x5, sep3x3, avg_pool_3x3, max_pool_3x3, bn, act, relu, pad, ...; or is 'identity' or 'none'."
    )


def _check_pads(name: str, steps: Sequence[Step]) -> None:
    """Whether every pad begins a chain of linear steps, with odd windows.

    Raises:
        OperationError: one does not.
    """
    for place, step in enumerate(steps):
        if step.kind != "pad":
            continue
        chain = list(takewhile(lambda each: each.kind in _LINEAR, steps[place + 1 :]))
        even = any(each.kernel % 2 == 0 for each in chain)
        if even or all(each.kernel == 1 for each in chain) or any(each.kind == "pad" for each in chain):
            raise OperationError(
                f"Operation {name!r}: 'pad' stands before linear steps with odd windows, which are padded once, as in "
                "'pad_conv1x1_bn_conv3x3_bn_act'" + ("; a window of an even side pads for itself." if even else ".")
            )
