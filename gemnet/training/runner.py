"""Training and testing of whole networks with mmengine: from a config file to a Runner, with clear messages on the way.

Any mmengine config will do: classification (`gemnet.classification.model`), MMDetection's, a user's own. What a config
leaves open is filled in from the data set and the model: number of classes, the neck's channels.
"""

from __future__ import annotations

import copy
import inspect
import math
import os
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner, find_latest_checkpoint, set_random_seed
from torch import Tensor, nn

from gemnet.checkpoint import (
    KEY,
    CheckpointError,
    aligned,
    describe_mismatch,
    guard_mmengine,
    load_checkpoint,
    state_dict_of,
)
from gemnet.config_files import config_folder
from gemnet.data.openings import log_opening
from gemnet.detection.config import complete_config
from gemnet.detection.statistics import detector_metadata, is_detector
from gemnet.errors import GemnetError, nearest
from gemnet.genome import Genome
from gemnet.loading import check_genome
from gemnet.metadata import Metadata, metadata_of, read_metadata
from gemnet.models import registered_names
from gemnet.private_mmengine import is_resuming, loop_of, plain_dict, set_loop, train_loader_of
from gemnet.registry import DATASETS
from gemnet.training.config_variables import FURTHER_KEYS, RUNNER_KEYS, ignored_by_bases, read_with_variables
from gemnet.training.confusion import Confusion
from gemnet.weights import find_weights

LAUNCHERS = ("none", "pytorch", "slurm")
OPENINGS = "test_openings.jsonl"
LOSS_CHECK_INTERVAL = 50


class RunnerError(GemnetError):
    """A training or test that can't be set up from what was given."""


class LossError(RuntimeError):
    """A loss that is no longer finite."""


def find_runner_config(name: str) -> Path:
    """The file of a config: a path, or the name (with or without ``.py``) of one that comes with the package.

    Raises:
        RunnerError: neither is there.
    """
    if Path(name).expanduser().is_file():
        return Path(name).expanduser()
    shipped = config_folder()
    others = {"_base_", "search", "comparison"}
    inside = [file for file in sorted(shipped.rglob("*.py")) if not others & set(file.relative_to(shipped).parts)]
    wanted = Path(name).stem
    for file in inside:
        if file.stem == wanted:
            return file
    known = [file.stem for file in inside]
    raise RunnerError(f"There is no config {name!r}: neither a file nor one of ours.{nearest(wanted, known)}")


def load_runner_config(file: Path, options: Mapping[str, Any] | None = None) -> Config:
    """Reads a config and puts options over it.

    Args:
        file: the config.
        options: ``{'train_cfg.max_epochs': 3}``.

    Raises:
        RunnerError: it can't be read, a key is so near to one that exists that it must be a slip, or an option names
            nothing that anything reads.
    """
    try:
        config, options = read_with_variables(file, dict(options or {}))
    except GemnetError:
        raise
    except ImportError as error:
        raise RunnerError(
            f"Config {file} imports what is not installed ({error}). Detection needs: pip install 'gemnet[detection]'."
        ) from error
    except Exception as error:  # the file is a program: it may raise anything
        text = " ".join(str(error).split())
        raise RunnerError(f"Config {file} can't be read: {type(error).__name__}: {text}") from error
    _refuse_ignored(file)
    for key in config:
        _refuse_slip(str(key), RUNNER_KEYS | FURTHER_KEYS, "")
    for key in options:
        _check_option(config, key)
    config.merge_from_dict(options)
    return config


def _refuse_slip(key: str, known: Collection[str], where: str) -> None:
    """Configs may hold any name; one that is nearly a known name is a typing error that would silently do nothing."""
    if key in known or key.startswith("_"):
        return
    for name in sorted(known):
        if _one_slip_apart(key, name):
            raise RunnerError(f"There is no config key {where}{key}. Did you mean '{where}{name}'?")


def _one_slip_apart(left: str, right: str) -> bool:
    """Whether two words have the same letters in another order, or differ by one put in, left out or changed."""
    if sorted(left) == sorted(right):
        return True
    short, long = sorted((left, right), key=len)
    start = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) == len(long):
        return short[start + 1 :] == long[start + 1 :]
    return short[start:] == long[start + 1 :]


def _check_option(config: Config, path: str) -> None:
    """An option may add a key, but not one that is nearly another, nor below what isn't there, nor to a variable."""
    part: Any = plain_dict(config)
    names = path.split(".")
    if names[0] in part and names[0] not in RUNNER_KEYS | FURTHER_KEYS:
        places = [".".join((*place, *names[1:])) for place in _made_from(config, names[0])]
        if places or not isinstance(
            part[names[0]], Mapping | list | tuple
        ):  # else it may be a part for a user's own hook
            raise RunnerError(f"--cfg-options {path}: {_made_before(names[0], places)}")
    for depth, name in enumerate(names):
        if isinstance(part, list | tuple):
            if not name.isdigit() or int(name) >= len(part):
                raise RunnerError(f"--cfg-options {path}: {'.'.join(names[:depth])} is a list of {len(part)} parts.")
            part = part[int(name)]
            continue
        if not isinstance(part, Mapping):
            return
        where = ".".join(names[:depth]) + ("." if depth else "")
        if name not in part:
            known = set(part) | (RUNNER_KEYS | FURTHER_KEYS if depth == 0 else set())
            _refuse_slip(name, known, where)
            if path not in known and len(names) == 1:
                raise RunnerError(
                    f"--cfg-options {path}: the config has no variable of this name, so it would change nothing."
                    f"{nearest(path, known)} Give the whole path, such as optim_wrapper.optimizer.lr=0.1."
                )
            return
        part = part[name]


def _refuse_ignored(file: Path) -> None:
    """A config may not assign what only a base of another package would have read."""
    if file.suffix != ".py" or "::" not in file.read_text(encoding="utf-8"):
        return
    bare, ignored = ignored_by_bases(file)
    for name in ignored:
        raise RunnerError(f"{file}: {_made_before(name, ['.'.join(place) for place in _made_from(bare, name)])}")


def _made_before(name: str, places: list[str]) -> str:
    hint = f"Set {' and '.join(places)}." if places else "Set the parts of the config that were made from it."
    return f"{name} is a variable of a config, and parts were made from it before, so that this changes nothing. {hint}"


def _made_from(config: Config, variable: str) -> list[tuple[str, ...]]:
    """Where a variable's value stands in the parts that are read: by its own name, or as a fraction, list or dict."""
    value, found = _without_scope(plain_dict(config)[variable]), []
    waiting: list[tuple[tuple[str, ...], Any]] = [
        ((str(key),), part) for key, part in plain_dict(config).items() if key in RUNNER_KEYS | FURTHER_KEYS
    ]
    while waiting:
        place, part = waiting.pop(0)
        if _without_scope(part) == value and (
            place[-1] == variable or (isinstance(value, Mapping | list | float) and value)
        ):
            found.append(place)
        elif isinstance(part, Mapping):
            waiting += [((*place, str(key)), item) for key, item in part.items()]
        elif isinstance(part, list | tuple):
            waiting += [((*place, str(number)), item) for number, item in enumerate(part)]
    return found


def _without_scope(part: Any) -> Any:
    """A part of a config as plain data, without the mark that mmengine puts on what comes from another package."""
    if isinstance(part, Mapping):
        return {key: _without_scope(item) for key, item in part.items() if key != "_scope_"}
    return [_without_scope(item) for item in part] if isinstance(part, list | tuple) else part


def make_runner(
    config: Config,
    work_dir: str | os.PathLike[str],
    launcher: str = "none",
    amp: bool = False,
    auto_scale_lr: bool = False,
    resume: str | bool = False,
    load_from: str | None = None,
    exact: bool = False,
    final: bool = False,
) -> Runner:
    """A Runner whose parts are all built, so that whatever a config gets wrong is said before anything is trained.

    Args:
        config: what to run; what it leaves open is filled in.
        work_dir: folder for checkpoints and logs.
        launcher: ``none``, ``pytorch`` (started by torchrun) or ``slurm``.
        amp: mixed precision; ``amp = True`` in a config means the same where there is a GPU.
        auto_scale_lr: scale the learning rate with the batch size.
        resume: go on from the latest checkpoint in the work folder, or from this file.
        load_from: start from these weights.
        exact: whether the weights must fit the network completely (a test), or a part will do (fine-tuning).
        final: whether the official test images are to be measured.

    Raises:
        RunnerError: something in the config or on this machine doesn't fit; the message names it.
        GemnetError: the data set or the network can't be had.
    """
    guard_mmengine()
    config = copy.deepcopy(config)
    config.work_dir = os.fspath(work_dir)
    config.launcher = launcher
    if resume is True:
        resume = latest_checkpoint(work_dir) or False
    config.resume = bool(resume)
    if isinstance(resume, str):
        load_from = resume
    if load_from is not None:
        config.load_from = load_from
    source = config.get("load_from")
    trained = None
    if source and "://" not in source:
        trained = load_checkpoint(source)  # before anything is written, a message instead of a traceback
    if amp or (config.get("amp") and torch.cuda.is_available()):
        _use_amp(config)
    if auto_scale_lr:
        if "base_batch_size" not in config.get("auto_scale_lr", {}):
            raise RunnerError("--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config.")
        config.auto_scale_lr.enable = True
    with _named_errors():
        fill_in(config, trained, final)
    _prepare_launcher(config, launcher)
    with _named_errors():
        runner = Runner.from_cfg(config)
        runner.register_hook(CheckpointCheck(exact or bool(resume)), priority="VERY_HIGH")
        runner.register_hook(EpochSeeds(), priority="VERY_HIGH")
        runner.register_hook(FiniteLoss(), priority="VERY_LOW")
        runner.register_hook(Describe(), priority="VERY_LOW")
    return runner


def build_for_training(runner: Runner) -> None:
    """Builds loops, optimiser and schedulers now, not in the middle of `Runner.train`.

    Raises:
        RunnerError: one can't be built.
        GemnetError: a data set can't be read.
    """
    # One line a norm and bias, several hundred for a network of ours, hides all others.
    runner.logger.addFilter(lambda record: not record.getMessage().startswith("paramwise_options"))
    with _named_errors():
        # In Runner.train's own order; it builds whatever is still a config and takes the rest as it is.
        set_loop(runner, "train", _train_loop(runner))
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        runner.auto_scale_lr = None  # done: once is enough
        if runner.param_schedulers is not None:
            shorten_warmup(runner.param_schedulers, runner.max_iters)
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        if loop_of(runner, "val") is not None:
            set_loop(runner, "val", runner.build_val_loop(loop_of(runner, "val")))


def _train_loop(runner: Runner) -> Any:
    """The loop; of fewer images than a batch, all of them are a batch."""
    settings = loop_of(runner, "train")
    loop = runner.build_train_loop(copy.deepcopy(settings))
    loader = loop.dataloader
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    images = len(sampler)
    smaller = train_loader_of(runner)
    if not isinstance(smaller, dict) or not 0 < images < smaller["batch_size"]:
        return loop
    runner.logger.info(
        "The %d training images are fewer than a batch of %d: all are one.", images, smaller["batch_size"]
    )
    smaller["batch_size"], smaller["drop_last"] = images, False
    if isinstance(smaller.get("batch_sampler"), dict):
        smaller["batch_sampler"]["drop_last"] = False
    return runner.build_train_loop(settings)


def shorten_warmup(schedulers: Any, iterations: int) -> None:
    """Lets a warm-up that is given in iterations take a tenth of the training at most: a small data set has few.

    Args:
        schedulers: those of a config, changed in place; what is no list of configs is left alone.
        iterations: of the whole training.
    """
    most = max(1, iterations // 10)
    for each in schedulers if isinstance(schedulers, list) else ():
        if isinstance(each, dict) and each.get("type") == "LinearLR" and each.get("by_epoch") is False:
            each["end"] = min(each.get("end", most), most)


def fill_in(config: Config, trained: Mapping[str, Any] | None = None, final: bool = False) -> None:
    """Fills in what the data set and the model determine: classes and channels of a classifier; see `complete_config`.

    Args:
        config: changed in place.
        trained: the checkpoint that a training or test starts from.
        final: whether the official test images are to be measured.
    """
    model = config.get("model")
    if not isinstance(model, ConfigDict):
        raise RunnerError("The config has no model=dict(type=...), which is needed.")
    if str(model.get("type", "")).split(".")[-1] == "ImageClassifier":
        _fill_classifier(config, model)
    else:
        complete_config(config, trained, final)


def _fill_classifier(config: Config, model: ConfigDict) -> None:
    """Classes, channels, and the images' side where a config says ``resolution='network'``."""
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


def _fill_resolution(config: Config, model: ConfigDict) -> None:
    """Puts the side of the images that the network, or its weights, were made for where a data set asks for it."""
    datasets = [
        loader["dataset"]
        for loader in (config.get(f"{kind}_dataloader") for kind in ("train", "val", "test"))
        if loader and (loader.get("dataset") or {}).get("resolution") == "network"
    ]
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
    import timm

    name = str(arch).split(".")[0]
    if not timm.is_model(name):
        raise RunnerError(f"There is no network {arch!r}.{nearest(name, timm.list_models())}")
    if name in registered_names() and (pretrained or "." in str(arch)):
        return find_weights(str(arch)).input_size
    try:
        known = timm.get_pretrained_cfg(str(arch))
    except RuntimeError as error:
        raise RunnerError(f"There are no weights {arch!r}: {error}.") from None
    return int(known.input_size[1])


def select_images(config: Config, work_dir: str | os.PathLike[str], final: str | None) -> Callable[[], None]:
    """Settles which images a test is to see.

    Args:
        config: its ``val_dataloader`` or ``test_dataloader`` is used; that of the other is left alone.
        work_dir: takes the log, ``test_openings.jsonl``.
        final: the purpose, if the official test images are to be opened; else None.

    Returns:
        What `measure` calls once the images are there: it writes down that official test images are opened.

    Raises:
        RunnerError: the config has no such images.
    """
    kind = "val" if final is None else "test"
    loader = config.get(f"{kind}_dataloader")
    if loader is None:
        other = "Measure with --final." if kind == "val" else "Measure without --final."
        raise RunnerError(f"The config has no {kind}_dataloader. {other}")
    # It keeps the best checkpoint of a training, and fails where there was none.
    config.setdefault("default_hooks", ConfigDict()).checkpoint = None
    if final is None:
        return lambda: None
    log = str(Path(work_dir) / OPENINGS)
    dataset = loader.dataset
    if str(dataset.get("type", "")).endswith("ImageArrays"):  # logs itself, with the images' digest
        dataset.openings, dataset.purpose = log, final
        return lambda: None
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) != 0:
        return lambda: None
    names = (dataset.get(key) for key in ("ann_file", "data_root", "source", "type"))
    return partial(log_opening, log, str(next(name for name in names if name)), final)


def draw_detections(config: Config, folder: str | os.PathLike[str], final: bool) -> None:
    """Has a detector's test draw truth and detections, one picture an image.

    MMDetection draws all images of a test, but only some of a validation; so the development images, if they are
    meant, become the test's.

    Args:
        config: a detector's config, changed in place.
        folder: where the pictures go.
        final: whether the official test images are measured.

    Raises:
        RunnerError: the config is no detector's.
    """
    hooks = config.get("default_hooks") or {}
    if (hooks.get("visualization") or {}).get("type") != "DetVisualizationHook":
        raise RunnerError(
            "--show-dir draws boxes, so it needs a detector's config with default_hooks.visualization of type "
            "'DetVisualizationHook'."
        )
    hooks["visualization"] = {
        "type": "DetVisualizationHook",
        "draw": True,
        "test_out_dir": str(Path(folder).absolute()),
    }
    if not final:
        for part in ("dataloader", "evaluator"):
            config[f"test_{part}"] = copy.deepcopy(config[f"val_{part}"])


def measure(runner: Runner, final: bool, opened: Callable[[], None] = lambda: None) -> dict[str, float]:
    """The metrics of the loaded checkpoint, on the official test images (``final``) or the development images.

    Args:
        runner: as `make_runner` gives it.
        final: whether ``test_dataloader`` is measured, else ``val_dataloader``.
        opened: called once the images can be read, before they are.

    Raises:
        RunnerError: the test can't be built.
        GemnetError: the data set or the checkpoint can't be had.
    """
    with _named_errors():
        if final:
            set_loop(runner, "test", runner.build_test_loop(loop_of(runner, "test")))
        else:
            set_loop(runner, "val", runner.build_val_loop(loop_of(runner, "val")))
    opened()
    return runner.test() if final else runner.val()


def confusions(runner: Runner) -> list[Confusion]:
    """What a classifier's images were taken for in the last measurement; none of a detector's."""
    loops = (loop_of(runner, "val"), loop_of(runner, "test"))
    metrics = [metric for loop in loops if hasattr(loop, "evaluator") for metric in loop.evaluator.metrics]
    found = [getattr(metric, "confusion_", None) for metric in metrics]
    return [confusion for confusion in found if confusion is not None]


def latest_checkpoint(work_dir: str | os.PathLike[str]) -> str | None:
    """The checkpoint a training in this folder would go on from; None where there is none.

    That which mmengine wrote down, wherever the folder lies now; where a killed process left no such note, the last
    whole one.
    """
    folder = Path(work_dir)
    if not folder.is_dir():
        return None
    found = find_latest_checkpoint(os.fspath(folder))
    if found:
        here = folder / Path(found).name
        if here.is_file() or Path(found).is_file():
            return str(here if here.is_file() else found)
    numbered = {
        int(match[1]): path
        for path in folder.glob("*.pth")
        if (match := re.fullmatch(r"(?:epoch|iter)_(\d+)\.pth", path.name)) and zipfile.is_zipfile(path)
    }
    return str(numbered[max(numbered)]) if numbered else None


class CheckpointCheck(Hook):
    """Looks at a checkpoint before it is loaded: does it belong to this network?

    Weights of a bare timm network are given the prefix they have inside `gemnet.classification.model.ImageClassifier`;
    a classifier normalises its images as its weights were trained, unless the config says how.

    Args:
        exact: whether every weight must be there; else some will do.
    """

    def __init__(self, exact: bool) -> None:
        self.exact = exact

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Raises `CheckpointError` where it does not."""
        model: nn.Module = getattr(runner.model, "module", runner.model)
        weights: dict[str, Tensor] = state_dict_of(checkpoint)
        own = model.state_dict()
        weights = aligned(weights, own)
        checkpoint["state_dict"] = weights  # where mmengine and its hooks look for them
        if is_resuming(runner) and "meta" not in checkpoint:
            raise CheckpointError(
                "The checkpoint holds weights only; a training can't be resumed from it. Use it as load_from instead."
            )
        if self.exact:
            difference = describe_mismatch(model, weights)
            if difference:
                raise CheckpointError(
                    f"The checkpoint is of another network: {difference}. Use the config it was trained with."
                )
        elif not any(key in own and own[key].shape == value.shape for key, value in weights.items()):
            raise CheckpointError(
                f"No weight of the checkpoint (such as {next(iter(weights), 'none at all')!r}) fits the network (such "
                f"as {next(iter(own))!r})."
            )
        self._follow(runner, model, metadata_of(checkpoint, "The checkpoint"))

    def _follow(self, runner: Runner, model: nn.Module, about: Metadata) -> None:
        """Feeds a classifier as its weights were trained, and looks at what they tell apart."""
        genome = getattr(getattr(model, "network", None), "genome", None)
        if self.exact and genome is not None:
            check_genome(about, genome.fingerprint, "The checkpoint")
        follow = getattr(getattr(model, "data_preprocessor", None), "follow", None)
        if follow is None:
            return
        if about.statistics is not None and follow(about.statistics):
            runner.logger.info("Images are normalised as the weights were trained: mean %s, std %s.", *about.statistics)
        if self.exact:
            _check_images(runner, about)


def _check_images(runner: Runner, about: Metadata) -> None:
    """Whether images that are to be measured are what the weights tell apart.

    Raises:
        CheckpointError: the same classes in another order: every label would be wrong.
    """
    loops = [loop_of(runner, part) for part in ("test", "val", "train")]
    datasets = [getattr(getattr(loop, "dataloader", None), "dataset", None) for loop in loops]
    images: Mapping[str, Any] = next(filter(None, (getattr(data, "metainfo", None) for data in datasets)), {})
    classes = tuple(images.get("classes") or ())
    if about.classes and classes and about.classes != classes:
        if set(about.classes) == set(classes):
            raise CheckpointError(
                f"The weights have the data set's classes in another order ({', '.join(about.classes[:4])}, ... there, "
                f"{', '.join(classes[:4])}, ... here). Give the data set they were trained with."
            )
        runner.logger.warning(
            "The weights tell apart %s, ...; the images are called %s, ...: class by class in this order.",
            ", ".join(about.classes[:4]),
            ", ".join(classes[:4]),
        )
    if about.input_size is not None and images.get("input_size") not in (None, about.input_size):
        runner.logger.warning(
            "The weights were trained at %d pixels, the images have %d.", about.input_size, images["input_size"]
        )


class Describe(Hook):
    """Puts into each checkpoint what its weights are of, and what images they were trained with."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Writes it under ``meta['gemnet']``; see `gemnet.metadata`."""
        model: Any = getattr(runner.model, "module", runner.model)
        describe = model.metadata if hasattr(model, "metadata") else None
        if is_detector(model):
            describe = partial(detector_metadata, model)
        if describe is None:
            return
        dataset = getattr(runner.train_dataloader, "dataset", None)
        checkpoint["meta"][KEY] = describe(getattr(dataset, "metainfo", {})).to_texts()


class EpochSeeds(Hook):
    """Seeds each epoch by its number, so that dropout in a resumed training is what it would have been."""

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds the generators of Python, NumPy and PyTorch by the training's seed, the rank and the epoch."""
        state = np.random.SeedSequence([runner.seed, get_rank(), runner.epoch]).generate_state(1)
        set_random_seed(int(state[0]))


class FiniteLoss(Hook):
    """Ends a training whose loss is no longer finite, instead of letting it run for hours."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Looks at the loss every 50 iterations: each look makes a GPU wait."""
        loss = (outputs or {}).get("loss")
        if loss is None or not self.every_n_train_iters(runner, LOSS_CHECK_INTERVAL):
            return
        value = float(torch.as_tensor(loss).detach())
        if not math.isfinite(value):
            raise LossError(
                f"The loss became {value} after {runner.iter + 1} iterations. Lower the learning rate "
                "(optim_wrapper.optimizer.lr) or clip gradients (optim_wrapper.clip_grad)."
            )


def _use_amp(config: Config) -> None:
    if not torch.cuda.is_available():
        raise RunnerError("--amp needs a GPU: mixed precision is no faster on a CPU. Leave it out.")
    wrapper = config.get("optim_wrapper")
    if wrapper is None or wrapper.get("type", "OptimWrapper") not in ("OptimWrapper", "AmpOptimWrapper"):
        kind = None if wrapper is None else wrapper.get("type")
        raise RunnerError(f"--amp takes an optim_wrapper of type 'OptimWrapper', the config has {kind!r}.")
    wrapper.type = "AmpOptimWrapper"
    wrapper.setdefault("loss_scale", "dynamic")


def _prepare_launcher(config: Config, launcher: str) -> None:
    if launcher not in LAUNCHERS:
        raise RunnerError(f"Unknown launcher {launcher!r}.{nearest(launcher, LAUNCHERS)}")
    if launcher == "pytorch" and "RANK" not in os.environ:
        raise RunnerError(
            "--launcher pytorch is for processes that torchrun starts: "
            "torchrun --nproc-per-node 2 tools/train.py CONFIG --launcher pytorch"
        )
    if launcher == "slurm" and "SLURM_PROCID" not in os.environ:
        raise RunnerError("--launcher slurm is for processes that srun starts: srun ... python tools/train.py CONFIG")
    if launcher == "none" or torch.cuda.is_available():
        return
    if launcher == "slurm":
        raise RunnerError("--launcher slurm needs GPUs. On CPUs use torchrun and --launcher pytorch.")
    # mmengine picks a GPU for each rank; without GPUs the group is made here, and the wrapper told to stay on the CPU.
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(backend="gloo")
    wrapper = config.setdefault(
        "model_wrapper_cfg",
        ConfigDict(
            type="MMDistributedDataParallel",
            broadcast_buffers=False,
            find_unused_parameters=config.get("find_unused_parameters", False),
        ),
    )
    wrapper.device_ids = None


@contextmanager
def _named_errors() -> Iterator[None]:
    """Turns what mmengine raises over a config into one message that names the part and the key."""
    try:
        yield
    except GemnetError:
        raise
    except (TypeError, KeyError, ValueError, AttributeError, AssertionError, ImportError, OSError) as error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        text = " ".join(text.split()) or type(error).__name__
        part, hint = _part_being_built(error), ""
        if "unexpected keyword argument '" in text and part is not None:
            key = text.split("unexpected keyword argument '")[1].split("'")[0]
            hint = nearest(key, [name for name in inspect.signature(part).parameters if name != "self"])
        where = f" {part.__name__}" if part is not None else ""
        raise RunnerError(f"The config's part{where} can't be built: {text}.{hint}") from error


def _part_being_built(error: BaseException) -> Any:
    """The innermost class or function that mmengine's registry was calling when the error rose."""
    part, trace = None, error.__traceback__
    while trace is not None:
        part = trace.tb_frame.f_locals.get("obj_cls", part)
        trace = trace.tb_next
    return part
