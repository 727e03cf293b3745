"""What is compared with what, and how all of it is trained: mmengine config files, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gemnet.data.datasets import DataSpec
from gemnet.strict import Component, ConfigError, at_least, make
from gemnet.training.recipe import Recipe
from nas.executors.options import WorkerOptions
from nas.studies.comparison.timing import FitOptions


@dataclass(frozen=True)
class ChoiceOptions:
    """The short runs on which learning rate and form of each network are chosen, by development accuracy.

    Args:
        epochs: of a short run.
        subset: share of the training images it sees.
        seed: of all of them; not one of the seeds that are compared.
    """

    epochs: int = 2
    subset: float = 0.3
    seed: int = 1000

    def __post_init__(self) -> None:
        at_least("choice", self, epochs=1)
        if not 0 < self.subset <= 1:
            raise ConfigError(f"choice.subset is a share of the training images in (0, 1], got {self.subset}.")


@dataclass(frozen=True)
class ComparisonConfig:
    """Everything a comparison is.

    Args:
        data: the images; all figures are on their development part until the test images are opened.
        networks: what is compared; types and options are in `nas.studies.comparison.networks`.
        reference: name of the network all others are compared with, and whose MACs or time they are fitted to.
        epochs: of a training that counts.
        lrs: peak learning rates to choose from; of a single one nothing is chosen.
        recipe: how all are trained; its ``lr`` is what is chosen.
        choice: the short runs it is chosen on.
        fit: by what peers are fitted to the reference.
        seeds: of the trainings; the same for all networks, so that differences are paired.
        workers: processes that train, and compute threads of each.
    """

    data: DataSpec
    networks: tuple[Component, ...]
    reference: str
    epochs: int
    lrs: tuple[float, ...]
    recipe: Recipe = field(default_factory=Recipe)
    choice: ChoiceOptions = field(default_factory=ChoiceOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    seeds: tuple[int, ...] = (0, 1, 2)
    workers: WorkerOptions = field(default_factory=WorkerOptions)

    def __post_init__(self) -> None:
        if not self.lrs:
            raise ConfigError("lrs is empty. List the learning rates to choose from, such as lrs=[0.1, 0.2, 0.4].")
        for lr in self.lrs:
            if not 1e-8 <= lr <= 100:
                raise ConfigError(f"lrs holds {lr!r}; a learning rate lies between 1e-8 and 100.")
        for name in ("lrs", "seeds"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ConfigError(f"{name} lists a value twice: {list(values)}.")
        if not self.seeds or min(self.seeds) < 0:
            raise ConfigError(f"seeds lists at least one whole number from 0 up, got {list(self.seeds)}.")
        if self.choice.seed in self.seeds:
            raise ConfigError(
                f"choice.seed is {self.choice.seed}, which is also one of the seeds that are compared. Choose another."
            )
        at_least("", self, epochs=1)
        if not self.networks:
            raise ConfigError("networks is empty. List what is compared, such as dict(type='timm', arch='resnet18').")


def read_comparison(data: Mapping[str, Any]) -> ComparisonConfig:
    """A comparison from plain dicts.

    Raises:
        ConfigError: a key that does not exist (the nearest is named), one that is missing, or a value out of range.
    """
    if isinstance(data.get("recipe"), Mapping) and "lr" in data["recipe"]:
        raise ConfigError("recipe.lr is given, but the learning rate is chosen for each network. Put it into lrs.")
    return make(ComparisonConfig, data, "")
