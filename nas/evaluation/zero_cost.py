"""Zero-cost signals: what an untrained network says about itself in one pass over one batch.

Of those that were tried, the gradient by the images at initialisation is the one that ranks the GEMNet space's
candidates: the smaller, the better they learn. What it adds to the predictor, and what others don't, is measured by
``tools/measure/zero_cost.py`` and told in ``docs/benchmarks.md``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

BATCH = 64
"""Images that signals are computed on."""
_WORST = 30.0
_DIGITS = 4  # so that a sum taken in another order is the same signal


def input_gradient(network: nn.Module, images: Tensor) -> Tensor:
    """The gradient of the sum of all logits by the images, in training mode.

    Args:
        network: untrained; left in training mode.
        images: float (n, channels, side, side).

    Returns:
        As the images.
    """
    images = images.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network.train()(images).sum(), images)
    return gradient


def log_input_gradient(network: nn.Module, images: Tensor) -> float:
    """Logarithm of the norm of `input_gradient`, within -30 to 30; 30 where it is not finite."""
    norm = float(input_gradient(network, images).norm())
    if not math.isfinite(norm):
        return _WORST
    return round(min(max(math.log(max(norm, 1e-30)), -_WORST), _WORST), _DIGITS)
