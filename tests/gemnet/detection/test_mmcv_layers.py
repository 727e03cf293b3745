"""Deformable convolution and RoI pooling, CARAFE, masked convolution: MMCV's own modules against NumPy references."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import gemnet.detection  # noqa: F401  # stands in for what MMCV would have to compile

pytest.importorskip("mmcv", reason="MMCV is not installed: pip install '.[detection]'")

from mmcv.ops import (
    CARAFE,
    MaskedConv2d,
    carafe_naive,
    deform_conv2d,
    deform_roi_pool,
    modulated_deform_conv2d,
    nms_match,
)

STRIDE, PAD, DILATION = (2, 1), (1, 2), (1, 2)


def drawn(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sample(image: np.ndarray, y: float, x: float) -> float:
    """Bilinear; zeros outside."""
    height, width = image.shape
    if y <= -1 or y >= height or x <= -1 or x >= width:
        return 0.0
    top, left = int(np.floor(y)), int(np.floor(x))
    value = 0.0
    for row, share_y in ((top, top + 1 - y), (top + 1, y - top)):
        for column, share_x in ((left, left + 1 - x), (left + 1, x - left)):
            if 0 <= row < height and 0 <= column < width:
                value += share_y * share_x * image[row, column]
    return value


def reference(
    image: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None, groups: int, deform: int
) -> np.ndarray:
    x, shift, w = (part.numpy() for part in (image, offset, weight))
    n, channels = x.shape[:2]
    out, each, kh, kw = w.shape
    rows, columns = shift.shape[2:]
    result = np.zeros((n, out, rows, columns))
    for b, o, i, j in np.ndindex(result.shape):
        for c, ky, kx in np.ndindex(each, kh, kw):
            channel = o // (out // groups) * each + c
            tap = (channel // (channels // deform) * kh + ky) * kw + kx
            y = i * STRIDE[0] - PAD[0] + ky * DILATION[0] + shift[b, 2 * tap, i, j]
            z = j * STRIDE[1] - PAD[1] + kx * DILATION[1] + shift[b, 2 * tap + 1, i, j]
            factor = 1 if mask is None else float(mask[b, tap, i, j])
            result[b, o, i, j] += w[o, c, ky, kx] * factor * sample(x[b, channel], y, z)
        if bias is not None:
            result[b, o, i, j] += float(bias[o])
    return result


def parts(groups: int, deform: int) -> dict[str, Tensor]:
    rows, columns = (5 + 2 - 3) // 2 + 1, 6 + 4 - 5 + 1
    return {
        "image": drawn(2, 4, 5, 6, seed=1),
        "offset": drawn(2, 2 * deform * 9, rows, columns, seed=2, scale=2.0),
        "mask": torch.sigmoid(drawn(2, deform * 9, rows, columns, seed=3)),
        "weight": drawn(6, 4 // groups, 3, 3, seed=4),
        "bias": drawn(6, seed=5),
    }


@pytest.mark.parametrize(("groups", "deform"), [(1, 1), (2, 1), (1, 2), (2, 4)])
def test_deformable_convolution_equals_a_reference(groups: int, deform: int) -> None:
    given = parts(groups, deform)
    options = (STRIDE, PAD, DILATION, groups, deform)
    found = deform_conv2d(given["image"], given["offset"], given["weight"], *options)
    wanted = reference(given["image"], given["offset"], None, given["weight"], None, groups, deform)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-9)
    for bias in (None, given["bias"]):
        found = modulated_deform_conv2d(given["image"], given["offset"], given["mask"], given["weight"], bias, *options)
        wanted = reference(given["image"], given["offset"], given["mask"], given["weight"], bias, groups, deform)
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-9)


def gradients_agree(function: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    """Compares with differences of the values; the operators' gradients are MMCV's own functions of ours."""
    leaves = [each.clone().requires_grad_() for each in inputs]
    output = function(*leaves)
    direction = drawn(*output.shape, seed=9)
    found = torch.autograd.grad((output * direction).sum(), leaves)
    step = 1e-6
    for number, gradient in enumerate(found):
        towards = drawn(*gradient.shape, seed=10 + number)
        ends = []
        for sign in (1, -1):
            moved = [each.clone() for each in inputs]
            moved[number] += sign * step * towards
            ends.append(float((function(*moved) * direction).sum()))
        assert float((gradient * towards).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-6)


def test_gradients_of_deformable_convolution() -> None:
    given = parts(2, 2)
    options = (STRIDE, PAD, DILATION, 2, 2)
    names = ("image", "offset", "weight")
    gradients_agree(lambda *each: deform_conv2d(*each, *options), [given[name] for name in names])
    names = ("image", "offset", "mask", "weight", "bias")
    gradients_agree(lambda *each: modulated_deform_conv2d(*each, *options), [given[name] for name in names])


def pooled(
    image: Tensor, rois: Tensor, offset: Tensor | None, size: tuple[int, int], scale: float, ratio: int, gamma: float
) -> np.ndarray:
    """Deformable RoI pooling, bin by bin and sample by sample."""
    maps, boxes = image.numpy(), rois.numpy()
    result = np.zeros((len(boxes), maps.shape[1], *size))
    for k, c, i, j in np.ndindex(result.shape):
        left, top, right, bottom = boxes[k, 1:] * scale - 0.5
        height, width = bottom - top, right - left
        bin_y, bin_x = height / size[0], width / size[1]
        down, across = (ratio, ratio) if ratio > 0 else (int(np.ceil(bin_y)), int(np.ceil(bin_x)))
        if offset is not None:
            left += gamma * width * float(offset[k, 0, i, j])
            top += gamma * height * float(offset[k, 1, i, j])
        values = [
            clamped_sample(
                maps[int(boxes[k, 0]), c],
                top + i * bin_y + (a + 0.5) * bin_y / down,
                left + j * bin_x + (b + 0.5) * bin_x / across,
            )
            for a in range(down)
            for b in range(across)
        ]
        result[k, c, i, j] = np.mean(values) if values else 0.0
    return result


def clamped_sample(image: np.ndarray, y: float, x: float) -> float:
    """Bilinear; the border goes on for a pixel, then zeros."""
    height, width = image.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    return sample(image, min(max(y, 0), height - 1), min(max(x, 0), width - 1))


ROIS = torch.tensor(
    [[0, 2, 3, 14, 20], [1, -5, -3, 9, 30], [0, 17, 1, 60, 9], [1, 6, 6, 6, 6], [0, 9, 9, 5, 3]], dtype=torch.float64
)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("moved", [True, False])
def test_deformable_roi_pooling_equals_a_reference_with_its_gradients(ratio: int, moved: bool) -> None:
    image, size = drawn(2, 3, 7, 9, seed=1), (3, 2)
    offset = drawn(len(ROIS), 2, *size, seed=2, scale=2.0) if moved else None
    options = (size, 0.4, ratio, 0.1)
    found = deform_roi_pool(image, ROIS, offset, *options)
    wanted = pooled(image, ROIS, offset, *options)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-9)
    assert (wanted[:3] != 0).any(axis=(1, 2, 3)).all()
    if offset is None:
        gradients_agree(lambda each: deform_roi_pool(each, ROIS, None, *options), [image])
    else:
        gradients_agree(lambda each, moves: deform_roi_pool(each, ROIS, moves, *options), [image, offset])


def test_carafe_equals_a_reference_with_its_gradients() -> None:
    features, masks = drawn(2, 4, 3, 4, seed=1), drawn(2, 2 * 9, 6, 8, seed=2)
    wanted = np.zeros((2, 4, 6, 8))
    padded = np.pad(features.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for b, c, i, j in np.ndindex(wanted.shape):
        patch = padded[b, c, i // 2 : i // 2 + 3, j // 2 : j // 2 + 3]
        wanted[b, c, i, j] = (patch.flatten() * masks[b, c // 2 * 9 : c // 2 * 9 + 9, i, j].numpy()).sum()
    fast = CARAFE(3, 2, 2)
    for function in (fast, lambda f, m: carafe_naive(f, m, 3, 2, 2)):
        np.testing.assert_allclose(function(features, masks).numpy(), wanted, atol=1e-9)
    gradients_agree(fast, [features, masks])


def test_a_masked_convolution_is_the_convolution_where_the_mask_is() -> None:
    torch.manual_seed(0)
    layer, image = MaskedConv2d(3, 5, 3, padding=1), torch.rand(1, 3, 6, 7)
    mask = torch.rand(1, 6, 7) > 0.5
    with torch.no_grad():
        whole, found = torch.nn.functional.conv2d(image, layer.weight, layer.bias, padding=1), layer(image, mask)
    torch.testing.assert_close(found, whole * mask)


def test_matching_suppression_groups_what_it_drops() -> None:
    boxes = torch.tensor(
        [[0.0, 0, 10, 10, 0.5], [20, 20, 30, 30, 0.9], [0, 0, 10, 9, 0.8], [20, 20, 30, 29, 0.1], [50, 50, 60, 60, 0.3]]
    )
    assert [group.tolist() for group in nms_match(boxes, 0.5)] == [[1, 3], [2, 0], [4]]
    assert [group.tolist() for group in nms_match(boxes[:1].repeat(2, 1), 1.0)] == [[0, 1]]  # exactly at the threshold
