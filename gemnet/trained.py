"""Trained networks, wherever they were saved: what they are, what they saw, and their weights.

find_trained("work_dirs/cifar10")                        the folder of a search
find_trained("work_dirs/gemnet_b_cifar_cifar10")         the folder of a training
find_trained("epoch_100.pth"), find_trained("w.safetensors")
find_trained("gemnet_a.imagenette96")                    weights in the package
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from gemnet.checkpoint import CheckpointError, aligned, describe_mismatch, load_checkpoint, state_dict_of
from gemnet.errors import GemnetError
from gemnet.genome import Genome
from gemnet.metadata import DETECTOR, Metadata, read_metadata
from gemnet.registered import genome_for
from gemnet.timm_checkpoints import said_by
from gemnet.weights import find_weights, verify_weights

WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")
SEARCHED = "best"
"""Stem of the files in which a search leaves its network."""


class TrainedError(GemnetError):
    """Something that was to be a trained network, and is none."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that was saved.

    Args:
        metadata: what it is and what it saw.
        weights: the file of its weights; None of a genome alone.
        ema: whether the moving average of the weights is meant.
    """

    metadata: Metadata
    weights: Path | None
    ema: bool = False

    @property
    def genome(self) -> Genome:
        """The genome, for as many classes and pixels as the weights are.

        Raises:
            TrainedError: the network has none.
        """
        genome, about = self.metadata.genome, self.metadata
        if genome is None:
            what = f"timm's network {about.arch!r}, which has a name" if about.arch else "of a network it does not name"
            raise TrainedError(
                f"{self.weights} is {what}, and carries no genome. Give the genome's .json the same name beside it, or "
                "train the network again with this version, whose files carry it."
            )
        classes = genome.num_classes if about.num_classes is None else about.num_classes
        side = genome.input_size if about.input_size is None else max(8, about.input_size)
        return genome.replace(num_classes=classes, input_size=side)

    def build(self, device: str | None = None, **options: Any) -> nn.Module:
        """The network, with weights drawn at random.

        Args:
            device: where; ``meta`` for nowhere.
            options: further keyword arguments.

        Raises:
            TrainedError: what it is isn't known.
        """
        about = self.metadata
        given = {"in_chans": about.in_chans or 3, **options}
        if about.num_classes is not None:
            given.setdefault("num_classes", about.num_classes)
        with torch.device(device or "cpu"):
            if about.genome is None and timm.is_model(about.arch):
                return timm.create_model(about.arch, **{**about.options, **given})
            return timm.create_model("gemnet", genome=self.genome, **given)

    def state_dict(self) -> dict[str, Tensor]:
        """The weights by the keys of the bare network.

        Raises:
            TrainedError: there are none.
            CheckpointError: they don't fit the network, or can't be read.
        """
        if self.weights is None:
            raise TrainedError("There are no weights beside the genome. Train the network first.")
        model = self.build("meta")
        weights = aligned(state_dict_of(load_checkpoint(self.weights), self.ema), model.state_dict())
        difference = describe_mismatch(model, weights)
        if difference:
            raise CheckpointError(f"{self.weights}: these are the weights of another network: {difference}.")
        return weights


def find_trained(source: str | os.PathLike[str], ema: bool = False) -> TrainedNetwork:
    """The network that a search, a training, a file or a tag stands for.

    Args:
        source: the work folder of a search or of a training (its best checkpoint on the development images, else the
            last), a ``local-dir:`` folder of timm's, weights, a genome's ``.json`` with or without weights of the same
            name beside it, or ``<architecture>.<tag>`` of weights in the package.
        ema: the moving average of the weights, where a file holds both.

    Raises:
        TrainedError: nothing of the kind is there.
        GemnetError: a file that can't be read, or contradicts another.
    """
    path = Path(source).expanduser()
    if not path.exists():
        return _packaged(os.fspath(source))
    if path.is_dir():
        if (path / f"{SEARCHED}.json").is_file():
            return find_trained(path / f"{SEARCHED}.json", ema)
        if (path / "config.json").is_file() and (path / "model.safetensors").is_file():
            return TrainedNetwork(read_metadata(path), path / "model.safetensors", ema)
        path = checkpoint_in(path)
    if path.suffix == ".json":
        return _of_genome(path, ema)
    if path.suffix not in WEIGHT_FILES:
        raise TrainedError(f"{path} is no trained network: expected one of {', '.join(WEIGHT_FILES)}, or a .json.")
    return _of_weights(path, ema)


def _packaged(name: str) -> TrainedNetwork:
    try:
        weights = find_weights(name)
    except GemnetError as error:
        raise TrainedError(
            f"There is neither a folder nor a file {name}. Give the work folder of a search or a training, a "
            f"checkpoint, a genome's .json, or a tag. {error}"
        ) from None
    return TrainedNetwork(weights.metadata(genome_for(name)), verify_weights(weights))


def _of_genome(path: Path, ema: bool) -> TrainedNetwork:
    genome = Genome.load(path)
    beside = path.with_suffix(".safetensors")
    if not beside.is_file():
        return TrainedNetwork(Metadata(genome=genome), None)
    about = read_metadata(beside)
    if about.fingerprint not in ("", genome.fingerprint):
        raise TrainedError(
            f"{beside} belongs to another network (genome {about.fingerprint}, not {genome.fingerprint}) than {path}. "
            "Resume the search, which trains it again, or take the weights away."
        )
    return TrainedNetwork(about.replace(genome=about.genome or genome, fingerprint=""), beside, ema)


def _of_weights(path: Path, ema: bool) -> TrainedNetwork:
    checkpoint = load_checkpoint(path)
    about = said_by(checkpoint, path)
    if DETECTOR in about.notes:
        raise TrainedError(
            f"{path} holds a detector ({about.notes[DETECTOR]}), which is no classifier. gemnet-detect looks at images "
            "with it, and a backbone's init_cfg takes it."
        )
    if about.genome is None and not about.arch:
        for beside in _genomes_beside(path):
            genome = Genome.load(beside)
            if about.fingerprint in ("", genome.fingerprint):
                about = about.replace(genome=genome, fingerprint="")
                break
    if about.num_classes is None:
        weights = state_dict_of(checkpoint, ema)
        heads = [value for key, value in weights.items() if key.rpartition(".classifier")[2] == ".weight"]
        heads += [value for key, value in weights.items() if key == "classifier.weight"]
        about = about.replace(num_classes=int(heads[0].shape[0]) if heads and heads[0].ndim else 0)
    return TrainedNetwork(about, path, ema)


def _genomes_beside(path: Path) -> Iterator[Path]:
    for name in (path.with_suffix(".json"), path.with_name(f"{SEARCHED}.json")):
        if name.is_file():
            yield name


def checkpoint_in(folder: Path) -> Path:
    """The best checkpoint in a training's work folder, by the development images; else the last.

    Raises:
        TrainedError: there is none.
    """
    numbered = {
        path: int(match[2])
        for path in folder.glob("*.pth")
        if (match := re.fullmatch(r"(best_.*)?(?:epoch|iter)_(\d+)\.pth", path.name))
    }
    if not numbered:
        raise TrainedError(
            f"{folder} holds no trained network: no {SEARCHED}.json of a search that has ended, no checkpoint "
            "(epoch_*.pth) of a training, no config.json with model.safetensors."
        )
    return max(numbered, key=lambda path: (path.name.startswith("best_"), numbered[path], path.stat().st_mtime))
