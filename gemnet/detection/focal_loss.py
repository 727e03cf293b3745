"""The sigmoid focal loss of MMDetection's heads, its gradient taken in the same pass.

Source: Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002. On a CPU MMDetection falls back on a
version for debugging that spreads classes into one-hot rows and keeps eight arrays of the logits' size for autograd.
Here nearly all elements are what they are, negatives; positives are put right one by one, and the gradient is all that
is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gemnet.registry import MODELS

_EPSILON = torch.finfo(torch.float32).eps  # what MMDetection adds to the number it divides by


@MODELS.register_module()
class FocalLoss(nn.Module):
    """In place of MMDetection's ``FocalLoss``, of logits and class numbers: ``loss_cls=dict(type='gemnet.FocalLoss')``.

    Args:
        use_sigmoid: must be true; heads read it from the config.
        gamma: how strongly easy examples are discounted.
        alpha: weight of positives; negatives weigh 1 - alpha.
        reduction: ``none``, ``mean`` or ``sum``.
        loss_weight: factor on the result.

    Raises:
        ValueError: a softmax, or a reduction that does not exist.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float = 0.25,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not use_sigmoid:
            raise ValueError("FocalLoss is a loss of sigmoids: use_sigmoid must be True, got False.")
        _check_reduction(reduction)
        self.use_sigmoid = use_sigmoid
        self.gamma, self.alpha = gamma, alpha
        self.reduction, self.loss_weight = reduction, loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss.

        Args:
            pred: (n, classes) logits.
            target: int64 (n,), the class, or any other number, such as ``classes``, for background.
            weight: (n,) or (n, classes), factors.
            avg_factor: what a mean divides by, in place of the number of elements.
            reduction_override: in place of the module's.

        Returns:
            float32: one number, or (n, classes) with ``none``.

        Raises:
            ValueError: shapes that don't fit, or a sum that is to be divided.
        """
        reduction = reduction_override or self.reduction
        _check_reduction(reduction)
        if pred.dim() != 2 or target.shape != pred.shape[:1]:
            raise ValueError(
                f"FocalLoss takes logits (n, classes) and classes (n,), got {tuple(pred.shape)} and "
                f"{tuple(target.shape)}."
            )
        if avg_factor is not None and reduction == "sum":
            raise ValueError("avg_factor divides a mean; with reduction 'sum' nothing is divided. Leave one out.")
        loss: Tensor = sigmoid_focal_loss(pred, target, self.gamma, self.alpha)
        if weight is not None:
            loss = loss * (weight if weight.dim() == 2 else weight[:, None])
        if reduction == "sum":
            loss = loss.sum()
        elif reduction == "mean":
            loss = loss.mean() if avg_factor is None else loss.sum() / (avg_factor + _EPSILON)
        return self.loss_weight * loss


def sigmoid_focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Focal loss of each element: ``-alpha (1 - p)^gamma log p`` at a row's class, ``-(1 - alpha) p^gamma log(1 - p)``
    elsewhere, p the sigmoid of the logit.

    Args:
        logits: (n, classes).
        target: int64 (n,), the class, or ``classes`` for background.
        gamma: see above.
        alpha: see above.

    Returns:
        (n, classes), float32 or, of float64 logits, float64; differentiable once by ``logits``.
    """
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss: Tensor = _SigmoidFocalLoss.apply(exact, target, gamma, alpha)
    return loss


class _SigmoidFocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
        p = torch.sigmoid(logits)
        log_not = F.logsigmoid(-logits)  # log(1 - p), exact where p is nearly one
        discount = p * p if gamma == 2 else p**gamma
        loss = (log_not * discount).mul_(alpha - 1)
        # (1 - alpha) p^gamma (p - gamma (1 - p) log(1 - p)), in the arrays that are no longer needed
        gradient = log_not.mul_(p - 1).mul_(gamma).add_(p).mul_(discount).mul_(1 - alpha)
        rows = torch.nonzero((target >= 0) & (target < logits.size(1))).squeeze(1)
        columns = target[rows]
        q, log_p = 1 - p[rows, columns], F.logsigmoid(logits[rows, columns])
        factor = alpha * q**gamma
        loss[rows, columns] = -factor * log_p
        gradient[rows, columns] = factor * (gamma * (1 - q) * log_p - q)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, output: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * output, None, None, None


def _check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction is 'none', 'mean' or 'sum', got {reduction!r}.")
