"""Linear maps between images: what convolutions, norms, average pools, identities and their sums have in common.

    out[y] = sum over offsets d of blocks[d] @ in[stride * y + d]

with zeros outside the image. Maps that read the same image add up to one; a map of a map is a map. Blocks are those of
a grouped convolution, in float64, so that what is made of them is exact to float32's last digits. Without blocks a map
says what a network will cost before there is one. A map that was made of a chain remembers it: run one after another on
an image that is padded once, its maps may take less time than their one large window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gemnet.layers import EndPaddedConv2d, Layer, changed

Offset = tuple[int, int]

PASS = 16
"""Multiply-adds a channel and pixel that take as long as reading and writing an image once more, in onnxruntime's and
torch's depthwise convolutions on a CPU (`tools/measure/window_prices.py`)."""
_HERE: frozenset[Offset] = frozenset({(0, 0)})


@dataclass(frozen=True)
class LinearMap:
    """A map from an image of some channels to one of others; see the module's docstring.

    Args:
        channels: channels read and written.
        groups: groups of channels that don't mix.
        offsets: (rows, columns) of the pixels read.
        stride: of the pixels read.
        scale: the map is this factor; None for all other maps.
        blocks: ``groups x out / groups x in / groups`` for each offset; empty for a factor, or where they don't matter.
        chain: maps that do the same one after another; empty where there is nothing but the map itself.
    """

    channels: tuple[int, int]
    groups: int
    offsets: frozenset[Offset] = _HERE
    stride: int = 1
    scale: float | None = None
    blocks: Mapping[Offset, Tensor] = field(default_factory=dict, repr=False)
    chain: tuple[LinearMap, ...] = ()

    @classmethod
    def factor(cls, channels: int, scale: float = 1.0) -> LinearMap:
        """The identity times ``scale``."""
        return cls((channels, channels), channels, scale=scale)

    @classmethod
    def of_factors(cls, factors: Tensor) -> LinearMap:
        """A factor for each channel, ``channels``."""
        channels = len(factors)
        return cls((channels, channels), channels, blocks={(0, 0): factors.double()[:, None, None]})

    @classmethod
    def of_convolution(cls, conv: nn.Conv2d, centred: bool = False) -> LinearMap:
        """The convolution without its bias; ``centred``: its window is around its pixel, whatever its padding."""
        weight = conv.weight.detach().double()
        blocks = weight.unflatten(0, (conv.groups, -1))  # groups, out / groups, in / groups, rows, columns
        step, margin = conv.dilation, (int(conv.padding[0]), int(conv.padding[1]))
        if centred:
            margin = (step[0] * (weight.shape[2] // 2), step[1] * (weight.shape[3] // 2))
        taps = {
            (row * step[0] - margin[0], column * step[1] - margin[1]): blocks[..., row, column]
            for row, column in product(range(weight.shape[2]), range(weight.shape[3]))
        }
        channels = (conv.in_channels, conv.out_channels)
        return cls(channels, conv.groups, frozenset(taps), conv.stride[0], None, taps)

    @classmethod
    def of_average(cls, layer: Layer) -> LinearMap:
        """An average pool that counts the zeros around the image."""
        share = torch.full((layer.in_channels, 1, 1), layer.kernel**-2, dtype=torch.float64)
        return changed(cls.of_layer(layer), blocks=dict.fromkeys(_square(layer.kernel, layer.dilation), share))

    @classmethod
    def of_layer(cls, layer: Layer) -> LinearMap:
        """A convolution, norm or pool of which nothing but its shape is known."""
        groups = layer.groups if layer.kind == "conv" else layer.in_channels
        offsets = _square(layer.kernel, layer.dilation)
        return cls((layer.in_channels, layer.out_channels), groups, offsets, layer.stride)

    @property
    def is_pointwise(self) -> bool:
        """Whether it reads nothing but the pixel itself."""
        return self.offsets == _HERE

    @property
    def steps(self) -> tuple[LinearMap, ...]:
        """What it is run as: its chain where that takes less time, else itself."""
        return self.chain if self.chain and sum(each.price for each in self.chain) < self._price else (self,)

    @property
    def macs(self) -> int:
        """Multiply-adds of its convolutions for a pixel written; none of a factor."""
        steps = self.steps
        return self._macs if len(steps) == 1 else sum(each.macs for each in steps)

    @property
    def price(self) -> int:
        """What its convolutions take for a pixel written, in multiply-adds; nothing for a factor."""
        steps = self.steps
        return self._price if len(steps) == 1 else sum(each.price for each in steps)

    @property
    def _macs(self) -> int:
        rows, columns = _window(self.offsets).kernel
        return 0 if self.scale is not None else rows * columns * self.channels[0] * self.channels[1] // self.groups

    @property
    def _price(self) -> int:
        return 0 if self.scale is not None else self._macs + PASS * self.channels[1]

    @property
    def reach(self) -> int:
        """Pixels that its window goes beyond its own, to the side where it goes furthest."""
        return max(abs(at) for offset in self.offsets for at in offset)

    def in_groups(self, groups: int) -> LinearMap:
        """The same map, no mere factor, in fewer groups: a divisor of its own."""
        blocks: Mapping[Offset, Tensor] = self.blocks
        if self.scale is not None:
            blocks = {(0, 0): torch.full((self.groups, 1, 1), self.scale, dtype=torch.float64)}
        if groups != self.groups:
            blocks = {offset: _joined(block, groups) for offset, block in blocks.items()}
        return changed(self, groups=groups, scale=None, blocks=blocks, chain=())

    def __mul__(self, scale: float) -> LinearMap:
        if scale == 1:
            return self
        if self.scale is not None:
            return changed(self, scale=self.scale * scale)
        chain = (*self.chain[:-1], self.chain[-1] * scale) if self.chain else ()
        return changed(self, blocks={key: block * scale for key, block in self.blocks.items()}, chain=chain)

    def __truediv__(self, scale: float) -> LinearMap:
        return changed(self, scale=self.scale / scale) if self.scale is not None else self * (1 / scale)

    def __add__(self, other: LinearMap) -> LinearMap:
        if self.scale is not None and other.scale is not None:
            return changed(self, scale=self.scale + other.scale)
        groups = math.gcd(self.groups, other.groups)
        blocks: dict[Offset, Tensor] = {}
        if self._has_blocks and other._has_blocks:
            blocks = dict(self.in_groups(groups).blocks)
            for offset, block in other.in_groups(groups).blocks.items():
                blocks[offset] = blocks[offset] + block if offset in blocks else block
        return LinearMap(self.channels, groups, self.offsets | other.offsets, self.stride, None, blocks)

    @property
    def _has_blocks(self) -> bool:
        return self.scale is not None or len(self.blocks) > 0

    def after(self, first: LinearMap) -> LinearMap:
        """This map of what ``first`` gives, zeros around the image that ``first`` reads."""
        if self.scale is not None:
            return first * self.scale
        if first.scale is not None:
            return self * first.scale
        groups = math.gcd(self.groups, first.groups)
        step = first.stride
        blocks: dict[Offset, Tensor] = {}
        if self._has_blocks and first._has_blocks:
            mine, its = self.in_groups(groups).blocks, first.in_groups(groups).blocks
            for (at, outer), (place, inner) in product(mine.items(), its.items()):
                offset = (step * at[0] + place[0], step * at[1] + place[1])
                through = outer @ inner
                blocks[offset] = blocks[offset] + through if offset in blocks else through
        channels = (first.channels[0], self.channels[1])
        offsets = _sums(self.offsets, first.offsets, step)
        chain: tuple[LinearMap, ...] = ()
        if self.chain or first.chain:
            mine_in_line, its_in_line = self.chain or (self,), first.chain or (first,)
            chain = (*its_in_line[:-1], mine_in_line[0].after(its_in_line[-1]), *mine_in_line[1:])
        return LinearMap(channels, groups, offsets, self.stride * step, None, blocks, chain)

    def then(self, outer: LinearMap) -> LinearMap:
        """``outer`` of what this map gives, where the image is padded once for both: it may run as two."""
        whole = outer.after(self)
        if outer.is_pointwise and outer.groups == outer.channels[0] == outer.channels[1]:
            return whole  # a factor a channel
        return changed(whole, chain=(*(self.chain or (self,)), outer))

    def of_constant(self, values: Tensor) -> Tensor:
        """What an image of one value a channel becomes far from its borders, ``out_channels``."""
        if self.scale is not None:
            return values * self.scale
        if not self.blocks:
            return values
        return (torch.stack(list(self.blocks.values())).sum(0) @ values.view(self.groups, -1, 1)).flatten()

    @property
    def layer(self) -> Layer:
        """Its convolution, for people and prices; a window that is no square counts as the square around it."""
        window = _window(self.offsets)
        return Layer("conv", "conv", *self.channels, max(window.kernel), self.stride, window.step, self.groups)

    def build(self, bias: Tensor | None, like: Tensor, padding: int | None = None) -> nn.Module:
        """The convolution as a module.

        Args:
            bias: added to it, ``out_channels``; None for nothing.
            like: a weight, of the device and type that it is to have.
            padding: zeros around the image in place of those that its window needs.
        """
        whole = self.in_groups(self.groups)
        first, last, step, kernel = _window(self.offsets)
        even = first[0] != -last[0] or first[1] != -last[1]
        begins = even and first == (0, 0)  # at its pixel: it pads for itself, where it must
        conv = (EndPaddedConv2d if begins else nn.Conv2d)(
            *self.channels,
            kernel,
            self.stride,
            padding if padding is not None else 0 if even else last,
            step,
            whole.groups,
            bias is not None,
            device=like.device,
            dtype=like.dtype,
        )
        weight = torch.zeros(*conv.weight.shape, dtype=torch.float64, device=like.device)
        for (row, column), block in whole.blocks.items():
            weight[:, :, (row - first[0]) // step, (column - first[1]) // step] = block.flatten(0, 1)
        conv.weight.data.copy_(weight)
        if conv.bias is not None and bias is not None:
            conv.bias.data.copy_(bias)
        conv.requires_grad_(False)
        if begins or not even:
            return conv
        # A convolution pads opposite sides alike.
        return nn.Sequential(nn.ZeroPad2d((-first[1], last[1], -first[0], last[0])), conv)


class _Window(NamedTuple):
    """First and last offset of a window, its dilation, and rows and columns of its kernel."""

    first: Offset
    last: Offset
    step: int
    kernel: Offset


@lru_cache(maxsize=4096)
def _window(offsets: frozenset[Offset]) -> _Window:
    """The smallest window that has its own pixel and all these."""
    rows, columns = zip(*offsets, (0, 0), strict=True)
    first, last = (min(rows), min(columns)), (max(rows), max(columns))
    step = max(math.gcd(*(at - first[0] for at in rows), *(at - first[1] for at in columns)), 1)
    return _Window(first, last, step, ((last[0] - first[0]) // step + 1, (last[1] - first[1]) // step + 1))


@lru_cache(maxsize=512)
def _square(kernel: int, dilation: int) -> frozenset[Offset]:
    """What a convolution's window reads; an even one begins at its pixel."""
    start = -dilation * (kernel // 2) if kernel % 2 else 0
    places = range(start, start + dilation * kernel, dilation)
    return frozenset(product(places, places))


@lru_cache(maxsize=4096)
def _sums(outer: frozenset[Offset], inner: frozenset[Offset], step: int) -> frozenset[Offset]:
    """Offsets of a map of a map of stride ``step``."""
    if outer == _HERE:
        return inner
    return frozenset((step * at[0] + place[0], step * at[1] + place[1]) for at, place in product(outer, inner))


def _joined(block: Tensor, groups: int) -> Tensor:
    """A block-diagonal of ``block`` (groups x out x in) with fewer, larger blocks."""
    each = block.shape[0] // groups
    out, read = block.shape[1:]
    whole = block.new_zeros(groups, each, out, each, read)
    place = torch.arange(each, device=block.device)
    whole[:, place, :, place, :] = block.view(groups, each, out, read).transpose(0, 1)
    return whole.view(groups, each * out, each * read)
