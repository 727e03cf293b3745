"""A warm-up in iterations is not the whole of a short training."""

from __future__ import annotations

import pytest

from gemnet.training.runner import shorten_warmup
from gemnet.training.runner_config import find_runner_config as find
from gemnet.training.runner_config import load_runner_config


@pytest.mark.parametrize(("iterations", "end"), [(39_100, 500), (1_400, 140), (3, 1)])
def test_a_warmup_takes_a_tenth_of_a_training_at_most(iterations: int, end: int) -> None:
    schedulers = load_runner_config(find("gemnet_a_cifar_cifar10")).param_scheduler
    others = [dict(each) for each in schedulers[1:]]
    shorten_warmup(schedulers, iterations)
    assert schedulers[0]["end"] == end
    assert [dict(each) for each in schedulers[1:]] == others


def test_schedules_of_other_kinds_are_left_alone() -> None:
    by_epoch = [{"type": "LinearLR", "by_epoch": True, "end": 500}]
    shorten_warmup(by_epoch, 10)
    assert by_epoch[0]["end"] == 500
    shorten_warmup({"optimizer": by_epoch}, 10)
