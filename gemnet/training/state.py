"""What a training is made of between two epochs, in a file: whatever ends it loses the epoch it was in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from gemnet.checkpoint import load_checkpoint
from gemnet.errors import GemnetError
from gemnet.files import replacing

STATE_FORMAT = 1


class StateError(GemnetError):
    """A file that holds the state of another training, or none."""


@dataclass(frozen=True)
class EpochRecord:
    """One line of a training's history.

    Args:
        epoch: from 1.
        loss: mean over the epoch.
        accuracy: top-1 on the development images after it, in percent; None where not measured.
    """

    epoch: int
    loss: float
    accuracy: float | None


@dataclass
class TrainingState:
    """Everything the next epoch depends on. `load` brings back what `save` kept, bit for bit.

    Args:
        model: the network.
        optimizer: of its weights.
        average: moving average of its weights; None for none.
        generator: of data order and augmentation.
        device: where it is trained.
        history: of the epochs that are done.
        training_seconds: they took, measurement left out.
        seconds: wall-clock time of all sittings before this one.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    generator: torch.Generator
    device: torch.device
    history: list[EpochRecord] = field(default_factory=list)
    training_seconds: float = 0.0
    seconds: float = 0.0
    begun: float = field(default_factory=time.perf_counter)

    @property
    def elapsed(self) -> float:
        """Wall-clock time so far, of all sittings."""
        return self.seconds + time.perf_counter() - self.begun

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Writes it in one step; makes the folder.

        Args:
            path: the file.
            identity: plain data that says which training it is of.
        """
        kept: dict[str, Any] = {
            "format": STATE_FORMAT,
            "identity": dict(identity),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "order": self.generator.get_state(),
            "dropout": self._global_generator(),
            "history": [[record.epoch, record.loss, record.accuracy] for record in self.history],
            "training_seconds": self.training_seconds,
            "seconds": self.elapsed,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            torch.save(kept, draft)

    def load(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Takes over what `save` wrote.

        Args:
            path: the file.
            identity: which training it has to be of.

        Raises:
            StateError: it is of another training.
            CheckpointError: it can't be read.
        """
        kept = load_checkpoint(path)
        if kept.get("format") != STATE_FORMAT or "identity" not in kept:
            raise StateError(f"{path} holds no state of a training. Take it away to begin anew.")
        for key, value in identity.items():
            found = kept["identity"].get(key)
            if found != value:
                raise StateError(
                    f"{path} holds the state of another training: its {key} is {found!r}, this one's {value!r}. "
                    "Take it away to begin anew."
                )
        self.model.load_state_dict(kept["model"])
        self.optimizer.load_state_dict(kept["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(kept["average"])
        self.generator.set_state(kept["order"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(kept["dropout"], self.device)
        else:
            torch.set_rng_state(kept["dropout"])
        self.history = [EpochRecord(*record) for record in kept["history"]]
        self.training_seconds, self.seconds = kept["training_seconds"], kept["seconds"]

    def _global_generator(self) -> torch.Tensor:
        return torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else torch.get_rng_state()
