"""Training and development images are divided alike."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from gemnet.training.completion import check_division
from gemnet.training.runner_config import RunnerError, load_runner_config
from gemnet.training.runner_config import find_runner_config as find


def config_with(*options: tuple[str, str, object]) -> Config:
    dotted = {f"{loader}_dataloader.dataset.{key}": value for loader, key, value in options}
    return load_runner_config(find("gemnet_a_cifar_cifar10"), dotted)


@pytest.mark.parametrize(("key", "value"), [("dev_fraction", 0.02), ("split_seed", 1)])
@pytest.mark.parametrize("loader", ["train", "val"])
def test_images_that_one_loader_divides_otherwise_are_refused(loader: str, key: str, value: float) -> None:
    with pytest.raises(RunnerError, match=rf"dataset\.{key}"):
        check_division(config_with((loader, key, value)))


def test_images_of_another_source_and_those_divided_alike_are_taken() -> None:
    check_division(config_with())
    check_division(config_with(("train", "dev_fraction", 0.02), ("val", "dev_fraction", 0.02)))
    check_division(config_with(("train", "dev_fraction", 0.02), ("val", "source", "photos")))
