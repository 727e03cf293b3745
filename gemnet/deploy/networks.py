"""Opens whatever names a network: a timm name, a genome, a search's work folder, a folder that timm reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
from torch import nn

import gemnet.models  # noqa: F401  (registers its networks with timm)
from gemnet.checkpoint import describe_mismatch, load_checkpoint, state_dict_of
from gemnet.errors import GemnetError, nearest
from gemnet.genome import Genome
from gemnet.metadata import Metadata, read_metadata

BEST_GENOME, BEST_WEIGHTS = "best.json", "best.safetensors"


class OpenError(GemnetError):
    """What was named is no network that can be opened."""


@dataclass(frozen=True)
class OpenedNetwork:
    """A network, and how its images are prepared.

    Args:
        name: to show; letters, digits, ``_``, ``-`` and ``.``.
        model: in eval mode.
        metadata: what it expects and says; input size, crop, interpolation, mean and deviation are always known.
        trained: whether the weights are more than a random start.
    """

    name: str
    model: nn.Module
    metadata: Metadata
    trained: bool

    @property
    def in_chans(self) -> int:
        """Channels of its images."""
        return self.metadata.in_chans or 3

    @property
    def side(self) -> int:
        """Side of its images in pixels."""
        assert self.metadata.input_size is not None
        return self.metadata.input_size

    def at(self, side: int) -> OpenedNetwork:
        """The same for images of another size."""
        return replace(self, metadata=self.metadata.replace(input_size=side))


def open_network(source: str) -> OpenedNetwork:
    """Opens a network by whatever names it.

    Args:
        source: a name timm knows (weights come with a tag: ``gemnet_a.imagenette96``), a genome's JSON with its weights
            beside it, a search's work folder, or a folder with ``config.json`` and ``model.safetensors``.

    Raises:
        OpenError: there is no such network.
        GemnetError: the genome is not one, or the weights are of another network.
    """
    path = Path(source).expanduser()
    if path.is_dir() and (path / "config.json").is_file():
        return _from_timm(path.resolve().name, f"local-dir:{path}", pretrained=True)
    if path.is_dir():
        if not (path / BEST_GENOME).is_file():
            raise OpenError(
                f"There is no {BEST_GENOME} in {path}: no search has finished there. Run it, or resume it with "
                "--resume; or give the folder of another network."
            )
        return _from_genome(path.resolve().name, path / BEST_GENOME, path / BEST_WEIGHTS)
    if path.suffix == ".json":
        if not path.is_file():
            raise OpenError(f"There is no genome {path}.")
        return _from_genome(path.stem, path, path.with_suffix(".safetensors"))
    if not timm.is_model(source):
        raise OpenError(f"{source!r} is neither a file or folder nor a network that timm knows.{_nearest_name(source)}")
    return _from_timm(source, source, pretrained="." in source)


def _nearest_name(source: str) -> str:
    return nearest(source.split(".", 1)[0], timm.list_models())


def _from_genome(name: str, genome_file: Path, weights: Path) -> OpenedNetwork:
    genome = Genome.load(genome_file)
    trained = weights.is_file()
    known = read_metadata(weights) if trained else Metadata()
    if known.fingerprint not in ("", genome.fingerprint):
        raise OpenError(
            f"{weights} belongs to another network (genome {known.fingerprint}, not {genome.fingerprint}). Resume the "
            "search, which trains it again, or take the weights away to have the network without them."
        )
    options: dict[str, Any] = {"genome": genome}
    if known.num_classes is not None:
        options["num_classes"] = known.num_classes
    if known.in_chans is not None:
        options["in_chans"] = known.in_chans
    model = timm.create_model("gemnet", **options)
    if trained:
        state = state_dict_of(load_checkpoint(weights))
        if wrong := describe_mismatch(model, state):
            raise OpenError(f"{weights} does not fit {genome_file}: {wrong}.")
        model.load_state_dict(state)
    return OpenedNetwork(
        genome.name or name, model.eval(), _completed(known.replace(genome=genome), model.pretrained_cfg), trained
    )


def _from_timm(name: str, source: str, pretrained: bool) -> OpenedNetwork:
    try:
        model = timm.create_model(source, pretrained=pretrained)
    except GemnetError:
        raise
    except Exception as error:  # timm and the hub raise errors of many kinds
        text = " ".join(str(error).split())[:300]
        raise OpenError(f"{source!r} can't be built: {type(error).__name__}: {text}") from error
    genome = getattr(model, "genome", None)
    known = Metadata(genome=genome, arch="" if genome is not None else name.split(".", 1)[0])
    return OpenedNetwork(name, model.eval(), _completed(known, model.pretrained_cfg), pretrained)


def _completed(known: Metadata, cfg: Mapping[str, Any]) -> Metadata:
    """What weights say about their images, and timm's configuration of the model where they are silent."""
    size = cfg["input_size"]
    mean, std = known.statistics or (tuple(cfg["mean"]), tuple(cfg["std"]))
    channels = known.in_chans or size[0]
    if len(mean) not in (1, channels):  # timm's own channels, for a network of others
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    return known.replace(
        num_classes=cfg["num_classes"] if known.num_classes is None else known.num_classes,
        in_chans=channels,
        input_size=known.input_size or size[-1],
        crop_pct=known.crop_pct or cfg["crop_pct"],
        interpolation=known.interpolation or cfg["interpolation"],
        mean=mean,
        std=std,
        classes=known.classes or tuple(cfg.get("label_names") or ()),
    )
