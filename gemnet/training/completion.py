"""What a config leaves open, from the data set and the model: classes, channels, the side of the images."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from mmengine.config import Config, ConfigDict

from gemnet.detection.config import complete_config
from gemnet.genome import MAX_INPUT_SIZE, Genome
from gemnet.metadata import read_metadata
from gemnet.registered import registered_names
from gemnet.registry import DATASETS
from gemnet.training.runner_config import RunnerError, unknown_network
from gemnet.weights import find_weights

NUMBERS = (
    *(
        (f"{kind}_dataloader", key, least, True)
        for kind in ("train", "val", "test")
        for key, least in (("batch_size", 1), ("num_workers", 0))
    ),
    *(("train_cfg", key, 1, True) for key in ("max_epochs", "max_iters", "val_interval")),
    *(("optim_wrapper.optimizer", key, 0, False) for key in ("lr", "weight_decay", "momentum")),
)
"""Where a config has numbers that are wrong most often: the part, the key, the least, and whether they are whole."""
DIVISION = ("source", "root", "dev_fraction", "split_seed")
"""Options of a data set that say which images are set aside."""


def fill_in(config: Config, trained: Mapping[str, Any] | None = None, final: bool = False) -> None:
    """Fills in what the data set and the model determine: classes and channels of a classifier; see `complete_config`.

    Args:
        config: changed in place.
        trained: the checkpoint that a training or test starts from.
        final: whether the official test images are to be measured.
    """
    check_numbers(config)
    model = config.get("model")
    if not isinstance(model, ConfigDict):
        raise RunnerError("The config has no model=dict(type=...), which is needed.")
    if str(model.get("type", "")).split(".")[-1] == "ImageClassifier":
        _fill_classifier(config, model)
    else:
        complete_config(config, trained, final)


def check_numbers(config: Config) -> None:
    """Refuses numbers that the parts, when they are built, would refuse without naming the key.

    Raises:
        RunnerError: one is of another kind, or too small.
    """
    for path, key, least, whole in NUMBERS:
        part: Any = config
        for name in path.split("."):
            part = part.get(name) if isinstance(part, Mapping | Config) else None
        value = part.get(key) if isinstance(part, Mapping) else None
        if value is None:
            continue
        right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not right or not value >= least or value == math.inf:
            kind = "whole number" if whole else "number"
            raise RunnerError(f"{path}.{key} is a {kind} from {least}, got {value!r}.")


def _fill_classifier(config: Config, model: ConfigDict) -> None:
    """Classes, channels, and the images' side where a config says ``resolution='network'``."""
    check_division(config)
    _fill_resolution(config, model)
    data = config.get("train_dataloader") or config.get("test_dataloader") or {}
    dataset = {key: value for key, value in (data.get("dataset") or {}).items() if key != "type"}
    # Our own data sets say it.
    kind: Any = DATASETS.get(str(data.get("dataset", {}).get("type", "")).split(".")[-1]) if dataset else None
    if hasattr(kind, "describe"):
        classes, channels = kind.describe(**dataset)
        if model.get("teacher"):
            model.setdefault("classes", list(classes))
        for key, found in (("num_classes", len(classes)), ("in_chans", channels)):
            if model.get(key) is None:
                model[key] = found
            elif model[key] != found:
                raise RunnerError(
                    f"model.{key} is {model[key]}, but the data set {dataset.get('source')!r} has {found}. "
                    f"Leave model.{key} out: it is read from the data set."
                )
    preprocessor = model.setdefault("data_preprocessor", ConfigDict(type="gemnet.BatchAugmentation"))
    seed = (config.get("randomness") or {}).get("seed")
    if seed is not None and str(preprocessor.get("type", "")).endswith("BatchAugmentation"):
        preprocessor.setdefault("seed", seed)


def check_division(config: Config) -> None:
    """Refuses training and development images of one source that are divided differently: they would share images.

    Args:
        config: of a classifier; data sets that don't divide their images are none of ours.

    Raises:
        RunnerError: other ``dev_fraction`` or ``split_seed``.
    """
    found = []
    for kind, split in (("train", "train"), ("val", "dev")):
        dataset = (config.get(f"{kind}_dataloader") or {}).get("dataset") or {}
        reader: Any = DATASETS.get(str(dataset.get("type", "")).split(".")[-1]) if dataset else None
        if reader is None or dataset.get("split") != split:
            return
        options = inspect.signature(reader).parameters
        found.append({key: dataset.get(key, options[key].default) for key in DIVISION if key in options})
    train, dev = found
    if any(train.get(key) != dev.get(key) for key in ("source", "root")):
        return
    for key, value in train.items():
        if value != dev.get(key):
            raise RunnerError(
                f"train_dataloader.dataset.{key} is {value}, val_dataloader.dataset.{key} {dev.get(key)}: of one "
                f"source, {train['source']!r}, images would be in both parts. Set both alike."
            )


def _fill_resolution(config: Config, model: ConfigDict) -> None:
    """Puts the side of the images that the network, or its weights, were made for where a data set asks for it."""
    loaders = (config.get(f"{kind}_dataloader") or {} for kind in ("train", "val", "test"))
    given = [dataset for dataset in (loader.get("dataset") for loader in loaders) if dataset]
    for dataset in given:
        side = dataset.get("resolution")
        if isinstance(side, str) and side.removeprefix("-").isdecimal():  # typed in the place of 'network'
            dataset["resolution"] = side = int(side)
        is_side = side is None or side == "network" or (type(side) is int and 1 <= side <= MAX_INPUT_SIZE)
        if "resolution" in dataset and not is_side:
            name = "image_size" if str(config.get("image_size")) == str(side) else "The data set's resolution"
            raise RunnerError(f"{name} is 'network' or a number of pixels from 1 to {MAX_INPUT_SIZE}, got {side!r}.")
    datasets = [dataset for dataset in given if dataset.get("resolution") == "network"]
    if not datasets:
        return
    weights = config.get("load_from")
    said = read_metadata(weights).input_size if weights and Path(weights).is_file() else None
    side = said or network_resolution(model.get("arch"), model.get("genome"), bool(model.get("pretrained")))
    for dataset in datasets:
        dataset["resolution"] = side


def network_resolution(arch: str | None, genome: Any = None, pretrained: bool = False) -> int:
    """Side in pixels of the images that a network or, with ``pretrained``, its weights are made for.

    Args:
        arch: a timm name, with or without a tag.
        genome: or a genome.
        pretrained: whether its weights are meant, which then must be there.

    Raises:
        GemnetError: no such network or weights; those that exist are listed.
    """
    if genome is not None:
        return Genome.read(genome).input_size
    name = str(arch).split(".")[0]
    if not timm.is_model(name):
        raise RunnerError(unknown_network(str(arch)))
    if name in registered_names() and (pretrained or "." in str(arch)):
        return find_weights(str(arch)).input_size
    try:
        known = timm.get_pretrained_cfg(str(arch))
    except RuntimeError as error:
        raise RunnerError(f"There are no weights {arch!r}: {error}.") from None
    return int(known.input_size[1])
