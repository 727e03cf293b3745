"""Longer trainings of whole networks: the found one, and those it is compared with."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gemnet.data.datasets import open_test_images
from gemnet.data.image_set import DataError
from gemnet.errors import GemnetError
from gemnet.genome import Genome
from gemnet.machine import limited_threads
from gemnet.macs import macs
from gemnet.metadata import read_metadata, save_weights
from gemnet.network import GEMNet
from gemnet.training.confusion import Confusion
from gemnet.training.images import TrainingData
from gemnet.training.loop import confusion, train
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.evaluation.training import BALANCED, TrainingEvaluator, failure_reason
from nas.spaces.base import Candidate


def network_proposal(genome: Genome, epochs: int, seed: int) -> Proposal:
    """A training of a whole network as the ledger records it: under its main cell's hash and its own fingerprint."""
    main = genome.cells[genome.stages[-1].cell].graph
    return Proposal(-1, Candidate(main, (("network", genome.fingerprint),)), Fidelity(epochs), seed)


class NetworkTrainer:
    """What worker processes of a training search do: evaluate candidates, train whole networks.

    Args:
        evaluator: evaluates candidates; its data, recipe, device and threads serve for both.
    """

    def __init__(self, evaluator: TrainingEvaluator) -> None:
        self.evaluator = evaluator

    @property
    def fingerprint(self) -> str:
        """The evaluator's."""
        return self.evaluator.fingerprint

    @property
    def metrics(self) -> tuple[str, ...]:
        """The evaluator's."""
        return self.evaluator.metrics

    def evaluate(self, proposal: Proposal) -> Evaluation:
        """A candidate's short training; see `TrainingEvaluator.evaluate`."""
        return self.evaluator.evaluate(proposal)

    def signals(self, candidates: Sequence[Candidate], fidelity: Fidelity) -> NDArray[np.float32]:
        """Zero-cost signals; see `TrainingEvaluator.signals`."""
        return self.evaluator.signals(candidates, fidelity)

    def train_network(
        self,
        genome: Genome,
        epochs: int,
        seed: int,
        weights: Path | None = None,
        test_log: Path | None = None,
        time_limit: float | None = None,
        keep: Path | None = None,
        stop: Path | None = None,
    ) -> Evaluation:
        """Trains a network on the training images of the split, with the search's recipe.

        Args:
            genome: the network.
            epochs: how long.
            seed: of everything random in it.
            weights: safetensors file to keep the trained weights in, or None.
            test_log: where the opening of the official test images is logged; None leaves them closed.
            time_limit: seconds after which the training is given up; None for none.
            keep: file of the training's state, from which it goes on where it was ended in the middle; None for none.
            stop: file whose presence ends a training that is kept after the epoch under way; None for none.

        Returns:
            Top-1 on the development images, and ``metrics["test_accuracy"]`` on the test images where they were opened
            and could be read; a failure with its reason where the training came to nothing.

        Raises:
            Stopped: the file ``stop`` is there.
        """
        proposal = network_proposal(genome, epochs, seed)
        data = self.evaluator.at(proposal.fidelity)
        started = time.perf_counter()
        cost = float(macs(genome, num_classes=len(data.classes), in_chans=data.channels))
        size = None
        try:
            with limited_threads(self.evaluator.threads):
                model = self.evaluator.build(genome, seed)
                size = float(sum(parameter.numel() for parameter in model.parameters()))
                result = train(
                    model,
                    data,
                    self.evaluator.recipe,
                    epochs,
                    seed,
                    self.evaluator.device,
                    time_limit,
                    keep=keep,
                    stop=stop,
                )
                metrics = {"images_per_second": result.images_per_second, BALANCED: result.balanced}
                if weights is not None:
                    notes = {"accuracy": f"{result.accuracy:.2f}", "epochs": str(epochs), "seed": str(seed)}
                    save_weights(weights, model.state_dict(), data.metadata().replace(genome=model.genome, notes=notes))
                if test_log is not None:
                    try:
                        seen = self._on_test_images(model, data, test_log)
                        metrics |= {"test_accuracy": seen.accuracy, f"test_{BALANCED}": seen.balanced_accuracy}
                    except DataError as error:  # a figure less, but the training stands
                        print(f"No figure on the test images: {error}", file=sys.stderr)
        except Exception as error:  # out of memory, a network that can't run: a result like any other
            seconds = time.perf_counter() - started
            return Evaluation(proposal, "failed", None, cost, size, seconds, failure_reason(error))
        return Evaluation(proposal, "ok", result.accuracy, cost, size, time.perf_counter() - started, metrics=metrics)

    def _on_test_images(self, model: GEMNet, data: TrainingData, log: Path) -> Confusion:
        test = open_test_images(self.evaluator.data, log, "final figure of a network of a search")
        images = replace(data, images=test.images, labels=test.labels, dev=torch.arange(len(test)))
        return confusion(model, images, self.evaluator.device)


def holds_weights(path: Path, genome: Genome, epochs: int, seed: int) -> bool:
    """Whether a safetensors file is there and holds the weights of just this training."""
    if not path.is_file():
        return False
    try:
        about = read_metadata(path)
    except GemnetError:
        return False
    wanted = (genome.fingerprint, str(epochs), str(seed))
    return (about.fingerprint, about.notes.get("epochs"), about.notes.get("seed")) == wanted
