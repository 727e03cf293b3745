"""Measures candidates as backbones of a detector: short trainings of one of MMDetection's."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from gemnet.errors import nearest
from gemnet.strict import ConfigError
from gemnet.training.child import ChildError, last_measured, run_apart
from gemnet.training.runner_config import find_runner_config, load_runner_config
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.spaces.base import SearchSpace
from nas.spaces.gemnet import GEMNetSpace

BACKBONE = "gemnet.GEMNet"
EVALUATION_VERSION = 1  # raise it when a change of code changes results: old evaluations are then not reused


class DetectorEvaluator:
    """Trains a detector on each candidate and measures it on the config's validation images.

    The candidate's network takes the place of the config's backbone and keeps that one's other settings, such as
    ``frozen_stages``. It starts from random weights. Each training is a process of its own.

    Args:
        space: of networks for images of three channels. MACs and parameters are those of its classifiers.
        config: the detector's config: a file, or the name of one that comes with the package. It needs a variable
            ``max_epochs`` that its schedule follows; a fidelity's epochs are put there.
        metric: figure of its ``val_evaluator`` between 0 and 1 to be maximised. An evaluation's ``accuracy`` is it in
            percent, and ``metrics`` hold the others, in percent as well.
        options: ``{'optim_wrapper.optimizer.lr': 0.002}``: values put over the config's. Lists of numbers become
            tuples, as MMDetection wants its sizes.

    MMDetection is imported when one is made.

    Raises:
        ConfigError: another space, or a config that can't be used.
        GemnetError: the config or its data can't be read, or its neck and heads don't fit networks of this space.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        config: str,
        metric: str = "coco/bbox_mAP_50",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(space, GEMNetSpace) or space.in_chans != 3:
            raise ConfigError(
                f"space.type is {space.name!r}, but evaluator 'detector' needs networks for images of three channels: "
                "space 'gemnet', or a subclass of nas.spaces.gemnet.GEMNetSpace."
            )
        self.space = space
        self.file = find_runner_config(config)
        self.metric = metric
        self.options = {key: _as_sizes(value) for key, value in (options or {}).items()}
        self._check(load_runner_config(self.file, self.options))
        self._try()

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of everything results depend on besides candidate, fidelity and seed; not of where data lie.

        Raises:
            DataError: an annotation file can't be read.
        """
        from gemnet.detection.coco import read_coco
        from gemnet.detection.config import annotation_file, data_sets

        config = load_runner_config(self.file, self.options)
        text, contents = str(config.pretty_text), []
        for data in [*data_sets(config.train_dataloader), *data_sets(config.val_dataloader)]:
            if data.get("data_root"):
                text = text.replace(str(data["data_root"]), "")
            if data.get("ann_file"):
                read = read_coco(annotation_file(data))
                listed = json.dumps([list(read.images), list(read.annotations), list(read.categories)], sort_keys=True)
                contents.append(hashlib.sha256(listed.encode()).hexdigest())
        parts = {
            "evaluation": EVALUATION_VERSION,
            "config": text,
            "annotations": contents,
            "metric": self.metric,
            "network": self.space.surroundings,
            "torch": torch.__version__,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def evaluate(self, proposal: Proposal) -> Evaluation:
        """Trains the detector for the fidelity's epochs; its resolution and subset are not looked at.

        Returns:
            The metric in percent, or a failure with its reason.

        Raises:
            ConfigError: the detector does not measure the metric: that is no candidate's fault.
        """
        config = load_runner_config(self.file, self._options(proposal))
        batch = self.space.pack([proposal.candidate])
        costs = (self.space.cost(name, batch) for name in ("macs", "params"))
        macs, params = (None if values is None else float(values[0]) for values in costs)
        started = time.perf_counter()
        with TemporaryDirectory(prefix="gemnet_detector_") as name:
            folder = Path(name)
            try:
                config.dump(folder / self.file.name)
                run_apart("train", folder / "log", name=str(folder / self.file.name), work_dir=str(folder / "work"))
            except ChildError as error:
                reason = str(error).removesuffix(f" ({folder / 'log'})").removeprefix("error: ")[:400]
                return Evaluation(proposal, "failed", None, macs, params, time.perf_counter() - started, reason)
            measured = last_measured(folder / "work")
        figures = {} if measured is None else measured[1]
        if self.metric not in figures:
            raise ConfigError(
                f"evaluator.metric is {self.metric!r}, but {self.file} measures "
                f"{', '.join(sorted(figures)) or 'nothing'}.{nearest(self.metric, figures)}"
            )
        seconds = time.perf_counter() - started
        if figures[self.metric] < 0:
            reason = f"{self.metric} is {figures[self.metric]}: no validation image has a box to measure it by."
            return Evaluation(proposal, "failed", None, macs, params, seconds, reason)
        percent = {key.rpartition("/")[2]: 100 * value for key, value in figures.items() if 0 <= value <= 1}
        return Evaluation(proposal, "ok", 100 * figures[self.metric], macs, params, seconds, metrics=percent)

    def _check(self, config: Any) -> None:
        backbone = config.get("model", {}).get("backbone", {}).get("type")
        if backbone != BACKBONE:
            held = "has no model with a backbone" if backbone is None else f"has the backbone {backbone}"
            raise ConfigError(
                f"evaluator.config: {self.file} {held}. Candidates take the place of a dict(type='{BACKBONE}', ...)."
            )
        if "max_epochs" not in config or config.train_cfg.get("max_epochs") != config.max_epochs:
            raise ConfigError(
                f"evaluator.config: {self.file} has no variable max_epochs that its schedule follows. Set it at the "
                "top and use it in train_cfg and param_scheduler, as configs/_base_/schedule_coco320.py does."
            )
        if not config.get("val_dataloader") or not config.get("val_evaluator"):
            raise ConfigError(f"evaluator.config: {self.file} measures nothing: it has no val_dataloader.")

    def _try(self) -> None:
        """Puts a random candidate in: what doesn't fit of one, such as strides, fits of none."""
        from gemnet.detection.config import complete_config

        candidate = self.space.unpack(self.space.sample(1, np.random.default_rng(0)), 0)
        complete_config(load_runner_config(self.file, self._options(Proposal(0, candidate, Fidelity(1)))))

    def _options(self, proposal: Proposal) -> dict[str, Any]:
        fidelity, genome = proposal.fidelity, self.space.genome(proposal.candidate)
        return {
            **self.options,
            "max_epochs": fidelity.epochs,
            "train_cfg.val_interval": fidelity.epochs,
            "model.backbone.arch": None,
            "model.backbone.genome": genome.to_dict(),
            "model.backbone.init_cfg": None,
            "randomness.seed": proposal.training_seed,
        }


def _as_sizes(value: Any) -> Any:
    """Lists of numbers as the tuples that they were: a search's config travels as JSON, which has none."""
    if isinstance(value, list | tuple) and all(isinstance(each, int | float) for each in value):
        return tuple(value)
    return value
