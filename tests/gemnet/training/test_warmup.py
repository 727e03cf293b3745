"""A warm-up is not the whole of a short training."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim import LinearLR

from gemnet.training.runner import shorten_warmup
from gemnet.training.runner_config import find_runner_config as find
from gemnet.training.runner_config import load_runner_config


@pytest.mark.parametrize(("iterations", "end"), [(39_100, 500), (1_400, 140), (3, 2)])
def test_a_warmup_takes_a_tenth_of_a_training_at_most(iterations: int, end: int) -> None:
    schedulers = load_runner_config(find("gemnet_a_cifar_cifar10")).param_scheduler
    others = [dict(each) for each in schedulers[1:]]
    shorten_warmup(schedulers, iterations, 391)
    assert schedulers[0]["end"] == end
    assert [dict(each) for each in schedulers[1:]] == others


def test_schedules_of_other_kinds_are_left_alone() -> None:
    by_epoch = [{"type": "LinearLR", "by_epoch": True, "end": 500}]
    shorten_warmup(by_epoch, 10, 5)
    assert by_epoch[0]["end"] == 500
    shorten_warmup({"optimizer": by_epoch}, 10, 5)
    falls = [{"type": "LinearLR", "by_epoch": False, "begin": 0, "end": 500, "start_factor": 1.0, "end_factor": 0.0}]
    shorten_warmup(falls, 500, 5)
    assert falls[0]["end"] == 500


@pytest.mark.parametrize("config", ["finetune", "gemnet_a_in1k", "gemnet_a_imagenette96", "faster_rcnn_gemnet_coco320"])
@pytest.mark.parametrize(("epochs", "epoch"), [(3, 1), (2, 3), (30, 40)])
def test_a_warmup_reaches_the_learning_rate_within_a_short_training(config: str, epochs: int, epoch: int) -> None:
    warmup = load_runner_config(find(config)).param_scheduler[:1]
    shorten_warmup(warmup, epochs * epoch, epoch)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
    settings = {key: value for key, value in warmup[0].items() if key != "type"}
    schedule = LinearLR(optimizer, **settings)
    rates = []
    for _ in range(epochs * epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] < 0.02
    assert rates[max(1, len(rates) // 10)] == pytest.approx(0.02)


def test_a_warmup_of_an_epoch_stays_one_in_a_long_training() -> None:
    warmup = load_runner_config(find("finetune")).param_scheduler[:1]
    shorten_warmup(warmup, 30 * 40, 40)
    assert (warmup[0]["end"], warmup[0]["by_epoch"]) == (40, False)
