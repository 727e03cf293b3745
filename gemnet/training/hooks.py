"""Hooks of every training and test with mmengine's Runner."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner, set_random_seed
from torch import Tensor, nn

from gemnet.checkpoint import KEY, CheckpointError, aligned, describe_mismatch, state_dict_of
from gemnet.detection.statistics import detector_metadata, genome_in, is_detector
from gemnet.errors import GemnetError
from gemnet.loading import check_genome
from gemnet.metadata import Metadata
from gemnet.private_mmengine import is_resuming, loop_of
from gemnet.stopping import Stopped
from gemnet.timm_checkpoints import said_by
from gemnet.training.resuming import SCHEDULE, schedule_of

LOSS_CHECK_INTERVAL = 50
REMEDY = "Lower the learning rate (optim_wrapper.optimizer.lr) or clip gradients (optim_wrapper.clip_grad)."


class LossError(GemnetError):
    """A training that has diverged: its loss, or what its network says, is no longer finite."""


class CheckpointCheck(Hook):
    """Looks at a checkpoint before it is loaded: does it belong to this network?

    Weights of another genome are refused, where both sides know theirs. Weights of a bare timm network are given the
    prefix they have inside `gemnet.classification.model.ImageClassifier`; a classifier normalises its images as its
    weights were trained, unless the config says how. Where not all need be there, how many are is said.

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
        about = said_by(checkpoint, "The checkpoint")
        fingerprint = genome_in(model)
        if fingerprint:
            check_genome(about, fingerprint, "The checkpoint")
        if not self.exact:
            _tell_what_fits(runner, own, weights)
        self._follow(runner, model, about)

    def _follow(self, runner: Runner, model: nn.Module, about: Metadata) -> None:
        """Feeds a classifier as its weights were trained, and looks at what they tell apart."""
        follow = getattr(getattr(model, "data_preprocessor", None), "follow", None)
        if follow is None:
            return
        if about.statistics is not None and follow(about.statistics):
            runner.logger.info("Images are normalised as the weights were trained: mean %s, std %s.", *about.statistics)
        if self.exact:
            _check_images(runner, about)


def _tell_what_fits(runner: Runner, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Says how many of the network's weights are in a checkpoint, and which are not."""
    others = [
        f"{key} ({tuple(weights[key].shape)} there, {tuple(value.shape)} here)" if key in weights else key
        for key, value in own.items()
        if key not in weights or weights[key].shape != value.shape
    ]
    taken = len(own) - len(others)
    rest = f"; others stay as they are: {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}" if others else ""
    level = logging.INFO if 2 * taken >= len(own) else logging.WARNING
    runner.logger.log(level, "load_from: %d of the network's %d weights are taken%s.", taken, len(own), rest)


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
    """Puts into each checkpoint its schedule, what its weights are of, and what images they were trained with."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Writes it under ``meta['gemnet']``, see `gemnet.metadata`, and the schedule beside it."""
        checkpoint["meta"][SCHEDULE] = schedule_of(runner.cfg)
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


class StopWhenAsked(Hook):
    """Ends a training once a file is there: with the epoch under way (or iteration, where checkpoints are counted so).

    A checkpoint is written then, whatever their interval. It must come before the hook that writes it.

    Args:
        checkpoints: the hook that writes checkpoints.
        file: the file.
    """

    priority = "LOW"

    def __init__(self, checkpoints: CheckpointHook, file: Path) -> None:
        self.checkpoints, self.file = checkpoints, file
        self.kept = False  # whether a checkpoint holds everything until now

    def after_train_epoch(self, runner: Runner) -> None:
        """Sees to it that there will be a checkpoint."""
        if self.checkpoints.by_epoch:
            self._see_to_it()
            self.kept = self.every_n_epochs(runner, self.checkpoints.interval, self.checkpoints.save_begin)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Sees to it that there will be a checkpoint."""
        if not self.checkpoints.by_epoch:
            self._see_to_it()
            self.kept = self.every_n_train_iters(runner, self.checkpoints.interval, self.checkpoints.save_begin)

    def before_train_epoch(self, runner: Runner) -> None:
        """Raises `Stopped` where it was asked for: after the epoch's measurement, which a resumed training skips."""
        if self.checkpoints.by_epoch:
            self._stop()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Raises `Stopped` where it was asked for."""
        if not self.checkpoints.by_epoch:
            self._stop()

    def _see_to_it(self) -> None:
        if self.file.exists():
            self.checkpoints.interval, self.checkpoints.save_begin = 1, 0

    def _stop(self) -> None:
        if self.kept and self.file.exists():
            raise Stopped("Stopped after a checkpoint.")


class FiniteLoss(Hook):
    """Ends a training whose loss is no longer finite, before such weights are measured or kept as an epoch's."""

    def __init__(self) -> None:
        self._total: Tensor | float = 0.0  # of the losses since the last look

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Looks at the losses every 50 iterations, and at the end: each look makes a GPU wait."""
        loss = (outputs or {}).get("loss")
        if loss is not None:
            self._total = self._total + torch.as_tensor(loss).detach()
        if self.every_n_train_iters(runner, LOSS_CHECK_INTERVAL) or self.is_last_train_iter(runner):
            self._look(runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Looks at those since the last look."""
        self._look(runner.iter)

    def _look(self, iterations: int) -> None:
        value, self._total = float(self._total), 0.0
        if not math.isfinite(value):
            raise LossError(f"The loss became {value} within {iterations} iterations. {REMEDY}")
