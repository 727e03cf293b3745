"""From a config's names to the parts of a search: space, evaluator, strategy, executor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gemnet.cache import cache_root, make_cache_folder
from gemnet.data.datasets import DataSpec
from gemnet.errors import nearest
from gemnet.fitting import RIVAL_BLOCKS
from gemnet.strict import ConfigError, check_options, find_class, keyword_names, make, typed
from gemnet.training.images import load_data
from gemnet.training.loop import TrainingLoss
from gemnet.training.recipe import Recipe
from nas.encoder import EncoderConfig
from nas.encoder.cache import has_encoder
from nas.evaluation.costs import LATENCY
from nas.evaluation.latency import LatencyModel, LatencyOptions, fit_to_space
from nas.evaluation.networks import NetworkTrainer
from nas.evaluation.records import Evaluator, Fidelity
from nas.evaluation.tabular import TabularEvaluator
from nas.evaluation.training import TrainingEvaluator
from nas.executors import Executor, SerialExecutor
from nas.executors.monitor import Monitor
from nas.executors.options import make_workers, workers_of
from nas.predictors.nasgem_features import embedded_space
from nas.search.config import SearchConfig, read_config
from nas.spaces import is_base, is_own, space_class
from nas.spaces.base import SearchSpace
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import LimitsError, check_limits
from nas.strategies import make_strategy, strategy_options
from nas.strategies.base import Strategy
from nas.tables.read import find_table, read_table

OWN_TABLE = "table"
"""What ``space.type`` is for a search among the cells of a table of one's own."""

DETECTOR = "detector"
EVALUATORS = {"training": "", "tabular": "", DETECTOR: "nas.evaluation.detector.DetectorEvaluator"}
"""Evaluators by name; those without a class here are built in ways of their own."""

LARGE = 96
"""Side in pixels from which images get networks of form ``imagenet``, where a config does not say which form."""


def build_parts(config: SearchConfig) -> tuple[SearchSpace, Evaluator]:
    """Space and evaluator of a config.

    Raises:
        ConfigError: a name or option that does not exist.
        DataError, TableError: the images or the table can't be used.
        SpaceError: the space's options make no sense.
    """
    kind = config.evaluator.type
    if kind == "training":
        return _training_parts(config)
    own = None if kind == "tabular" else find_class(kind, EVALUATORS, object, "evaluator.type")
    for key in ("data", "recipe"):
        if getattr(config, key):
            raise ConfigError(f"{key} is given, but evaluator {kind!r} trains nothing of ours. Remove it.")
    return _tabular_parts(config) if own is None else _own_parts(config, own)


def _training_parts(config: SearchConfig) -> tuple[SearchSpace, Evaluator]:
    check_options((), config.evaluator.options, "evaluator")
    kind = space_class(config.space.type)
    if not issubclass(kind, GEMNetSpace):
        raise ConfigError(
            f"space.type is {config.space.type!r}, but evaluator 'training' builds networks of space 'gemnet', or of a "
            "subclass of nas.spaces.gemnet.GEMNetSpace, only. Use evaluator 'tabular' for a benchmark's table."
        )
    known = [name for name in keyword_names(kind) if name not in ("num_classes", "in_chans")]
    check_options(known, config.space.options, "space")
    data = make(DataSpec, config.data, "data")
    recipe = make(Recipe, config.recipe, "recipe")
    images = load_data(data)
    TrainingLoss(
        images, recipe, torch.device("cpu")
    )  # a teacher that isn't there is said now, not candidate by candidate
    own = {"form": "imagenet" if images.resolution >= LARGE else "cifar"} if "form" in keyword_names(kind) else {}
    options = {"input_size": images.resolution, **own, **typed(kind, config.space.options, "space")}
    space = kind(**options, num_classes=len(images.classes), in_chans=images.channels)
    evaluator = TrainingEvaluator(
        data,
        space,
        recipe,
        device="cuda" if torch.cuda.is_available() else "cpu",
        threads=config.workers.threads,
        time_limit=config.time_limit,
    )
    return space, NetworkTrainer(evaluator)


def _tabular_parts(config: SearchConfig) -> tuple[SearchSpace, Evaluator]:
    base = _own_space(config) if is_base(config.space.type) else None
    if base is None:
        check_options((), config.space.options, "space")
        if config.space.type == OWN_TABLE and config.evaluator.options.get("path") is None:
            raise ConfigError(f"space {OWN_TABLE!r} needs evaluator.path: the file of a table (docs/tables.md).")
    known = [name for name in keyword_names(_table) if name not in ("space", "base", "fidelity")]
    check_options(known, config.evaluator.options, "evaluator")
    if "accuracy" not in config.evaluator.options:
        raise ConfigError("evaluator 'tabular' needs accuracy: the table's column to search by.")
    return _table(config.space.type, base, config.fidelity, **typed(_table, config.evaluator.options, "evaluator"))


def _table(
    space: str,
    base: SearchSpace | None,
    fidelity: Fidelity,
    *,
    accuracy: str,
    path: str | None = None,
    seconds: str | None = None,
    latency: str | None = None,
    extra: tuple[str, ...] = (),
) -> tuple[SearchSpace, Evaluator]:
    table = read_table(find_table(space, path), space if path is None else None, base)
    columns = {fidelity.epochs: accuracy}
    return table.space, TabularEvaluator(table, columns, seconds=seconds, latency=latency, extra=tuple(extra))


def _own_parts(config: SearchConfig, kind: type) -> tuple[SearchSpace, Evaluator]:
    """An evaluator that is made with the space and the options that the config gives it, such as a user's own."""
    missing = f"evaluator.type is {config.evaluator.type!r}, whose class has no {{!r}}."
    if not hasattr(kind, "evaluate"):
        raise ConfigError(missing.format("evaluate"))
    check_options([name for name in keyword_names(kind) if name != "space"], config.evaluator.options, "evaluator")
    space = _own_space(config)
    build: Any = kind
    evaluator = build(space, **typed(kind, config.evaluator.options, "evaluator"))
    if not hasattr(evaluator, "fingerprint"):  # it may be made of the options
        raise ConfigError(missing.format("fingerprint"))
    return space, evaluator


def fingerprint_of(config: SearchConfig, evaluator: Evaluator) -> str:
    """What an evaluator's results are known by: somebody's own need not say what options it was given.

    Args:
        config: says these options.
        evaluator: built from it.
    """
    options = config.evaluator.options
    if not options or not is_own(config.evaluator.type):
        return evaluator.fingerprint
    said = json.dumps(options, sort_keys=True, default=repr)
    return f"{evaluator.fingerprint} {hashlib.sha256(said.encode()).hexdigest()[:8]}"


def _own_space(config: SearchConfig) -> SearchSpace:
    kind = space_class(config.space.type)
    check_options(keyword_names(kind), config.space.options, "space")
    return kind(**typed(kind, config.space.options, "space"))


def check_config(config: SearchConfig) -> None:
    """Checks the names and options of a config, before anything is read or trained.

    Raises:
        ConfigError, StrategyError: one that does not exist.
    """
    check_options(strategy_options(config.strategy.type), config.strategy.options, "strategy")
    for block in config.comparison.blocks if config.comparison is not None else ():
        if block not in RIVAL_BLOCKS:
            raise ConfigError(f"comparison.blocks names {block!r}.{nearest(block, RIVAL_BLOCKS)}")
    kind = config.evaluator.type
    if (kind in ("tabular", DETECTOR) or is_own(kind)) and config.final is not None:
        raise ConfigError(f"final is given, but evaluator {kind!r} trains no networks of ours. Set final=None.")
    if kind == DETECTOR and config.fidelity != Fidelity(config.fidelity.epochs):
        raise ConfigError(
            "evaluator 'detector' takes images as its config says. Leave out fidelity.resolution and fidelity.subset, "
            "and make images smaller or fewer there."
        )
    if kind == "tabular" and config.strategy.options.get("cheap_epochs") is not None:
        raise ConfigError(
            "strategy.cheap_epochs is given, but evaluator 'tabular' has one column and thus one fidelity. Set "
            "strategy.cheap_epochs=None."
        )


def estimates_latency(config: SearchConfig, evaluator: Evaluator) -> bool:
    """Whether latencies of candidates are needed that the evaluator does not give: they are limited, or charged."""
    charged = (config.score.weight and config.score.cost == LATENCY) or config.strategy.options.get("cost") == LATENCY
    return config.limits.max_latency is not None or (bool(charged) and LATENCY not in metrics_of(evaluator))


def metrics_of(evaluator: Evaluator) -> Sequence[str]:
    """Names of what an evaluator measures besides accuracy; somebody's own need not say."""
    return getattr(evaluator, "metrics", ())


def check_space(config: SearchConfig, space: SearchSpace, evaluator: Evaluator) -> None:
    """Checks that a space has what the config limits and charges.

    Raises:
        ConfigError: latencies are limited or charged, and it has no networks to measure.
        LimitsError: no candidate can be within the limits, latencies aside; or the score charges what isn't known.
    """
    if estimates_latency(config, evaluator) and not isinstance(space, GEMNetSpace):
        if config.limits.max_latency is not None:
            raise ConfigError(
                f"limits.max_latency is set, but space {space.name!r} has no networks to measure. Remove the limit."
            )
        key = "score.cost" if config.score.cost == LATENCY else "strategy.cost"
        raise ConfigError(
            f"{key} is 'latency', but space {space.name!r} has no networks to measure, and the evaluator gives no "
            "latency. For a table that has one, name its column: evaluator.latency='...'. Else charge something else."
        )
    cost = config.score.cost
    if config.score.weight and cost != LATENCY and cost not in metrics_of(evaluator):
        known = space.cost(cost, space.sample(1, np.random.default_rng(0)))
        if known is None and is_own(config.evaluator.type):
            raise LimitsError(
                f"The score charges {cost}, which space {space.name!r} does not have. If the evaluations of "
                f"{config.evaluator.type} say it, give the class metrics = ({cost!r},); else set score.weight=0."
            )
        config.score(0.0, known)
    check_limits(space, replace(config.limits, max_latency=None))  # measuring latencies takes minutes


def check_strategy(config: SearchConfig, space: SearchSpace, evaluator: Evaluator) -> None:
    """Checks what only fails after the first evaluations: what is to be minimised, the encoder and where it is kept.

    Raises:
        ConfigError: the evaluator doesn't measure ``strategy.cost``; the encoder would not be trained.
        CacheError: the cache can't be written to.
    """
    options = config.strategy.options
    cost = options.get("cost")
    if cost is not None and cost != LATENCY and cost not in metrics_of(evaluator):
        known = nearest(str(cost), metrics_of(evaluator))
        raise ConfigError(f"strategy.cost is {cost!r}, but the evaluator measures no such thing.{known}")
    encoder = options.get("encoder", {})
    if config.strategy.type == "nasgem" and encoder is not None and space.vocabulary:
        settings = make(EncoderConfig, encoder, "strategy.encoder")
        if not settings.steps:
            raise ConfigError("strategy.encoder.steps is at least 1, got 0. encoder=None searches without.")
        if not has_encoder(embedded_space(space), settings):
            make_cache_folder(cache_root())  # it is to keep what will be trained


def prepare_latency(
    config: SearchConfig, space: SearchSpace, evaluator: Evaluator, saved: Path, monitor: Monitor
) -> LatencyModel | None:
    """Lets a space estimate latencies, where the search needs them: by prices saved before, else by measuring now.

    Raises:
        LimitsError: no candidate can be within the limit.
        LatencyError: the device isn't there, or the saved prices can't be read.
    """
    if not estimates_latency(config, evaluator):
        return None
    assert isinstance(space, GEMNetSpace)  # `check_space` has seen to it
    if saved.is_file():
        model = LatencyModel.load(saved)
    else:
        options = config.latency or LatencyOptions()
        monitor.begin("latency", options.networks)
        near = config.score.target_latency
        model = fit_to_space(space, config.limits, options, lambda each: monitor.step(f"{each:.3g} ms"), near)
        monitor.end()
        rough = "" if model.pool_error_90 is None else f" In a pool of thousands: within {model.pool_error_90:.0%}."
        monitor.note(
            f"Latency on {model.device}: {model.networks} networks took {model.fastest:.3g} to {model.slowest:.3g} ms "
            f"an image. Estimates are within {model.error:.0%} for half of them, {model.error_90:.0%} for nine of ten."
            f"{rough}"
        )
    space.latency_model = model
    space.latency_of = partial(model.of, in_chans=space.in_chans) if model.kinds else None
    check_limits(space, config.limits)
    return model


def build_strategy(config: SearchConfig, space: SearchSpace, evaluator: Evaluator) -> Strategy:
    """The strategy of a config. What takes it minutes, such as training an encoder, is left to its `prepare`.

    Raises:
        ConfigError, StrategyError: an option or a value that can't be.
    """
    signals = getattr(evaluator, "signals", None)
    given = {} if signals is None or config.strategy.type != "nasgem" else {"measure": signals}
    return make_strategy(
        config.strategy.type,
        space,
        config.search.seed,
        **given,
        fidelity=config.fidelity,
        score=config.score,
        limits=config.limits,
        **config.strategy.options,
    )


def build_executor(config: SearchConfig, evaluator: Evaluator, worker_log: Path | None) -> Executor:
    """The workers of a config; they start with the first call."""
    count, _ = workers_of(config.workers)
    if count == 0 or (config.workers.count is None and config.evaluator.type == "tabular"):
        return SerialExecutor(lambda: evaluator)
    return make_workers(config.workers, partial(_evaluator_in_worker, config.to_dict()), worker_log)


def _evaluator_in_worker(config: Mapping[str, Any]) -> Evaluator:
    return build_parts(read_config(config))[1]
