"""The stand-in for MMCV's compiled operators, against references written from the definitions, loop by loop."""

from __future__ import annotations

import importlib.util
import math
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from gemnet.detection import mmcv_ext, mmcv_roi_align
from gemnet.errors import GemnetError

pytest.importorskip("mmcv", reason="MMCV is not installed: pip install '.[detection]'")
mmcv_ext.install()
import mmcv._ext as ext  # noqa: E402  # after what answers for it, or the skip
import mmcv.ops  # noqa: E402  # after what answers for it, or the skip

# What is compared below is what MMCV calls: the stand-in, or the compiled operators where there are any. Then the
# same references test those too.
STAND_IN = mmcv_ext.is_stand_in()


def random_boxes(rng: np.random.Generator, n: int, side: float = 100.0) -> np.ndarray:
    corner = rng.uniform(0, side, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(0, side / 3, (n, 2))], 1).astype(np.float32)


def iou_of_one(box: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    def area(b: np.ndarray) -> np.ndarray:
        return (b[..., 2] - b[..., 0] + np.float32(offset)) * (b[..., 3] - b[..., 1] + np.float32(offset))

    w = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0]) + np.float32(offset)
    h = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1]) + np.float32(offset)
    inter = np.maximum(w, 0) * np.maximum(h, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return inter / (area(box) + area(others) - inter)


def reference_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int) -> list[int]:
    order = list(np.argsort(-scores, kind="stable"))
    kept = []
    while order:
        best, order = order[0], order[1:]
        kept.append(int(best))
        if order:
            overlap = iou_of_one(boxes[best], boxes[order], offset)
            order = [j for j, o in zip(order, overlap, strict=True) if not o > threshold]
    return kept


def reference_soft_nms(
    boxes: np.ndarray, scores: np.ndarray, threshold: float, sigma: float, floor: float, method: str, offset: int
) -> tuple[list[int], list[float]]:
    """Without ties the order is by score alone, so no swapping is needed here."""
    left, score = list(range(len(scores))), scores.astype(np.float32).copy()
    kept, out = [], []
    while left:
        best = max(left, key=lambda i: score[i])
        left.remove(best)
        kept.append(best)
        out.append(float(score[best]))
        for j in left:
            o = float(iou_of_one(boxes[best], boxes[j : j + 1], offset)[0])
            if method == "gaussian":
                score[j] *= math.exp(-o * o / sigma)
            elif o >= threshold:
                score[j] *= 0 if method == "naive" else 1 - o
        left = [j for j in left if score[j] >= floor]
    return kept, out


def reference_roi_align(
    features: np.ndarray, rois: np.ndarray, size: int, scale: float, ratio: int, mode: str, aligned: bool
) -> np.ndarray:
    _, channels, height, width = features.shape
    out = np.zeros((len(rois), channels, size, size), np.float64)

    def sample(b: int, y: float, x: float) -> np.ndarray:
        if y < -1 or y > height or x < -1 or x > width:
            return np.zeros(channels)
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        dy, dx = y - y0, x - x0
        f = features[b].astype(np.float64)
        top = f[:, y0, x0] * (1 - dx) + f[:, y0, x1] * dx
        bottom = f[:, y1, x0] * (1 - dx) + f[:, y1, x1] * dx
        return top * (1 - dy) + bottom * dy

    for k, roi in enumerate(rois):
        x1, y1, x2, y2 = (float(v) * scale - (0.5 if aligned else 0) for v in roi[1:])
        w, h = x2 - x1, y2 - y1
        if not aligned:
            w, h = max(w, 1.0), max(h, 1.0)
        across = ratio if ratio > 0 else math.ceil(w / size)
        down = ratio if ratio > 0 else math.ceil(h / size)
        for py in range(size):
            for px in range(size):
                values = [
                    sample(
                        int(roi[0]),
                        y1 + (py + (iy + 0.5) / down) * h / size,
                        x1 + (px + (ix + 0.5) / across) * w / size,
                    )
                    for iy in range(down)
                    for ix in range(across)
                ]
                if values:
                    out[k, :, py, px] = np.max(values, 0) if mode == "max" else np.mean(values, 0)
                elif mode == "max":
                    out[k, :, py, px] = -10000.0
    return out


def reference_focal(x: np.ndarray, target: np.ndarray, gamma: float, alpha: float) -> np.ndarray:
    p = 1 / (1 + np.exp(-x.astype(np.float64)))
    out = np.zeros_like(p)
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            if target[i] == c:
                out[i, c] = -alpha * (1 - p[i, c]) ** gamma * np.log(p[i, c])
            else:
                out[i, c] = -(1 - alpha) * p[i, c] ** gamma * np.log(1 - p[i, c])
    return out


# ---------------------------------------------------------------------------------------------- the module itself


def test_module_has_a_spec_that_import_machinery_finds() -> None:
    spec = importlib.util.find_spec("mmcv._ext")
    assert spec is not None
    assert spec.name == "mmcv._ext"
    assert pkgutil.resolve_name("mmcv._ext") is sys.modules["mmcv._ext"]


def test_install_twice_adds_one_finder() -> None:
    before = len(sys.meta_path)
    mmcv_ext.install()
    assert len(sys.meta_path) == before


@pytest.mark.skipif(not STAND_IN, reason="compiled operators are installed")
def test_unknown_operator_names_itself_and_the_way_out_when_called() -> None:
    function = ext.nms_rotated
    with pytest.raises(GemnetError, match=r"'nms_rotated'.*compiler") as caught:
        function(1, two=2)
    assert isinstance(caught.value, NotImplementedError)
    with pytest.raises(AttributeError):
        ext.__wrapped__  # noqa: B018


@pytest.mark.skipif(not STAND_IN, reason="compiled operators are installed")
def test_operator_outside_the_stand_in_fails_clearly_through_mmcv() -> None:
    with pytest.raises(Exception, match="compiled extension"):
        mmcv.ops.nms_rotated(torch.zeros(1, 5), torch.zeros(1), 0.5)


@pytest.mark.slow
@pytest.mark.contract
def test_compiled_extension_comes_first_where_there_is_one(tmp_path) -> None:
    """A module mmcv/_ext on the path is what `import mmcv._ext` gives, stand-in installed or not."""
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_ext.py").write_text("compiled = True\n")
    code = (
        "from gemnet.detection import mmcv_ext; mmcv_ext.install(); import mmcv._ext as e; "
        "assert e.compiled and not mmcv_ext.is_stand_in()"
    )
    env = {"PYTHONPATH": f"{tmp_path}:{':'.join(p for p in sys.path if p)}", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------------------------------- nms


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_nms_equals_reference(offset: int, threshold: float) -> None:
    rng = np.random.default_rng(7)
    boxes, scores = random_boxes(rng, 300), rng.permutation(300).astype(np.float32) / 300
    dets, index = mmcv.ops.nms(boxes, scores, threshold, offset=offset)
    assert index.tolist() == reference_nms(boxes, scores, threshold, offset)
    np.testing.assert_array_equal(dets[:, :4], boxes[index])
    np.testing.assert_array_equal(dets[:, 4], scores[index])


def test_nms_of_ten_thousand_boxes_equals_reference() -> None:
    rng = np.random.default_rng(1)
    boxes, scores = random_boxes(rng, 10_000, side=400), rng.permutation(10_000).astype(np.float32)
    index = ext.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5, 0)
    assert index.tolist() == reference_nms(boxes, scores, 0.5, 0)


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_of_degenerate_boxes_equals_reference(offset: int) -> None:
    boxes = np.array(
        [
            [5, 5, 5, 5],  # no area
            [5, 5, 5, 5],  # the same again
            [5, 5, 5, 9],  # a line
            [9, 9, 4, 4],  # inside out
            [-50, -50, -40, -40],  # outside the image
            [-50, -50, -40, -40.5],
            [0, 0, 10, 10],  # ties with the next
            [0, 0, 10, 10],
            [0, 5, 10, 10],  # IoU of exactly one half with the two above: kept, for it is not more
        ],
        np.float32,
    )
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.4, 0.4, 0.3], np.float32)
    for threshold in (0.0, 0.5):
        index = ext.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold, offset)
        assert index.tolist() == reference_nms(boxes, scores, threshold, offset)


def test_nms_offset_changes_what_is_suppressed() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [1.0, 0, 2, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert ext.nms(boxes, scores, 0.3, 0).tolist() == [0, 1]
    # With pixels counted inclusively both are 2 x 2 and share a column: IoU 2/6.
    assert ext.nms(boxes, scores, 0.3, 1).tolist() == [0]


def test_nms_of_no_boxes() -> None:
    assert ext.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 0).shape == (0,)
    dets, index = mmcv.ops.nms(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.5)
    assert dets.shape == (0, 5)
    assert index.shape == (0,)


# ---------------------------------------------------------------------------------------------- soft-NMS


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_equals_reference(method: str, offset: int) -> None:
    rng = np.random.default_rng(3)
    boxes, scores = random_boxes(rng, 200), (rng.permutation(200).astype(np.float32) + 1) / 200
    dets, index = mmcv.ops.soft_nms(
        boxes, scores, iou_threshold=0.3, sigma=0.5, min_score=0.05, method=method, offset=offset
    )
    expected, decayed = reference_soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    assert index.tolist() == expected
    np.testing.assert_allclose(dets[:, 4], decayed, atol=1e-5)
    np.testing.assert_array_equal(dets[:, :4], boxes[index])


def test_soft_nms_breaks_ties_as_the_kernel_does() -> None:
    """Traced by hand through nms.cpp: dropping box 1 moves the last box, 3, into its place, so 3 comes before 2."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 90]], np.float32)
    scores = np.array([0.9, 0.5, 0.5, 0.5], np.float32)
    _, index = mmcv.ops.soft_nms(boxes, scores, iou_threshold=0.3, min_score=0.1, method="naive")
    assert index.tolist() == [0, 3, 2]


def test_soft_nms_of_mmcvs_own_example_and_of_no_boxes() -> None:
    boxes = np.array(
        [[4, 3, 5, 3], [4, 3, 5, 4], [3, 1, 3, 1], [3, 1, 3, 1], [3, 1, 3, 1], [3, 1, 3, 1]], dtype=np.float32
    )
    scores = np.array([0.9, 0.9, 0.5, 0.5, 0.4, 0.0], np.float32)
    dets, index = mmcv.ops.soft_nms(boxes, scores, 0.6, sigma=0.5)
    assert len(dets) == len(index) == 5
    dets, index = mmcv.ops.soft_nms(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    assert dets.shape == (0, 5)
    assert index.shape == (0,)


def test_soft_nms_of_ten_thousand_boxes_keeps_scores_sorted_and_indices_unique() -> None:
    rng = np.random.default_rng(5)
    boxes, scores = random_boxes(rng, 10_000, side=1000), rng.random(10_000, dtype=np.float32)
    dets, index = mmcv.ops.soft_nms(boxes, scores, 0.3, min_score=0.01, method="linear")
    assert len(set(index.tolist())) == len(index) > 500
    assert (np.diff(dets[:, 4]) <= 0).all()
    assert (dets[:, 4] <= scores[index]).all()


# ---------------------------------------------------------------------------------------------- RoIAlign

ROIS = np.array(
    [
        [0, 0, 0, 31, 31],
        [1, 3.3, 4.7, 20.1, 11.9],
        [0, -20, -20, 5, 5],  # half outside
        [1, 100, 100, 120, 130],  # quite outside
        [1, 8, 8, 8, 8],  # no area
        [0, 8, 8, 8, 20],  # a line
        [1, 0, 0, 203, 3],  # far wider than the image (and not so that float32 decides how many samples it gets)
    ],
    np.float32,
)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_equals_reference(mode: str, aligned: bool, ratio: int) -> None:
    features = np.random.default_rng(0).standard_normal((2, 3, 9, 11)).astype(np.float32)
    out = mmcv.ops.roi_align(
        torch.from_numpy(features), torch.from_numpy(ROIS), (4, 4), 0.3, ratio, mode, aligned
    ).numpy()
    np.testing.assert_allclose(out, reference_roi_align(features, ROIS, 4, 0.3, ratio, mode, aligned), atol=1e-5)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_gradient_equals_finite_differences(mode: str, aligned: bool, ratio: int) -> None:
    features = np.random.default_rng(2).standard_normal((2, 2, 6, 7)).astype(np.float32)
    rois = ROIS[[0, 1, 2, 3, 6]]
    x = torch.from_numpy(features).requires_grad_()
    out = mmcv.ops.roi_align(x, torch.from_numpy(rois), (3, 3), 0.2, ratio, mode, aligned)
    direction = torch.from_numpy(np.random.default_rng(4).standard_normal(tuple(out.shape)).astype(np.float32))
    (out * direction).sum().backward()

    def value(at: np.ndarray) -> float:
        return float((reference_roi_align(at, rois, 3, 0.2, ratio, mode, aligned) * direction.numpy()).sum())

    assert x.grad is not None
    for index in [(0, 0, 0, 0), (0, 1, 3, 4), (1, 0, 5, 6), (1, 1, 2, 1), (0, 0, 2, 2), (1, 1, 0, 3)]:
        step = np.zeros_like(features, dtype=np.float64)
        step[index] = 1e-4
        slope = (value(features + step) - value(features - step)) / 2e-4
        assert slope == pytest.approx(x.grad[index].item(), abs=1e-3)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_of_no_boxes_has_zero_gradient(mode: str) -> None:
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    out = mmcv.ops.roi_align(x, torch.zeros(0, 5), (7, 7), 1.0, 0, mode, True)
    assert out.shape == (0, 2, 7, 7)
    out.sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


def test_roi_align_max_of_many_boxes_does_not_depend_on_how_they_are_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(9)
    rois = torch.from_numpy(np.concatenate([np.zeros((500, 1), np.float32), random_boxes(rng, 500)], 1))
    x = torch.randn(1, 4, 25, 25)
    whole = mmcv.ops.roi_align(x, rois, (3, 3), 0.25, 0, "max", True)
    monkeypatch.setattr(mmcv_roi_align, "_MAX_POOL_SAMPLES", 1)
    torch.testing.assert_close(mmcv.ops.roi_align(x, rois, (3, 3), 0.25, 0, "max", True), whole)


# ---------------------------------------------------------------------------------------------- focal loss


def loss(x: torch.Tensor, target: torch.Tensor, **options: object) -> torch.Tensor:
    """MMCV's autograd function, on whatever answers to mmcv._ext; compiled, it exists for CUDA only."""
    if not STAND_IN:
        pytest.skip("MMCV has no compiled focal loss for the CPU")
    return mmcv.ops.sigmoid_focal_loss(x, target, *options.values())


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.5), (0.0, 0.5)])
def test_focal_loss_equals_reference_and_torchvision(gamma: float, alpha: float) -> None:
    from torchvision.ops import sigmoid_focal_loss

    rng = np.random.default_rng(0)
    # In double precision: in single, log(1 - p) loses digits as p nears 1, here as in the kernel.
    x = torch.from_numpy(rng.standard_normal((50, 8)) * 3)
    target = torch.from_numpy(rng.integers(0, 9, 50))  # 8 is background
    out = loss(x, target, gamma=gamma, alpha=alpha, weight=None, reduction="none")
    np.testing.assert_allclose(out.numpy(), reference_focal(x.numpy(), target.numpy(), gamma, alpha), atol=1e-9)
    hot = torch.nn.functional.one_hot(target, 9)[:, :8].double()
    theirs = sigmoid_focal_loss(x, hot, alpha=alpha, gamma=gamma)
    torch.testing.assert_close(out, theirs, atol=1e-9, rtol=1e-9)
    single = loss(x.float(), target, gamma=gamma, alpha=alpha, weight=None, reduction="none")
    torch.testing.assert_close(single, out.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_focal_loss_gradient_equals_autograd_of_torchvisions(reduction: str) -> None:
    from torchvision.ops import sigmoid_focal_loss

    x = (torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) * 4).requires_grad_()
    target = torch.randint(0, 6, (40,), generator=torch.Generator().manual_seed(1))
    out = loss(x, target, gamma=2.0, alpha=0.25, weight=None, reduction=reduction)
    (ours,) = torch.autograd.grad(out.sum(), x)
    hot = torch.nn.functional.one_hot(target, 6)[:, :5].float()
    theirs = sigmoid_focal_loss(x, hot, 0.25, 2.0)
    theirs = theirs.sum() / 40 if reduction == "mean" else theirs.sum()
    torch.testing.assert_close(ours, torch.autograd.grad(theirs, x)[0], atol=1e-5, rtol=1e-4)


def test_focal_loss_stays_finite_at_extreme_logits() -> None:
    x = torch.tensor([[-200.0, 200.0], [200.0, -200.0], [0.0, 0.0]], requires_grad=True)
    target = torch.tensor([0, 0, 2])
    out = loss(x, target, gamma=2.0, alpha=0.25, weight=None, reduction="none")
    assert torch.isfinite(out).all()
    # log(FLT_MIN) is where the kernel clamps: -87.3366.
    assert out[0, 0].item() == pytest.approx(0.25 * 87.3366, abs=1e-3)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.isfinite(gradient).all()


def test_focal_loss_weights_rows_by_their_target_class() -> None:
    x = torch.randn(6, 2)
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    plain = loss(x, target, gamma=2.0, alpha=0.25, weight=None, reduction="none")
    weighted = loss(x, target, gamma=2.0, alpha=0.25, weight=torch.tensor([2.0, 3.0]), reduction="none")
    torch.testing.assert_close(weighted, plain * torch.tensor([2.0, 3, 1, 2, 3, 1])[:, None])


def test_focal_loss_of_no_rows() -> None:
    x = torch.zeros(0, 3, requires_grad=True)
    out = loss(x, torch.zeros(0, dtype=torch.long), gamma=2.0, alpha=0.25, weight=None, reduction="sum")
    out.backward()
    assert x.grad is not None
    assert x.grad.shape == (0, 3)
