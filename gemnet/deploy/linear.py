"""Linear maps between images: what convolutions, norms, average pools, identities and their sums have in common.

    out[y] = sum over offsets d of blocks[d] @ in[stride * y + d]

with zeros outside the image. Maps that read the same image add up to one; a map of a map is a map. Blocks are those of
a grouped convolution, in float64, so that what is made of them is exact to float32's last digits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor, nn

from gemnet.operations import EndPaddedConv2d

Offset = tuple[int, int]


@dataclass(frozen=True)
class LinearMap:
    """A map from an image of ``in_channels`` to one of ``out_channels``; see the module's docstring.

    Args:
        channels: channels read and written.
        taps: a block of ``groups x out_channels / groups x in_channels / groups`` for each offset (rows, columns).
        stride: of the pixels read.
        scale: the map is this factor and has no taps; None for all other maps.
    """

    channels: tuple[int, int]
    taps: Mapping[Offset, Tensor]
    stride: int = 1
    scale: float | None = None

    @classmethod
    def factor(cls, channels: int, scale: float = 1.0) -> LinearMap:
        """The identity times ``scale``."""
        return cls((channels, channels), {}, 1, scale)

    @classmethod
    def of_factors(cls, factors: Tensor) -> LinearMap:
        """A factor for each channel, ``channels``."""
        return cls((len(factors), len(factors)), {(0, 0): factors.double()[:, None, None]})

    @classmethod
    def of_convolution(cls, conv: nn.Conv2d) -> LinearMap:
        """The convolution without its bias."""
        weight = conv.weight.detach().double()
        blocks = weight.unflatten(0, (conv.groups, -1))  # groups, out / groups, in / groups, rows, columns
        step, margin = conv.dilation, (int(conv.padding[0]), int(conv.padding[1]))
        taps = {
            (row * step[0] - margin[0], column * step[1] - margin[1]): blocks[..., row, column]
            for row, column in product(range(weight.shape[2]), range(weight.shape[3]))
        }
        return cls((conv.in_channels, conv.out_channels), taps, conv.stride[0])

    @property
    def groups(self) -> int:
        """Groups of channels that don't mix."""
        return self.channels[0] if self.scale is not None else next(iter(self.taps.values())).shape[0]

    @property
    def is_pointwise(self) -> bool:
        """Whether it reads nothing but the pixel itself."""
        return self.scale is not None or set(self.taps) == {(0, 0)}

    @property
    def window(self) -> tuple[Offset, Offset, int]:
        """First and last offset read, and the dilation of the convolution that has these taps."""
        rows, columns = zip(*self.taps, (0, 0), strict=True)
        first, last = (min(rows), min(columns)), (max(rows), max(columns))
        steps = [at - start for start, side in zip(first, (rows, columns), strict=True) for at in side]
        return first, last, max(math.gcd(*steps), 1)

    @property
    def macs(self) -> int:
        """Multiply-adds for a pixel written, of the convolution that the map is built as; none of a factor."""
        if self.scale is not None:
            return 0
        first, last, step = self.window
        area = math.prod((end - start) // step + 1 for start, end in zip(first, last, strict=True))
        return area * self.channels[0] * self.channels[1] // self.groups

    def in_groups(self, groups: int) -> LinearMap:
        """The same map as one of fewer groups, a divisor of its own."""
        if self.scale is not None:
            ones = torch.full((self.channels[0],), self.scale, dtype=torch.float64)
            return LinearMap.of_factors(ones).in_groups(groups)
        if groups == self.groups:
            return self
        return replace(self, taps={offset: _joined(block, groups) for offset, block in self.taps.items()})

    def __mul__(self, scale: float) -> LinearMap:
        if self.scale is not None:
            return replace(self, scale=self.scale * scale)
        return replace(self, taps={offset: block * scale for offset, block in self.taps.items()})

    def __add__(self, other: LinearMap) -> LinearMap:
        if self.scale is not None and other.scale is not None:
            return replace(self, scale=self.scale + other.scale)
        groups = math.gcd(self.groups, other.groups)
        taps = dict(self.in_groups(groups).taps)
        for offset, block in other.in_groups(groups).taps.items():
            taps[offset] = taps[offset] + block if offset in taps else block
        return LinearMap((self.channels[0], other.channels[1]), taps, self.stride)

    def after(self, first: LinearMap) -> LinearMap:
        """This map of what ``first`` gives, zeros around the image that ``first`` reads."""
        if self.scale is not None:
            return first * self.scale
        if first.scale is not None:
            return self * first.scale
        groups = math.gcd(self.groups, first.groups)
        taps: dict[Offset, Tensor] = {}
        for (mine, block), (its, inner) in product(
            self.in_groups(groups).taps.items(), first.in_groups(groups).taps.items()
        ):
            offset = (first.stride * mine[0] + its[0], first.stride * mine[1] + its[1])
            through = block @ inner
            taps[offset] = taps[offset] + through if offset in taps else through
        return LinearMap((first.channels[0], self.channels[1]), taps, self.stride * first.stride)

    def of_constant(self, values: Tensor) -> Tensor:
        """What an image of one value a channel becomes far from its borders, ``out_channels``."""
        if self.scale is not None:
            return values * self.scale
        total = sum(self.taps.values())
        assert isinstance(total, Tensor)
        return (total @ values.view(self.groups, -1, 1)).flatten()

    def build(self, bias: Tensor | None, like: Tensor) -> nn.Module:
        """The convolution, plus ``bias`` (``out_channels``) where given, with the device and type of ``like``."""
        whole = self.in_groups(self.channels[0]) if self.scale is not None else self
        first, last, step = whole.window
        size = ((last[0] - first[0]) // step + 1, (last[1] - first[1]) // step + 1)
        even = first[0] != -last[0] or first[1] != -last[1]
        begins = even and first == (0, 0)  # at its pixel, and so it pads for itself, where it must
        conv = (EndPaddedConv2d if begins else nn.Conv2d)(
            self.channels[0],
            self.channels[1],
            size,
            self.stride,
            0 if even else last,
            step,
            whole.groups,
            bias is not None,
            device=like.device,
            dtype=like.dtype,
        )
        weight = torch.zeros(*conv.weight.shape, dtype=torch.float64, device=like.device)
        for (row, column), block in whole.taps.items():
            weight[:, :, (row - first[0]) // step, (column - first[1]) // step] = block.flatten(0, 1)
        conv.weight.data.copy_(weight)
        if conv.bias is not None and bias is not None:
            conv.bias.data.copy_(bias)
        conv.requires_grad_(False)
        if begins or not even:
            return conv
        # A convolution pads opposite sides alike.
        return nn.Sequential(nn.ZeroPad2d((-first[1], last[1], -first[0], last[0])), conv)


def _joined(block: Tensor, groups: int) -> Tensor:
    """A block-diagonal of ``block`` (groups x out x in) with fewer, larger blocks."""
    each = block.shape[0] // groups
    out, read = block.shape[1:]
    whole = block.new_zeros(groups, each, out, each, read)
    place = torch.arange(each, device=block.device)
    whole[:, place, :, place, :] = block.view(groups, each, out, read).transpose(0, 1)
    return whole.view(groups, each * out, each * read)
