"""MMCV's RoIAlign and deformable RoI pooling in plain PyTorch, for `gemnet.detection.mmcv_ext`: the same signatures,
formulas and ties.
"""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import Tensor

# The C++ kernels start their search for the maximum here; a bin without a sample keeps it.
_MAX_POOL_FLOOR_CPU = -10000.0
# Samples that are interpolated at once in max pooling: 2^24 floats are 64 MiB for each of the four corners.
_MAX_POOL_SAMPLES = 2**24


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign (He et al., arXiv 1703.06870).

    Args:
        input: (n, c, h, w) features.
        rois: (k, 5), index into the batch and corners in image pixels.
        output: (k, c, aligned_height, aligned_width), filled.
        argmax_y: shape of ``output`` for max pooling, filled with where the maximum was sampled, else empty.
        argmax_x: likewise.
        aligned_height: bins down.
        aligned_width: bins across.
        spatial_scale: features per image pixel.
        sampling_ratio: samples a side in each bin; 0 takes as many as the bin is wide.
        pool_mode: 0 max, 1 average.
        aligned: whether boxes are shifted by half a pixel.
    """
    if rois.numel() == 0:
        return
    size = (int(aligned_height), int(aligned_width))
    if pool_mode == 1:
        output.copy_(
            torchvision.ops.roi_align(
                input, rois.to(input.dtype), size, float(spatial_scale), int(sampling_ratio), bool(aligned)
            )
        )
        return
    floor = torch.finfo(input.dtype).min if input.is_cuda else _MAX_POOL_FLOOR_CPU
    output.fill_(floor)
    argmax_y.fill_(-1)
    argmax_x.fill_(-1)
    for chosen, grid_y, grid_x in _sample_positions(rois, size, spatial_scale, sampling_ratio, aligned, input.size(1)):
        rows, columns = grid_y.size(2), grid_x.size(2)
        y, x = torch.broadcast_tensors(grid_y[:, :, None, :, None], grid_x[:, None, :, None, :])
        value = _interpolate(input, rois[chosen, 0].long(), y, x)
        best, where = value.flatten(-2).max(-1)
        found = best > floor
        bins_y = torch.arange(size[0], device=rois.device)[None, None, :, None]
        bins_x = torch.arange(size[1], device=rois.device)[None, None, None, :]
        owner = torch.arange(len(chosen), device=rois.device)[:, None, None, None]
        output[chosen] = torch.where(found, best, floor)
        argmax_y[chosen] = torch.where(found, grid_y[owner, bins_y, where // columns % rows].to(best.dtype), -1.0)
        argmax_x[chosen] = torch.where(found, grid_x[owner, bins_x, where % columns].to(best.dtype), -1.0)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of `roi_align_forward` by the features; adds to ``grad_input`` (n, c, h, w)."""
    if rois.numel() == 0:
        return
    batch, channels, height, width = grad_input.shape
    if pool_mode == 1:
        grad_input += torch.ops.torchvision._roi_align_backward(
            grad_output,
            rois.to(grad_output.dtype),
            float(spatial_scale),
            int(aligned_height),
            int(aligned_width),
            batch,
            channels,
            height,
            width,
            int(sampling_ratio),
            bool(aligned),
        )
        return
    image, channel = rois[:, 0].long(), torch.arange(channels, device=rois.device)
    plane = image[:, None, None, None] * channels + channel[:, None, None]
    flat = grad_input.new_zeros(batch * channels * height * width)
    found = argmax_y != -1
    for index, weight in _corners(argmax_y, argmax_x, height, width):
        share = torch.where(found, grad_output * weight, 0)
        flat.index_add_(0, (plane * height * width + index).flatten(), share.flatten())
    grad_input += flat.view_as(grad_input)


def deform_roi_pool_forward(input: Tensor, rois: Tensor, offset: Tensor, output: Tensor, **options: Any) -> None:
    """Deformable RoI pooling (Dai et al., arXiv 1703.06211): the mean of a bin's samples, each bin moved.

    Args:
        input: (n, c, h, w) features.
        rois: (k, 5), index into the batch and corners in image pixels.
        offset: (k, 2, pooled_height, pooled_width), how far each bin is moved across and down, in sizes of its box over
            ``gamma``; empty for bins that stay.
        output: (k, c, pooled_height, pooled_width), filled.
        **options: ``pooled_height, pooled_width, spatial_scale, sampling_ratio`` (as in `roi_align_forward`, of boxes
            that are shifted by half a pixel), ``gamma``.
    """
    output.zero_()  # what a box without an area stays
    for chosen, grid_y, grid_x in _positions_of(input, rois, options):
        moved = offset[chosen] if offset.numel() else None
        output[chosen] = _pooled(input, rois[chosen], moved, grid_y, grid_x, options)


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    **options: Any,
) -> None:
    """Gradients of `deform_roi_pool_forward` by features and offsets; adds to ``grad_input``, fills ``grad_offset``.

    They are those of the values. MMCV's kernel has others for samples less than a pixel outside of the map.
    """
    for chosen, grid_y, grid_x in _positions_of(input, rois, options):
        with torch.enable_grad():
            features = input.detach().requires_grad_()
            moved = offset[chosen].detach().requires_grad_() if offset.numel() else None
            pooled = _pooled(features, rois[chosen], moved, grid_y, grid_x, options)
            leaves = [features] if moved is None else [features, moved]
            found = torch.autograd.grad(pooled, leaves, grad_output[chosen])
        grad_input += found[0]
        if moved is not None:
            grad_offset[chosen] = found[1]


def _positions_of(input: Tensor, rois: Tensor, options: dict[str, Any]) -> list[tuple[Tensor, Tensor, Tensor]]:
    if rois.numel() == 0:
        return []
    size = (options["pooled_height"], options["pooled_width"])
    return _sample_positions(rois, size, options["spatial_scale"], options["sampling_ratio"], True, input.size(1))


def _pooled(
    features: Tensor, rois: Tensor, offset: Tensor | None, grid_y: Tensor, grid_x: Tensor, options: dict[str, Any]
) -> Tensor:
    y, x = grid_y[:, :, None, :, None], grid_x[:, None, :, None, :]
    if offset is not None:
        extent = options["gamma"] * options["spatial_scale"] * (rois[:, 3:] - rois[:, 1:3])  # (boxes, 2), x before y
        shift = (extent[:, :, None, None] * offset)[..., None, None]
        y, x = y + shift[:, 1], x + shift[:, 0]
    y, x = torch.broadcast_tensors(y, x)
    return _interpolate(features, rois[:, 0].long(), y, x).mean((-2, -1))


def _sample_positions(
    rois: Tensor, size: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool, channels: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Groups boxes that have equally many samples a bin.

    Returns:
        For each group the indices of its boxes (g,), the y of their samples (g, bins down, samples) and the x likewise.
        Groups stay under `_MAX_POOL_SAMPLES` samples where more than one box is in them.
    """
    corner = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
    start, extent = corner[:, :2], corner[:, 2:] - corner[:, :2]
    if not aligned:
        extent = extent.clamp(min=1.0)
    bins = rois.new_tensor([size[1], size[0]])
    bin_size = extent / bins
    samples = torch.ceil(bin_size).long().clamp(min=0) if sampling_ratio <= 0 else None
    shape = samples if samples is not None else torch.full_like(extent, sampling_ratio).long()
    groups = []
    for across, down in torch.unique(shape, dim=0).tolist():
        if across == 0 or down == 0:
            continue
        members = torch.nonzero((shape[:, 0] == across) & (shape[:, 1] == down)).flatten()
        room = max(1, _MAX_POOL_SAMPLES // (channels * size[0] * size[1] * across * down))
        for chosen in members.split(room):
            grids = []
            for axis, count, number in ((1, size[0], down), (0, size[1], across)):
                origin, step = start[chosen, axis, None, None], bin_size[chosen, axis, None, None]
                which = torch.arange(count, device=rois.device, dtype=rois.dtype)[None, :, None]
                inside = torch.arange(number, device=rois.device, dtype=rois.dtype)[None, None, :]
                grids.append(origin + which * step + (inside + 0.5) * step / number)
            groups.append((chosen, grids[0], grids[1]))
    return groups


def _corners(y: Tensor, x: Tensor, height: int, width: int) -> list[tuple[Tensor, Tensor]]:
    """The four cells round each position and their bilinear weights; positions outside the map weigh zero."""
    outside = (y < -1.0) | (y > height) | (x < -1.0) | (x > width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, across = y - top, x - left
    corners = []
    for row, column, weight in (
        (top, left, (1 - down) * (1 - across)),
        (top, right, (1 - down) * across),
        (bottom, left, down * (1 - across)),
        (bottom, right, down * across),
    ):
        corners.append(((row * width + column).long(), weight.masked_fill(outside, 0)))
    return corners


def _interpolate(features: Tensor, image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Bilinear samples, (boxes, channels, bins down, bins across, samples down, samples across).

    Args:
        features: (n, c, h, w).
        image: (boxes,), of each box.
        y: (boxes, bins down, bins across, samples down, samples across).
        x: likewise.
    """
    height, width = features.shape[-2:]
    flat = features.flatten(2)
    value: Tensor | None = None
    for index, weight in _corners(y, x, height, width):
        # (boxes, positions) picks from (batch, channels, cells): advanced indices first, channels last.
        picked = flat[image[:, None], :, index.flatten(1)].transpose(1, 2)
        share = (picked * weight.flatten(1)[:, None].to(picked.dtype)).unflatten(2, y.shape[1:])
        value = share if value is None else value + share
    assert value is not None
    return value
