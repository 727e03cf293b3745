"""gemnet.FocalLoss: MMDetection's loss, value and gradient, in a tenth of the memory."""

from __future__ import annotations

import pytest
import torch

import gemnet.detection  # before mmdet
from gemnet.detection.focal_loss import FocalLoss, sigmoid_focal_loss

mmdet = pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")

ROWS, CLASSES = 60, 7


@pytest.fixture
def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(ROWS, CLASSES, generator=generator) * 4).requires_grad_()
    target = torch.randint(0, CLASSES + 1, (ROWS,), generator=generator)  # CLASSES is background
    return logits, target, torch.rand(ROWS, generator=generator)


@pytest.mark.parametrize("gamma", [2.0, 1.5, 0.0])
@pytest.mark.parametrize(
    "reduction", [{"reduction": "none"}, {"reduction": "mean"}, {"reduction": "sum"}, {"avg_factor": 3.5}]
)
@pytest.mark.parametrize("weighted", [None, "rows", "elements"])
def test_value_and_gradient_are_those_of_mmdetection(
    example: tuple[torch.Tensor, torch.Tensor, torch.Tensor], gamma: float, reduction: dict, weighted: str | None
) -> None:
    from mmdet.models.losses import FocalLoss as Theirs

    logits, target, weight = example
    factors = {None: None, "rows": weight, "elements": weight[:, None].expand(-1, CLASSES).contiguous()}[weighted]
    options = {"gamma": gamma, "alpha": 0.3, "loss_weight": 1.7}
    call = {"weight": factors, "avg_factor": reduction.get("avg_factor")}
    call["reduction_override"] = reduction.get("reduction")
    results = []
    for loss in (FocalLoss(**options), Theirs(**options)):
        value = loss(logits, target, **call)
        results.append((value, *torch.autograd.grad(value.square().sum(), logits)))
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)


def test_gradient_is_the_derivative() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 4, (12,), generator=generator)
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, target, 1.7, 0.4), logits)


def test_extreme_logits_give_finite_values_and_gradients() -> None:
    logits = torch.tensor([[-200.0, 200.0], [200.0, -200.0], [0.0, 0.0]], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0, 1, 2]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss[0, 0].item() == pytest.approx(0.25 * 200)  # not clamped: -log p of a hopeless logit is the logit
    assert loss[0, 1].item() == pytest.approx(0.75 * 200)
    assert torch.isfinite(gradient).all()


def test_half_precision_logits_are_computed_in_single_precision() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    loss = sigmoid_focal_loss(logits, torch.tensor([0, 1, 2, 3, 3]))
    assert loss.dtype == torch.float32
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16


def test_any_number_that_is_no_class_means_background() -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    losses = [FocalLoss(reduction="none")(logits, torch.tensor(target)) for target in ([3, 3], [-1, -100], [255, 3])]
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(losses[2], losses[0])


def test_no_rows_give_a_loss_of_zero() -> None:
    logits = torch.zeros(0, 3, requires_grad=True)
    FocalLoss()(logits, torch.zeros(0, dtype=torch.long), avg_factor=1.0).backward()
    assert logits.grad is not None
    assert logits.grad.shape == (0, 3)


def test_retinanet_of_our_config_uses_it() -> None:
    from mmdet.registry import MODELS

    from gemnet.training.runner_config import find_runner_config, load_runner_config

    config = load_runner_config(find_runner_config("retinanet_gemnet_coco320"))
    assert isinstance(MODELS.build(config.model.bbox_head.loss_cls), gemnet.detection.FocalLoss)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: FocalLoss(use_sigmoid=False), "use_sigmoid"),
        (lambda: FocalLoss(reduction="median"), "'median'"),
        (lambda: FocalLoss()(torch.zeros(4, 3), torch.zeros(4, 3)), r"\(4, 3\)"),
        (lambda: FocalLoss(reduction="sum")(torch.zeros(1, 3), torch.zeros(1).long(), avg_factor=2.0), "avg_factor"),
    ],
)
def test_mistakes_are_named(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
