"""Layers that operations are made of: what each computes, costs and is built as."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

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
_IN_PLACE = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU)
LINEAR = ("conv", "dw", "sep", "avg_pool", "bn", "pad")
"""Kinds of layers and steps that are linear at inference, but for an offset."""
T = TypeVar("T")


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
            (size - 1) // stride * stride + (kernel - 1) * dilation + 1 - size  # ONNX rounds negative quotients up
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


def changed(instance: T, **values: Any) -> T:
    """`dataclasses.replace` in a tenth of the time, for a class that checks nothing: programs are planned by thousands.

    Args:
        instance: of a dataclass without slots, ``__post_init__`` and cached properties.
        values: of the fields that are other.
    """
    copy = object.__new__(type(instance))
    copy.__dict__.update(instance.__dict__, **values)
    return copy


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
        return Cost(
            self.macs + other.macs, self.params + other.params, self.traffic + other.traffic, self.passes + other.passes
        )


@dataclass(frozen=True)
class Layer:
    """One layer of an operation, with its sizes settled.

    Args:
        kind: ``conv``, ``avg_pool``, ``max_pool``, ``bn``, ``pad`` or the name of an activation; in a deployed cell
            also ``se``, ``sum`` or ``concat``.
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
        return self.kind in LINEAR

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


def build_activation(name: str, inplace: bool = False) -> nn.Module:
    """An activation by its name in `ACTIVATIONS`.

    Raises:
        OperationError: the name is unknown.
    """
    if name not in ACTIVATIONS:
        raise OperationError(f"Unknown activation {name!r}.{nearest(name, ACTIVATIONS)}")
    kind = ACTIVATIONS[name]
    return kind(inplace=True) if inplace and kind in _IN_PLACE else kind()
