"""One training of a comparison, and the table that holds all of them.

A training is one row of a CSV, written when it has ended: whatever ends the command loses at most those that ran.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gemnet.checkpoint import CheckpointError, load_checkpoint
from gemnet.data.datasets import DataSpec
from gemnet.errors import GemnetError
from gemnet.files import write_csv
from gemnet.machine import limited_threads
from gemnet.metadata import Metadata, read_metadata, save_weights
from gemnet.sources import GenomeSource, Images, Network, TimmSource, build
from gemnet.training.images import TrainingData, at_fidelity, load_data
from gemnet.training.loop import TrainingFailed, TrainingLoss, TrainingResult, train
from gemnet.training.recipe import Recipe
from gemnet.training.state import EpochRecord
from nas.evaluation.training import EVALUATION_VERSION
from nas.studies.csv_log import CsvLog, columns_of, records

CHOICE, TRAINING, TEST = "choice", "training", "test"
TABLE = "trainings.csv"
"""File of a comparison with a row for each training."""
MEASUREMENTS = 20
"""So many times a training that counts is measured on its way, on the development images."""


class ComparisonError(GemnetError):
    """A comparison that can't go on; the message says what is missing."""


@dataclass(frozen=True)
class Job:
    """A training to be done.

    Args:
        network: what.
        phase: ``choice`` (a short run) or ``training`` (one that counts).
        lr: peak learning rate.
        seed: of everything random in it.
        epochs: how long.
        subset: share of the training images.
    """

    network: Network
    phase: str
    lr: float
    seed: int
    epochs: int
    subset: float = 1.0


@dataclass(frozen=True)
class TrainingRow:
    """One line of the table: a training, or a trained network measured on the test images (phase ``test``).

    Args:
        network: name of the entry.
        form: which of its forms.
        phase: ``choice``, ``training`` or ``test``.
        lr: peak learning rate.
        seed: of the training.
        epochs: of the training.
        subset: share of the training images.
        accuracy: top-1 in percent, on the development images (phase ``test``: the test images); NaN where failed.
        loss: of the last epoch.
        seconds: wall-clock time.
        images_per_second: training speed.
        macs: multiply-adds for one image.
        params: parameters.
        reason: why it failed; "" where it did not.
        weights: file in the folder ``weights``; "" where none is kept.
        key: 16 hex digits of everything the accuracy depends on: network, images, recipe, and the columns before it.
        time: when it ended, UTC.
    """

    network: str
    form: str
    phase: str
    lr: float
    seed: int
    epochs: int
    subset: float
    accuracy: float
    loss: float
    seconds: float
    images_per_second: float
    macs: int
    params: int
    reason: str
    weights: str
    key: str
    time: str


def row_key(job: Job, fingerprint: str, phase: str | None = None) -> str:
    """What a row is found again by.

    Args:
        job: the training.
        fingerprint: of the trainer.
        phase: in place of the job's.
    """
    parts = [job.network.fingerprint, phase or job.phase, job.lr, job.seed, job.epochs, job.subset, fingerprint]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def weights_name(job: Job, fingerprint: str) -> str:
    """File name of a training's weights."""
    return f"{job.network.name}_seed{job.seed}_{row_key(job, fingerprint)[:8]}.safetensors"


def state_file(job: Job, fingerprint: str, folder: Path) -> Path:
    """Where a training that isn't finished is kept after each epoch."""
    return (folder / weights_name(job, fingerprint)).with_suffix(".unfinished.pth")


class Trainings:
    """The table: a `CsvLog`.

    Args:
        path: the file; made with the first row.

    Raises:
        CsvLogError: the file is of something else.
    """

    def __init__(self, path: Path) -> None:
        self._log = CsvLog(path, columns_of(TrainingRow))
        self.rows: dict[str, TrainingRow] = {row.key: row for row in records(self._log, TrainingRow)}

    def add(self, row: TrainingRow) -> None:
        """Writes a row, and returns when it is on the disk."""
        self._log.add(asdict(row))
        self.rows[row.key] = row


@dataclass(frozen=True)
class ComparisonTrainer:
    """What worker processes do: train networks. Each builds its own; images are mapped from one copy in the cache.

    Args:
        data: which images.
        recipe: how networks are trained; its learning rate gives way to the job's.
        threads: compute threads of a training on the CPU.
        device: where.
    """

    data: DataSpec
    recipe: Recipe
    threads: int = 1
    device: str = "cpu"

    @cached_property
    def images(self) -> TrainingData:
        """The data set, read on first use.

        Raises:
            DataError: it can't be.
        """
        return load_data(self.data)

    @property
    def shape(self) -> Images:
        """What a network sees and says."""
        return Images(self.images.resolution, self.images.channels, len(self.images.classes))

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of everything results depend on besides the job: images, division, recipe, threads, torch."""
        recipe = {key: value for key, value in self.recipe.identity().items() if key != "lr"}
        parts = {
            "evaluation": EVALUATION_VERSION,
            "data": self.images.digest,
            "split": [self.data.dev_fraction, self.data.split_seed],
            "recipe": recipe,
            "device": torch.device(self.device).type,
            "threads": self.threads if torch.device(self.device).type == "cpu" else 0,
            "torch": torch.__version__,
        }
        if self.data.balance is not None:
            parts["balance"] = self.data.balance
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def train(self, job: Job, folder: Path | None = None, stop: Path | None = None) -> TrainingRow:
        """Trains a network and measures it on the development images.

        With a folder, a training that was ended in the middle goes on after its last whole epoch. Its state stays until
        the row is in the table.

        Args:
            job: what and how.
            folder: takes the weights, as safetensors, and the course of the training, as CSV; None keeps none.
            stop: file whose presence ends a training with a folder after the epoch under way.

        Returns:
            The row. A loss that is no longer finite is a result with its reason; any other failure is raised, since it
            says nothing about the network.

        Raises:
            Stopped: the file ``stop`` is there.
        """
        started = time.perf_counter()
        recipe = replace(self.recipe, lr=job.lr)
        data = at_fidelity(self.images, subset=job.subset)
        accuracy, loss, speed, reason, weights = math.nan, math.nan, 0.0, "", ""
        with limited_threads(self.threads):
            model = build(job.network.source, self.shape, job.seed)
            try:
                result = self._train(model, data, recipe, job, folder, stop)
            except TrainingFailed as error:
                reason, seconds = str(error), time.perf_counter() - started
            else:
                seconds = result.seconds
                accuracy, loss, speed = result.accuracy, result.history[-1].loss, result.images_per_second
                if folder is not None:
                    weights = weights_name(job, self.fingerprint)
                    about = weights_metadata(job, self.images, row_key(job, self.fingerprint))
                    save_weights(folder / weights, model.state_dict(), about)
        return make_row(
            job,
            row_key(job, self.fingerprint),
            accuracy=accuracy,
            loss=round(loss, 5),
            seconds=round(seconds, 2),
            images_per_second=round(speed, 1),
            reason=reason,
            weights=weights,
        )

    def _train(
        self,
        model: nn.Module,
        data: TrainingData,
        recipe: Recipe,
        job: Job,
        folder: Path | None,
        stop: Path | None,
    ) -> TrainingResult:
        if folder is None:
            return train(model, data, recipe, job.epochs, job.seed, self.device)
        history: list[dict[str, object]] = []
        course = (folder / weights_name(job, self.fingerprint)).with_suffix(".csv")

        def on_epoch(record: EpochRecord) -> None:
            history.append(asdict(record))
            write_csv(course, history)

        return train(
            model,
            data,
            recipe,
            job.epochs,
            job.seed,
            self.device,
            measure_every=max(1, job.epochs // MEASUREMENTS),
            on_epoch=on_epoch,
            keep=state_file(job, self.fingerprint, folder),
            stop=stop,
        )

    def check_teacher(self) -> None:
        """Looks at the recipe's teacher before anything is trained.

        Raises:
            TeacherError: it isn't there, or doesn't know the images' classes.
        """
        TrainingLoss(self.images, self.recipe, torch.device("cpu"))


def make_row(job: Job, key: str, phase: str | None = None, **figures: Any) -> TrainingRow:
    """The row of a job.

    Args:
        job: the training.
        key: of the row.
        phase: in place of the job's.
        figures: accuracy, loss, seconds, images_per_second, reason, weights.
    """
    network = job.network
    return TrainingRow(
        network=network.name,
        form=network.form,
        phase=phase or job.phase,
        lr=job.lr,
        seed=job.seed,
        epochs=job.epochs,
        subset=job.subset,
        macs=network.macs,
        params=network.params,
        key=key,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **figures,
    )


def weights_metadata(job: Job, data: TrainingData, key: str) -> Metadata:
    """What the weights of a training say about themselves.

    Args:
        job: the training.
        data: its images.
        key: of its row.
    """
    source = job.network.source
    return data.metadata().replace(
        genome=source.genome if isinstance(source, GenomeSource) else None,
        arch=source.arch if isinstance(source, TimmSource) else "",
        options=source.options if isinstance(source, TimmSource) else {},
        notes={
            "network": job.network.title,
            "training": key,
            "epochs": str(job.epochs),
            "seed": str(job.seed),
            "lr": str(job.lr),
        },
    )


def trained_network(network: Network, images: Images, path: Path, key: str) -> nn.Module:
    """A trained network.

    Args:
        network: what it is.
        images: what it was trained on.
        path: its weights.
        key: of the training they must be of.

    Raises:
        ComparisonError: the file is missing, damaged or of another training.
    """
    again = f"Delete the row of this training from {TABLE}, and the command trains it again."
    if not path.is_file():
        raise ComparisonError(f"The weights {path} are missing. {again}")
    try:
        if read_metadata(path).notes.get("training") != key:
            raise ComparisonError(f"{path} holds weights of another training. {again}")
        state = load_checkpoint(path)["state_dict"]
    except CheckpointError as error:
        raise ComparisonError(f"{error} {again}") from None
    model = build(network.source, images, seed=0)
    model.load_state_dict(state)
    return model
