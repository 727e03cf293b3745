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

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from typing import Any, NamedTuple

from torch import nn

from gemnet.errors import OperationError, nearest
from gemnet.layers import ACTIVATIONS, LINEAR, Cost, Layer, Steps

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
_CONVOLUTIONS = ("conv", "dw", "sep")


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
                chain = takewhile(lambda each: each.kind in LINEAR, self.steps[place + 1 :])
                return max(place + 1 + number for number, each in enumerate(chain) if each.kernel > 1)
            if step.kind in (*_CONVOLUTIONS, "avg_pool", "max_pool"):
                return place
        return None

    @property
    def can_widen(self) -> bool:
        """Whether a step of it can change the number of channels."""
        return any(step.kind in ("conv", "sep") for step in self.steps)

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
            stride: 1 or 2; 4 in a stem.
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
        chain, striding = _Chain(in_channels, dilation, dilates), self._striding
        for place, (kind, kernel, own, group_width) in enumerate(self.steps):
            window = {"kernel": kernel, "own": own, "stride": stride if place == striding else 1}
            channels = chain.channels
            if kind == "conv":
                chain.add("conv", "conv", out_channels, groups_of(group_width, channels, out_channels), **window)
            elif kind == "dw":
                chain.add("conv", "conv_dw", channels, channels, **window)
            elif kind == "sep":
                chain.add("conv", "conv_dw", channels, channels, **window)
                chain.add("conv", "conv_pw", out_channels)
            elif kind in ("avg_pool", "max_pool"):
                chain.add(kind, "pool", channels, **window)
            elif kind in ("bn", "pad"):
                chain.add(kind, kind, channels)
            else:
                chain.add(activation if kind == "act" else kind, "act", channels)
        return _padded_once(chain.layers)

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


class _Chain:
    """Layers, each of which reads the one before.

    Args:
        channels: read by the first.
        dilation: factor on the windows' own dilation, so far.
        dilates: whether strides are not taken, but spread the windows that come after them.
    """

    def __init__(self, channels: int, dilation: int, dilates: bool) -> None:
        self.channels, self.dilation, self.dilates = channels, dilation, dilates
        self.layers: list[Layer] = []
        self._seen: Counter[str] = Counter()

    def add(
        self, kind: str, label: str, out: int, groups: int = 1, *, kernel: int = 1, own: int = 1, stride: int = 1
    ) -> None:
        """Adds a layer.

        Args:
            kind: see `Layer`.
            label: its name, which gets a number from the second time on.
            out: channels it writes.
            groups: of a convolution.
            kernel: side of its window.
            own: its window's own dilation.
            stride: step of its window, taken or spread.
        """
        self._seen[label] += 1
        name = label if self._seen[label] == 1 else f"{label}{self._seen[label]}"
        spread = own * self.dilation if kernel > 1 else 1
        taken = 1 if self.dilates else stride
        self.layers.append(Layer(kind, name, self.channels, out, kernel, taken, spread, groups))
        self.dilation *= stride if self.dilates else 1
        self.channels = out


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
        chain = list(takewhile(lambda each: each.kind in LINEAR, steps[place + 1 :]))
        even = any(each.kernel % 2 == 0 for each in chain)
        if even or all(each.kernel == 1 for each in chain) or any(each.kind == "pad" for each in chain):
            raise OperationError(
                f"Operation {name!r}: 'pad' stands before linear steps with odd windows, which are padded once, as in "
                "'pad_conv1x1_bn_conv3x3_bn_act'" + ("; a window of an even side pads for itself." if even else ".")
            )
