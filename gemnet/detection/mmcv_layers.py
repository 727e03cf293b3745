"""Layers among MMCV's compiled operators, on top of ``torchvision.ops`` and autograd: deformable convolution, CARAFE,
masked convolution. See `gemnet.detection.mmcv_ext`, which hands them to MMCV.

Functions have the signatures of MMCV's C++ functions and fill the tensors handed in; buffers that a kernel would need
are left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **options: int
) -> None:
    """Deformable convolution (Dai et al., arXiv 1703.06211).

    Args:
        input: (n, c, h, w).
        weight: (out, c / groups, kh, kw).
        offset: (n, 2 x deformable groups x kh x kw, h', w'), for each sample its shift down and across.
        output: (n, out, h', w'), filled.
        columns: a buffer.
        ones: a buffer.
        **options: ``dH, dW`` (stride), ``padH, padW``, ``dilationH, dilationW``, and what follows from the shapes.
    """
    output.copy_(_deformed(input, weight, offset, options))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **options: int,
) -> None:
    """Gradients of `deform_conv_forward` by input and offset; fills ``grad_input`` and ``grad_offset``."""
    found = _gradients(lambda *parts: _deformed(parts[0], weight, parts[1], options), (input, offset), grad_output)
    grad_input.copy_(found[0])
    grad_offset.copy_(found[1])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float = 1.0,
    **options: int,
) -> None:
    """Gradient of `deform_conv_forward` by the weight; fills ``grad_weight``."""
    start = torch.zeros_like(grad_weight)  # a convolution is linear in it: any will do
    (found,) = _gradients(lambda *parts: _deformed(input, parts[0], offset, options), (start,), grad_output)
    grad_weight.copy_(found * scale)


def _deformed(input: Tensor, weight: Tensor, offset: Tensor, options: dict[str, int]) -> Tensor:
    return torchvision.ops.deform_conv2d(
        input,
        offset,
        weight,
        stride=(options["dH"], options["dW"]),
        padding=(options["padH"], options["padW"]),
        dilation=(options["dilationH"], options["dilationW"]),
    )


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    **options: Any,
) -> None:
    """Modulated deformable convolution (Zhu et al., arXiv 1811.11168): every sample has a weight of its own, too.

    Args:
        input: (n, c, h, w).
        weight: (out, c / groups, kh, kw).
        bias: (out,), or of any size where ``with_bias`` is false.
        ones: a buffer.
        offset: as in `deform_conv_forward`.
        mask: (n, deformable groups x kh x kw, h', w').
        output: (n, out, h', w'), filled.
        columns: a buffer.
        **options: ``stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, with_bias``, and what follows from the
            shapes.
    """
    output.copy_(_modulated(input, weight, bias if options["with_bias"] else None, offset, mask, options))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    **options: Any,
) -> None:
    """Gradients of `modulated_deform_conv_forward`; fills the five ``grad_*`` but ``grad_output``."""
    found = _gradients(
        lambda *parts: _modulated(parts[0], parts[1], None, parts[2], parts[3], options),
        (input, weight, offset, mask),
        grad_output,
    )
    for place, gradient in zip((grad_input, grad_weight, grad_offset, grad_mask), found, strict=True):
        place.copy_(gradient)
    if options["with_bias"]:
        grad_bias.copy_(grad_output.sum((0, 2, 3)))


def _modulated(
    input: Tensor, weight: Tensor, bias: Tensor | None, offset: Tensor, mask: Tensor, options: dict[str, Any]
) -> Tensor:
    return torchvision.ops.deform_conv2d(
        input,
        offset,
        weight,
        bias,
        stride=(options["stride_h"], options["stride_w"]),
        padding=(options["pad_h"], options["pad_w"]),
        dilation=(options["dilation_h"], options["dilation_w"]),
        mask=mask,
    )


def carafe_naive_forward(
    features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> None:
    """Content-aware upsampling (CARAFE; Wang et al., arXiv 1905.02188).

    Args:
        features: (n, c, h, w).
        masks: (n, groups x kernel^2, h x scale, w x scale), the kernel of each cell that comes out.
        output: (n, c, h x scale, w x scale), filled.
        kernel_size: side of the kernels, odd.
        group_size: number of groups of channels.
        scale_factor: whole factor of the enlargement.
    """
    output.copy_(_reassembled(features, masks, kernel_size, group_size, scale_factor))


def carafe_naive_backward(
    grad_output: Tensor,
    features: Tensor,
    masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Gradients of `carafe_naive_forward` by features and masks; fills ``grad_input`` and ``grad_masks``."""
    found = _gradients(
        lambda *parts: _reassembled(parts[0], parts[1], kernel_size, group_size, scale_factor),
        (features, masks),
        grad_output,
    )
    grad_input.copy_(found[0])
    grad_masks.copy_(found[1])


def carafe_forward(
    features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor, output: Tensor, **options: int
) -> None:
    """As `carafe_naive_forward`; ``rfeatures`` takes a copy of the features for the way back."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, **options)


def carafe_backward(
    grad_output: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rgrad_output: Tensor,
    rgrad_input_hs: Tensor,
    rgrad_input: Tensor,
    rgrad_masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    **options: int,
) -> None:
    """As `carafe_naive_backward`, with the features that `carafe_forward` put aside."""
    carafe_naive_backward(grad_output, rfeatures, masks, grad_input, grad_masks, **options)


def _reassembled(features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    n, c, h, w = features.shape
    patches = F.unfold(features, kernel, padding=kernel // 2).view(n, c * kernel**2, h, w)
    patches = F.interpolate(patches, scale_factor=scale, mode="nearest")
    patches = patches.view(n, groups, c // groups, kernel**2, h * scale, w * scale)
    kernels = masks.view(n, groups, 1, kernel**2, h * scale, w * scale)
    return (patches * kernels).sum(3).flatten(1, 2)


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """The patches round some cells, which a convolution of those cells alone reads.

    Args:
        im: (1, c, h, w).
        mask_h_idx: rows of the k cells.
        mask_w_idx: their columns.
        col: (c x kh x kw, k), filled.
        kernel_h: kh.
        kernel_w: kw.
        pad_h: rows of zeros put round the image.
        pad_w: columns of zeros.
    """
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    rows = mask_h_idx.long()[None, :] + torch.arange(kernel_h, device=im.device)[:, None]
    columns = mask_w_idx.long()[None, :] + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows[:, None, :], columns[None, :, :]].reshape(col.shape))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Puts the columns of ``col`` (c, k) into the k cells of ``im`` (1, c, h, w)."""
    im[0, :, mask_h_idx.long(), mask_w_idx.long()] = col


def _gradients(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], grad_output: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        leaves = tuple(each.detach().requires_grad_() for each in inputs)
        return torch.autograd.grad(function(*leaves), leaves, grad_output)


LAYERS: tuple[Callable[..., None], ...] = (
    deform_conv_forward,
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    modulated_deform_conv_forward,
    modulated_deform_conv_backward,
    carafe_naive_forward,
    carafe_naive_backward,
    carafe_forward,
    carafe_backward,
    masked_im2col_forward,
    masked_col2im_forward,
)
"""What MMCV asks for by name."""
