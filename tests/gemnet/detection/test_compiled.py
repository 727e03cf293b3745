"""The stand-in against MMCV's compiled operators, where those are installed.

They build with a C++ compiler on PyTorch < 2.13 (`gemnet.detection.mmcv_ext` says how); elsewhere this file skips, and
`test_mmcv_ext.py` compares with references in NumPy.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gemnet.detection import mmcv_ext

pytest.importorskip("mmcv", reason="MMCV is not installed: pip install '.[detection]'")
mmcv_ext.install()
import mmcv._ext as compiled  # noqa: E402  # after what answers for it, or the skip

pytestmark = pytest.mark.skipif(mmcv_ext.is_stand_in(), reason="this MMCV has no compiled operators")

DEGENERATE = [
    [5, 5, 5, 5],
    [5, 5, 5, 5],
    [5, 5, 5, 9],
    [-50, -50, -40, -40],
    [500, 500, 900, 900],
    [0, 0, 10, 10],
    [0, 0, 10, 10],
    [0, 5, 10, 10],
]


def boxes_and_scores(count: int, ties: bool, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 300, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 90, (count, 2))], 1)
    if count:
        boxes[: len(DEGENERATE)] = DEGENERATE[:count]
    scores = rng.integers(1, 20, count) / 20 if ties else (rng.permutation(count) + 1) / (count + 1)
    return torch.from_numpy(boxes.astype(np.float32)), torch.from_numpy(scores.astype(np.float32))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 200, 10_000])
def test_nms(count: int, offset: int, ties: bool) -> None:
    boxes, scores = boxes_and_scores(count, ties)
    for threshold in (0.3, 0.7):
        ours, theirs = (module.nms(boxes, scores, threshold, offset) for module in (mmcv_ext, compiled))
        assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 200, 10_000])
def test_soft_nms(count: int, method: int, offset: int, ties: bool) -> None:
    boxes, scores = boxes_and_scores(count, ties)
    out = []
    for module in (mmcv_ext, compiled):
        dets = boxes.new_zeros(count, 5)
        index = module.softnms(
            boxes, scores, dets, iou_threshold=0.3, sigma=0.5, min_score=0.05, method=method, offset=offset
        )
        out.append((index, dets[: len(index)]))
    assert out[0][0].tolist() == out[1][0].tolist()
    torch.testing.assert_close(out[0][1], out[1][1], atol=1e-5, rtol=0, equal_nan=True)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("count", [0, 64])
def test_roi_align_and_its_gradient(count: int, ratio: int, mode: int, aligned: bool) -> None:
    features = torch.randn(2, 3, 20, 25, generator=torch.Generator().manual_seed(0))
    boxes, _ = boxes_and_scores(count, ties=False)
    image = torch.arange(count, dtype=torch.float32)[:, None] % 2
    rois = torch.cat([image, boxes], 1)
    options = {"aligned_height": 7, "aligned_width": 7, "spatial_scale": 0.07, "sampling_ratio": ratio}
    options |= {"pool_mode": mode, "aligned": aligned}
    results = []
    for module in (mmcv_ext, compiled):
        output = features.new_zeros(count, 3, 7, 7)
        where = [torch.zeros_like(output) if mode == 0 else features.new_zeros(0) for _ in range(2)]
        module.roi_align_forward(features, rois, output, *where, **options)
        gradient = torch.zeros_like(features)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
        module.roi_align_backward(weights, rois, *where, gradient, **options)
        results.append((output, gradient))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-4, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="MMCV has no compiled focal loss for the CPU")
@pytest.mark.parametrize("weighted", [False, True])
def test_sigmoid_focal_loss_and_its_gradient(weighted: bool) -> None:
    random = torch.Generator().manual_seed(0)
    logits = (torch.randn(1000, 80, generator=random) * 5).cuda()
    target = torch.randint(0, 80 if weighted else 81, (1000,), generator=random).cuda()
    weight = torch.rand(80, generator=random).cuda() if weighted else logits.new_empty(0)
    for name in ("sigmoid_focal_loss_forward", "sigmoid_focal_loss_backward"):
        ours, theirs = torch.zeros_like(logits), torch.zeros_like(logits)
        for module, output in ((mmcv_ext, ours), (compiled, theirs)):
            getattr(module, name)(logits, target, weight, output, gamma=2.0, alpha=0.25)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
