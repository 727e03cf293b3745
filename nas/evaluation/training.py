"""Measures candidates by training them for a short while on real images."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from gemnet.data.datasets import DataSpec
from gemnet.genome import Genome
from gemnet.machine import limited_threads
from gemnet.macs import macs as genome_macs
from gemnet.network import GEMNet
from gemnet.training.augmentation import normalised, on_byte_scale
from gemnet.training.images import TrainingData, at_fidelity, load_data
from gemnet.training.loop import TrainingFailed, train
from gemnet.training.recipe import Recipe
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.evaluation.zero_cost import BATCH, log_input_gradient
from nas.spaces.base import Candidate

EVALUATION_VERSION = 3  # raise it when a change of code changes results: old evaluations are then not reused
BALANCED = "balanced_accuracy"
"""The metric that holds the balanced accuracy on the development images, in percent."""
KEPT_FIDELITIES = 2  # prepared data sets held in memory: the search's fidelity and one it is promoting to


class GenomeSpace(Protocol):
    """A search space whose candidates are networks, such as `nas.spaces.gemnet.GEMNetSpace`."""

    @property
    def surroundings(self) -> str:
        """All that a candidate's network depends on besides the candidate: equal texts, equal networks."""
        ...

    def genome(self, candidate: Candidate) -> Genome:
        """The candidate's network."""
        ...


@dataclass(frozen=True)
class TrainingEvaluator:
    """Trains each candidate and measures it on the development images. The official test images are never read.

    Each worker process makes its own; they map the images from the one copy in the cache.

    Args:
        data: which images.
        space: says which network a candidate is.
        recipe: how they are trained.
        device: where.
        threads: of a training on the CPU; results are repeatable for one number of threads.
        time_limit: seconds after which a training is given up; None for none.
    """

    data: DataSpec
    space: GenomeSpace
    recipe: Recipe = field(default_factory=Recipe)
    device: str = "cpu"
    threads: int = 1
    time_limit: float | None = None

    @cached_property
    def images(self) -> TrainingData:
        """The data set, read on first use.

        Raises:
            DataError: it can't be.
        """
        return load_data(self.data)

    @cached_property
    def _prepared(self) -> dict[tuple[int | None, float], TrainingData]:
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of everything results depend on besides candidate, fidelity and seed.

        That is: content and division of the images, what the space puts around a cell, recipe, number of threads,
        kind of device, version of torch, and `EVALUATION_VERSION`. Not: where the data lie, the time limit.
        """
        parts = {
            "evaluation": EVALUATION_VERSION,
            "data": self.images.digest,
            "split": [self.data.dev_fraction, self.data.split_seed],
            "network": self.space.surroundings,
            "recipe": self.recipe.identity(),
            "device": torch.device(self.device).type,
            "threads": self.threads if torch.device(self.device).type == "cpu" else 0,
            "torch": torch.__version__,
        }
        if self.data.balance is not None:
            parts["balance"] = self.data.balance
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def steps(self, fidelity: Fidelity) -> int:
        """Optimiser steps of a candidate's training."""
        images = max(1, math.ceil(len(self.images.train) * fidelity.subset))
        return fidelity.epochs * (images // min(self.recipe.batch_size, images))

    def with_steps(self, fidelity: Fidelity, least: int) -> Fidelity:
        """A fidelity with at least so many steps: more of the images, and then more epochs."""
        if self.steps(fidelity) >= least:
            return fidelity
        count = len(self.images.train)
        needed = math.ceil(least / fidelity.epochs) * min(self.recipe.batch_size, count)
        wider = replace(fidelity, subset=min(1.0, max(fidelity.subset, needed / count)))
        return replace(wider, epochs=max(fidelity.epochs, math.ceil(least / self.steps(replace(wider, epochs=1)))))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what is measured beside the accuracy."""
        return "loss", "images_per_second", BALANCED

    def evaluate(self, proposal: Proposal) -> Evaluation:
        """Trains the proposal's candidate at its fidelity.

        Returns:
            Top-1 on the development images in percent, or a failure with its reason: a loss that is not finite, the
            time limit, no memory, an error while the network is built or run. ``metrics`` holds the last epoch's
            ``loss``, ``images_per_second`` and ``balanced_accuracy``.

        Raises:
            DataError: the data set can't be read: that is no candidate's fault.
        """
        data = self.at(proposal.fidelity)
        started = time.perf_counter()
        macs = params = None
        try:
            genome = self.space.genome(proposal.candidate)
            macs = float(genome_macs(genome, num_classes=len(data.classes), in_chans=data.channels))
            with limited_threads(self.threads):
                model = self.build(genome, proposal.training_seed)
                params = float(sum(parameter.numel() for parameter in model.parameters()))
                left = None if self.time_limit is None else self.time_limit - (time.perf_counter() - started)
                result = train(
                    model, data, self.recipe, proposal.fidelity.epochs, proposal.training_seed, self.device, left
                )
        except Exception as error:  # out of memory, a network that can't run: a result like any other
            return Evaluation(
                proposal,
                "failed",
                None,
                macs,
                params,
                time.perf_counter() - started,
                failure_reason(error),
            )
        return Evaluation(
            proposal,
            "ok",
            result.accuracy,
            macs,
            params,
            time.perf_counter() - started,
            metrics={
                "loss": result.history[-1].loss,
                "images_per_second": result.images_per_second,
                BALANCED: result.balanced,
            },
        )

    def signals(self, candidates: Sequence[Candidate], fidelity: Fidelity) -> NDArray[np.float32]:
        """Zero-cost signals of untrained networks on the first training images; see `nas.evaluation.zero_cost`.

        Args:
            candidates: n of them.
            fidelity: says at which resolution.

        Returns:
            (n, 1): `log_input_gradient`; 30, its worst, for a network that can't be built or run.

        Raises:
            DataError: the data set can't be read.
        """
        data = self.at(fidelity)
        mean, std = on_byte_scale(data.mean), on_byte_scale(data.std)
        images = normalised(data.images[data.train[:BATCH]], mean, std)
        values = np.full((len(candidates), 1), 30.0, dtype=np.float32)
        for row, candidate in enumerate(candidates):
            # On the CPU wherever trainings run: a network of one batch is no work for a GPU that others use.
            with suppress(Exception):  # the training will say what is wrong with it
                network = self.build(self.space.genome(candidate), 0).to(memory_format=torch.channels_last)
                values[row, 0] = log_input_gradient(network, images)
        return values

    def at(self, fidelity: Fidelity) -> TrainingData:
        """The data as a fidelity wants them; the last few are kept.

        Raises:
            DataError: they can't be read.
            RecipeError: a fidelity out of range.
        """
        key = (fidelity.resolution, fidelity.subset)
        if key not in self._prepared:
            while len(self._prepared) >= KEPT_FIDELITIES:
                self._prepared.pop(next(iter(self._prepared)))
            self._prepared[key] = at_fidelity(self.images, *key)
        return self._prepared[key]

    def build(self, genome: Genome, seed: int) -> GEMNet:
        """A freshly initialised network for these images; the same seed gives the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return GEMNet(genome, num_classes=len(self.images.classes), in_chans=self.images.channels)


def failure_reason(error: BaseException) -> str:
    """An exception of a training as one sentence for the ledger."""
    text = " ".join(str(error).split())[:400]
    if isinstance(error, TrainingFailed):
        return text
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "can't allocate memory" in text:
        return f"Out of memory: {text}" if text else "Out of memory."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
