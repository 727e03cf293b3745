"""Search configs: mmengine config files, read strictly.

A config is a Python file with one assignment per part, and ``_base_`` for what it builds on. Every key is checked: a
wrong one is an error that names the nearest right one, so that a typing error never silently changes a search.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from gemnet.config_files import config_folder, read_file
from gemnet.errors import nearest
from gemnet.strict import Component, ConfigError, at_least, make
from nas.evaluation.latency import LatencyOptions
from nas.evaluation.records import Fidelity
from nas.evaluation.score import EfficiencyScore
from nas.evaluation.storage import place_of, without_credentials
from nas.executors.options import WorkerOptions
from nas.spaces.limits import Limits


def _is_time(where: str, seconds: float | None) -> None:
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"{where} is a positive number of seconds, or None for no limit; got {seconds}.")


@dataclass(frozen=True)
class SearchOptions:
    """The search itself.

    Args:
        evaluations: candidates to evaluate. May be raised when a search is resumed.
        batch: candidates the strategy proposes at a time.
        ahead: a batch is proposed when all but the last ``ahead`` proposals before it are evaluated. With 0 every batch
            uses all earlier results, and workers wait at its end; about half a batch keeps them busy. The number is
            fixed so that a search does not depend on which worker is faster.
        seed: seed of the strategy.
        start_from: work folder of an earlier search, or a table of its evaluations (.csv): this one begins with those
            instead of with random candidates. Those of the same evaluator and fidelity within the limits are taken;
            they count.
        first: known candidates to evaluate before any other, each as ``dict(cell=dict(ops=[...], edges=[...]),
            macro=dict(...))``. They count, and random ones fill up their last batch. A choice that is left out of
            ``macro``, such as ``width``, takes the value of most MACs that the limits admit; where they admit none, the
            candidate is left out.
        steps: lowest number of optimiser steps of a candidate's training (``training`` only). Where ``fidelity`` gives
            fewer, as with a small data set, more of its images are used, and then more epochs. None sets no minimum.
        retry_failed: whether failed evaluations are repeated. May change when a search is resumed.
    """

    evaluations: int = 60
    batch: int = 8
    ahead: int = 4
    seed: int = 0
    start_from: str | None = None
    first: tuple[Mapping[str, Any], ...] = ()
    steps: int | None = None
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if self.first and self.start_from is not None:
            raise ConfigError(
                "search.first and search.start_from both say how the search begins. Leave one of them out."
            )
        at_least("search", self, evaluations=1, batch=1, ahead=0, seed=0, steps=1)

    @property
    def proposed(self) -> int:
        """How many candidates the strategy is asked for: whole batches."""
        return -(-self.evaluations // self.batch) * self.batch


@dataclass(frozen=True)
class ConfirmOptions:
    """Re-evaluation of the best candidates before one is chosen: the best of many noisy results is overestimated.

    Args:
        top: how many of the best are evaluated again; 0 chooses by the search's own evaluations.
        seeds: fresh training seeds for each; their mean decides.
        epochs: epochs of these evaluations; None for the search's own.
    """

    top: int = 4
    seeds: int = 2
    epochs: int | None = None

    def __post_init__(self) -> None:
        at_least("confirm", self, top=0, seeds=1, epochs=1)


@dataclass(frozen=True)
class FinalOptions:
    """The longer training of the found network.

    Args:
        epochs: its epochs.
        time_limit: seconds after which it is given up; None for none.
    """

    epochs: int
    time_limit: float | None = None

    def __post_init__(self) -> None:
        at_least("final", self, epochs=1)
        _is_time("final.time_limit", self.time_limit)


@dataclass(frozen=True)
class ComparisonOptions:
    """What the found network is compared with: networks trained alike that cost no more than it does.

    Args:
        random_cells: random cells of the space.
        blocks: hand-made blocks by name.
        seeds: trainings of each hand-made block and of the found network.
        epochs: epochs of all of them; None for those of ``final``. With another number the found network is trained
            twice: so long for the comparison, and as long as ``final`` says for its weights.
        test: whether all of them are also measured on the official test images. Each use is logged in the work folder.
    """

    random_cells: int = 4
    blocks: tuple[str, ...] = ("mobilenetv2", "resnet")
    seeds: int = 1
    epochs: int | None = None
    test: bool = False

    def __post_init__(self) -> None:
        at_least("comparison", self, random_cells=0, seeds=1, epochs=1)


@dataclass(frozen=True)
class SearchConfig:
    """All settings of a search.

    Args:
        space: the search space.
        strategy: the search strategy.
        evaluator: what measures candidates: ``training``, ``detector`` or ``tabular``, or a class of your own.
        fidelity: how thoroughly candidates are measured: epochs, resolution, share of the images.
        data: the images, as `gemnet.data.datasets.DataSpec` (``training`` only).
        recipe: how candidates are trained (``training`` only).
        score: what is maximised: accuracy, weighed against a cost.
        limits: hard limits on MACs, parameters and latency.
        latency: device, runtime and batch size for which latencies are limited or penalised; None for the defaults.
        search: number of evaluations, batches and seed.
        time_limit: seconds after which an evaluation is given up; None for none.
        workers: the workers, and where they run.
        confirm: re-evaluation of the best.
        final: longer training of the chosen one; None for none.
        comparison: what it is compared with; None for nothing.
        ledger: SQLAlchemy URL of a shared ledger; None for an SQLite file in the work folder.
        callbacks: other tools that follow the search (`nas.search.callbacks`). They change no results, and may change
            when a search is resumed.
    """

    space: Component
    strategy: Component
    evaluator: Component
    fidelity: Fidelity
    data: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    score: EfficiencyScore = field(default_factory=EfficiencyScore)
    limits: Limits = field(default_factory=Limits)
    latency: LatencyOptions | None = None
    search: SearchOptions = field(default_factory=SearchOptions)
    time_limit: float | None = None
    workers: WorkerOptions = field(default_factory=WorkerOptions)
    confirm: ConfirmOptions = field(default_factory=ConfirmOptions)
    final: FinalOptions | None = None
    comparison: ComparisonOptions | None = None
    ledger: str | None = None
    callbacks: tuple[Component, ...] = ()

    def __post_init__(self) -> None:
        _is_time("time_limit", self.time_limit)

    def to_dict(self) -> dict[str, Any]:
        """Plain data without credentials, for JSON; `read_config` of it gives this config again."""
        data: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Component):
                value = _plain(value)
            elif item.name == "callbacks":
                value = [_without_credentials(_plain(each)) for each in value]
            elif is_dataclass(value) and not isinstance(value, type):
                value = asdict(value)
            data[item.name] = value
        if self.ledger is not None:
            data["ledger"] = place_of(self.ledger)  # a password is written down nowhere, and may change
        return json.loads(json.dumps(data))

    def identity(self) -> dict[str, Any]:
        """What must be equal for a search to be resumed: all but workers, callbacks and the number of evaluations."""
        kept = self.to_dict()
        del (
            kept["workers"]["count"],
            kept["workers"]["type"],
            kept["workers"]["options"],
            kept["search"]["evaluations"],
            kept["search"]["retry_failed"],
            kept["callbacks"],
        )
        return kept


def _plain(component: Component) -> dict[str, Any]:
    return {"type": component.type, **component.options}


def _without_credentials(options: dict[str, Any]) -> dict[str, Any]:
    return {key: without_credentials(value) if isinstance(value, str) else value for key, value in options.items()}


def find_config(name: str, kind: str = "search") -> Path:
    """The file of a config: a path, or the name (with or without ``.py``) of one that comes with the package.

    Args:
        name: what the user gave.
        kind: folder of the package's configs: ``search`` or ``comparison``.

    Raises:
        ConfigError: neither is there.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = config_folder()
    inside = [shipped / name, shipped / f"{name}.py", shipped / kind / name, shipped / kind / f"{name}.py"]
    if path.parts and path.parts[0] == "configs":
        inside.append(shipped.joinpath(*path.parts[1:]))
    for candidate in inside:
        if candidate.is_file():
            return candidate
    known = sorted(file.stem for file in (shipped / kind).glob("*.py"))
    raise ConfigError(
        f"There is no {kind} config {name!r}: neither a file nor the name of one of ours.{nearest(path.stem, known)}"
    )


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> SearchConfig:
    """Reads a config file.

    Args:
        path: the file.
        options: ``{'search.seed': 1}``: values to put over the file's.

    Raises:
        ConfigError: the file is not a config, a target of the score that does nothing, or as `read_config`.
    """
    config = read_config(read_file(path, options))
    _check_targets(config.score, [key for key in options or {} if key.startswith("score.target_")])
    return config


def read_config(data: Mapping[str, Any]) -> SearchConfig:
    """A config from plain dicts.

    Raises:
        ConfigError: a key that does not exist (the nearest is named), one that is missing, a value of a wrong type, or
            a target of the score without a weight.
    """
    config = make(SearchConfig, data, "")
    score = data.get("score") or {}
    if "weight" not in score:  # where it is set to 0, a target may stay from a base config
        _check_targets(config.score, [f"score.{key}" for key in score if key.startswith("target_")])
    return config


def _check_targets(score: EfficiencyScore, given: Sequence[str]) -> None:
    """Refuses targets that the score does not use, by their keys."""
    for key in given:
        if not score.weight:
            raise ConfigError(
                f"{key} does nothing while score.weight is 0; set score.weight, the points of accuracy that twice the "
                "cost must bring."
            )
        if key != f"score.target_{score.cost}":
            raise ConfigError(
                f"{key} does nothing while score.cost is {score.cost!r}; leave it out, or set score.cost."
            )
