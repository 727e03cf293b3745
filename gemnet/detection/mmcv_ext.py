"""A stand-in for ``mmcv._ext``, MMCV's compiled operators, where there is no compiler.

MMDetection imports all of its models before it looks for anyone else's, and those import ``mmcv._ext``. A wheel of
MMCV that was built without PyTorch beside it lacks that module, and building it takes a C++ compiler and 20 minutes.
`install` puts a finder at the *end* of ``sys.meta_path``: compiled operators, where there are any, are found first and
nothing here is used; elsewhere ``import mmcv._ext`` gives a module with the operators that MMDetection's detectors
call, on top of ``torchvision.ops`` and plain PyTorch. MMCV itself is not touched.

The functions have the signatures of MMCV's C++ functions: they fill the tensors handed in. They follow its formulas,
ties and degenerate cases included (`mmcv/ops/csrc`, Apache-2.0). Any other operator is a function that raises
`MissingOperatorError`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor

from gemnet.detection.mmcv_layers import LAYERS
from gemnet.detection.mmcv_roi_align import (
    deform_roi_pool_backward,
    deform_roi_pool_forward,
    roi_align_backward,
    roi_align_forward,
)
from gemnet.errors import GemnetError

MODULE = "mmcv._ext"

# FLT_MIN: the kernels clamp probabilities to it before the logarithm.
_SMALLEST_PROBABILITY = 1.1754943508222875e-38


class MissingOperatorError(GemnetError, NotImplementedError):
    """An operator that only MMCV's compiled extension has."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (n, 4), corners x1, y1, x2, y2 in pixels.
        scores: (n,).
        iou_threshold: boxes that overlap a better one by more than this are dropped.
        offset: 0, or 1 where x2 and y2 are the last pixel inside the box.

    Returns:
        int64 (k,): indices of the boxes kept, best first.
    """
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    # torchvision sorts stably, MMCV's kernel does not: sorted as there, ties are broken as there.
    ordered, order = scores.float().sort(descending=True)
    # Adding the offset to the far corners gives the same widths and the same intersections.
    far = boxes.new_tensor([0, 0, offset, offset])
    return order[torchvision.ops.nms((boxes + far)[order].float(), ordered, float(iou_threshold))]


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft non-maximum suppression (Bodla et al., arXiv 1704.04503): overlapped boxes lose score, not their place.

    Args:
        boxes: (n, 4) on the CPU.
        scores: (n,).
        dets: (n, 5), filled with box and decayed score in the order of choice; only the first k rows mean something.
        iou_threshold: overlap from which the score is reduced (methods 0 and 1).
        sigma: width of the Gaussian (method 2).
        min_score: boxes whose score falls below are dropped.
        method: 0 sets the score to zero, 1 multiplies it by 1 - IoU, 2 by exp(-IoU^2 / sigma).
        offset: as in `nms`.

    Returns:
        int64 (k,): indices of the boxes in the order of choice.
    """
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.long)
    corner = boxes.detach().cpu().float().numpy().T.copy()
    score = scores.detach().cpu().float().numpy().copy()
    number = np.arange(len(score))
    shift = np.float32(offset)
    area = (corner[2] - corner[0] + shift) * (corner[3] - corner[1] + shift)
    out = np.empty((len(score), 5), dtype=np.float32)
    count, first = len(score), 0
    while first < count:
        best = first + _first_greatest(score[first:count])
        for row in (*corner, score, number, area):
            row[first], row[best] = row[best], row[first]
        out[first, :4], out[first, 4] = corner[:, first], score[first]
        rest = slice(first + 1, count)
        width = np.minimum(corner[2, first], corner[2, rest]) - np.maximum(corner[0, first], corner[0, rest]) + shift
        height = np.minimum(corner[3, first], corner[3, rest]) - np.maximum(corner[1, first], corner[1, rest]) + shift
        inter = np.maximum(width, 0) * np.maximum(height, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            overlap = inter / (area[first] + area[rest] - inter)
        if method == 2:
            # In double precision, for NumPy's single-precision exp is off by more than the C library's.
            score[rest] *= np.exp((-(overlap * overlap) / np.float32(sigma)).astype(np.float64)).astype(np.float32)
        else:
            reduced = np.float32(0) if method == 0 else 1 - overlap
            score[rest] *= np.where(overlap >= np.float32(iou_threshold), reduced, np.float32(1))
        first += 1
        # The kernel overwrites a dropped box with the last one, so the order of equal scores depends on this.
        dropped = score[rest] < np.float32(min_score)
        left = len(dropped) - int(dropped.sum())
        holes = np.flatnonzero(dropped[:left])
        movers = left + np.flatnonzero(~dropped[left:])[::-1]
        for row in (*corner, score, number, area):
            row[first + holes] = row[first + movers]
        count = first + left
    dets.copy_(torch.from_numpy(out))
    return torch.from_numpy(number[:count])


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of boxes: each that non-maximum suppression keeps, with those it drops in its favour.

    Args:
        dets: (n, 5) on the CPU, corners and score.
        iou_threshold: boxes that overlap a better one by this or more belong to it.

    Returns:
        Indices, best first in each group; groups in the order of their best.
    """
    boxes = dets[:, :4].float().numpy()
    x1, y1, x2, y2 = boxes.T
    area = (x2 - x1) * (y2 - y1)
    order = dets[:, 4].sort(descending=True)[1].numpy()
    groups = []
    while len(order):
        best, rest = order[0], order[1:]
        width = np.maximum(np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest]), 0)
        height = np.maximum(np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest]), 0)
        inter = width * height
        with np.errstate(divide="ignore", invalid="ignore"):
            dropped = inter / (area[best] + area[rest] - inter) >= np.float32(iou_threshold)
        groups.append([int(best), *rest[dropped].tolist()])
        order = rest[~dropped]
    return groups


def _first_greatest(score: NDArray[np.floating]) -> int:
    """Where the kernel's search ends: NaN, which the Gaussian makes of boxes without area, is greater than nothing."""
    best = int(np.argmax(score))
    if np.isnan(score[best]):
        return 0 if np.isnan(score[0]) else int(np.nanargmax(score))
    return best


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Sigmoid focal loss (Lin et al., arXiv 1708.02002) of each element.

    Args:
        input: (n, classes) logits.
        target: int64 (n,), the class, or ``classes`` for background.
        weight: (classes,) a factor for each target class (background counts 1), or empty.
        output: (n, classes), filled.
        gamma: how strongly easy examples are discounted.
        alpha: weight of positives; negatives weigh 1 - alpha.
    """
    positive, p = _positive(input, target), torch.sigmoid(input)
    loss = torch.where(
        positive,
        -alpha * (1 - p) ** gamma * torch.log(p.clamp(min=_SMALLEST_PROBABILITY)),
        (alpha - 1) * p**gamma * torch.log((1 - p).clamp(min=_SMALLEST_PROBABILITY)),
    )
    output.copy_(loss * _class_weight(weight, target, input))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Gradient of each element of `sigmoid_focal_loss_forward` by its logit; fills ``grad_input`` (n, classes)."""
    positive, p = _positive(input, target), torch.sigmoid(input)
    log_p = torch.log(p.clamp(min=_SMALLEST_PROBABILITY))
    log_not = torch.log((1 - p).clamp(min=_SMALLEST_PROBABILITY))
    gradient = torch.where(
        positive,
        -alpha * (1 - p) ** gamma * (1 - p - gamma * p * log_p),
        (alpha - 1) * p**gamma * (gamma * (1 - p) * log_not - p),
    )
    grad_input.copy_(gradient * _class_weight(weight, target, input))


def _positive(logits: Tensor, target: Tensor) -> Tensor:
    return target[:, None] == torch.arange(logits.size(1), device=logits.device)


def _class_weight(weight: Tensor, target: Tensor, logits: Tensor) -> Tensor:
    if weight.numel() == 0:
        return logits.new_ones(1)
    return torch.cat([weight, weight.new_ones(1)])[target][:, None]


def get_compiler_version() -> str:
    """What MMCV's environment report prints for the compiler."""
    return "none (gemnet.detection.mmcv_ext)"


def get_compiling_cuda_version() -> str:
    """What MMCV's environment report prints for CUDA."""
    return "none (gemnet.detection.mmcv_ext)"


OPERATORS: dict[str, Any] = {
    function.__name__: function
    for function in (
        nms,
        nms_match,
        softnms,
        roi_align_forward,
        roi_align_backward,
        deform_roi_pool_forward,
        deform_roi_pool_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
        get_compiler_version,
        get_compiling_cuda_version,
        *LAYERS,
    )
}


def _missing(name: str) -> Callable[..., NoReturn]:
    def operator(*args: object, **kwargs: object) -> NoReturn:
        raise MissingOperatorError(
            f"mmcv's operator {name!r} needs MMCV's compiled extension, and this MMCV has none. GEMNet stands in for "
            "NMS (plain, soft, matching), RoIAlign, deformable RoI pooling, sigmoid focal loss, deformable and masked "
            "convolution and CARAFE only. Build MMCV's operators: a C++ compiler, setuptools >= 77, "
            "`MMCV_WITH_OPS=1 pip install --no-build-isolation --no-binary onedl-mmcv onedl-mmcv`; "
            f"{_builds()}. Or choose a model without this operator."
        )

    operator.__name__ = operator.__qualname__ = name
    return operator


def _builds() -> str:
    """Whether that build works with the PyTorch that is installed: its headers want C++20 from 2.13 on."""
    version = torch.__version__.split("+")[0]
    if tuple(int(part) for part in version.split(".")[:2]) < (2, 13):
        return f"with PyTorch {version} that works"
    return (
        f"with PyTorch {version} that fails, as its headers want C++20 from 2.13 on and MMCV asks for C++17: take "
        "PyTorch 2.12, or build from MMCV's sources with -std=c++20 in the place of -std=c++17 in its setup.py"
    )


class _StandInLoader(Loader):
    """Fills the module that answers to ``mmcv._ext``."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = __doc__
        vars(module).update(OPERATORS)

        def missing(name: str) -> Callable[..., NoReturn]:
            # Python itself asks modules for dunder names; answering those with a function would break introspection.
            if name.startswith("__"):
                raise AttributeError(name)
            return _missing(name)

        vars(module)["__getattr__"] = missing


class _StandInFinder(MetaPathFinder):
    """Answers for ``mmcv._ext`` alone, after every other finder has said no."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != MODULE:
            return None
        return ModuleSpec(fullname, _StandInLoader(), origin=__file__)


def install() -> None:
    """Makes ``import mmcv._ext`` work where MMCV was built without it. May be called again."""
    if not any(isinstance(finder, _StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(_StandInFinder())


def is_stand_in() -> bool:
    """Whether MMCV's operators come from this file rather than from compiled code.

    Raises:
        ModuleNotFoundError: MMCV is not installed.
    """
    spec = importlib.util.find_spec(MODULE)
    return spec is not None and isinstance(spec.loader, _StandInLoader)
