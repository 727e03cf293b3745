"""What weights say about themselves: the network they belong to, and the images they were trained with.

Whoever saves weights writes a `Metadata` along with them: as the metadata of a safetensors file, or under
``meta['gemnet']`` of an mmengine checkpoint. Whoever loads them reads it, so that a network is fed as it was trained,
whatever way it took.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gemnet.checkpoint import KEY, CheckpointError, load_checkpoint
from gemnet.errors import GemnetError
from gemnet.files import replacing
from gemnet.genome import MAX_CLASSES, MAX_INPUT_SIZE, Genome
from gemnet.strict_json import JsonError, parse_json, read_json

INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos", "hamming", "box")
DETECTOR = "detector"
"""Note of a detector's weights: its kind."""
MAX_CHANNELS = 1024
WORD = 128
"""Letters of a name that is no text for people, at most."""


@dataclass(frozen=True)
class Metadata:
    """What weights say about themselves. Whatever they don't say is None or empty.

    Args:
        genome: the network.
        fingerprint: of the genome, which older files give alone.
        arch: timm's name of a network that has no genome.
        options: its keyword arguments.
        num_classes: of the classifier; 0 without one.
        in_chans: channels of the images.
        input_size: side of the images in pixels.
        crop_pct: share of an image's shorter side that is kept.
        interpolation: by which images are resized, as timm calls it.
        mean: of each channel, in [0, 1]; images are normalised by it.
        std: likewise.
        classes: names of the classes, in the order of the logits.
        notes: further texts, such as ``accuracy``, ``epochs``, ``seed``.

    Raises:
        GemnetError: values that contradict each other.
    """

    genome: Genome | None = None
    fingerprint: str = ""
    arch: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    in_chans: int | None = None
    input_size: int | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.genome is not None:
            if self.fingerprint not in ("", self.genome.fingerprint):
                raise GemnetError(f"the genome has fingerprint {self.genome.fingerprint}, not {self.fingerprint}")
            object.__setattr__(self, "fingerprint", self.genome.fingerprint)
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise GemnetError("mean and std are given for the same channels, or not at all")
        if self.classes and self.num_classes not in (None, len(self.classes)):
            raise GemnetError(f"{len(self.classes)} classes are named, num_classes is {self.num_classes}")
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))
        object.__setattr__(self, "notes", MappingProxyType(dict(self.notes)))

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and deviation of the channels, in [0, 1] and in the order RGB; None where they are not known."""
        return None if self.mean is None or self.std is None else (self.mean, self.std)

    def replace(self, **changes: Any) -> Metadata:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)

    def pretrained_cfg(self) -> dict[str, Any]:
        """What of it timm's configuration of a model holds, by timm's names."""
        known: dict[str, Any] = {
            "num_classes": self.num_classes,
            "crop_pct": self.crop_pct,
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
            "label_names": self.classes or None,
        }
        if self.input_size is not None:
            known["input_size"] = (self.in_chans or 3, self.input_size, self.input_size)
        return {key: value for key, value in known.items() if value is not None}

    def summary(self) -> str:
        """What the weights saw, in one line; texts from the file stand in it as they are."""
        parts = []
        if self.num_classes is not None:
            shown = ", ".join(self.classes[:4]) + (", ..." if len(self.classes) > 4 else "")
            parts.append(f"{self.num_classes} classes" + (f" ({shown})" if shown else ""))
        if self.input_size is not None:
            parts.append(f"{self.input_size}x{self.input_size} pixels")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None:
                parts.append(f"{name} {', '.join(f'{value:.4g}' for value in values)}")
        return "; ".join(parts) or "what they saw is not said"

    def to_texts(self) -> dict[str, str]:
        """As texts by name, the form in which files hold it."""
        texts = {"format": "pt", **self.notes}
        if self.genome is not None:
            texts["genome_json"] = json.dumps(self.genome.to_dict(), separators=(",", ":"))
        for key, value in (("genome", self.fingerprint), ("arch", self.arch), ("interpolation", self.interpolation)):
            if value:
                texts[key] = value
        for key in ("num_classes", "in_chans", "input_size", "crop_pct"):
            if getattr(self, key) is not None:
                texts[key] = str(getattr(self, key))
        for key in ("mean", "std", "classes"):
            if getattr(self, key):
                texts[key] = json.dumps(list(getattr(self, key)), ensure_ascii=False)
        if self.options:
            texts["options"] = json.dumps(dict(self.options))
        return texts

    @classmethod
    def from_texts(cls, texts: Mapping[str, str], source: str | os.PathLike[str]) -> Metadata:
        """Reads what `to_texts` wrote.

        Args:
            texts: the texts by name.
            source: the file they come from, for messages.

        Raises:
            CheckpointError: a text that can't be what its name says.
        """
        values: dict[str, Any] = {}
        notes = {}
        for key, text in texts.items():
            if not isinstance(key, str) or not isinstance(text, str):
                raise CheckpointError(f"{source}: its metadata can't be read: they are texts by name, {key!r} is not.")
            name, read = _READERS.get(key, (None, str))
            try:
                if name is None:
                    notes[key] = text
                else:
                    values[name] = read(text)
            except ValueError as error:
                raise CheckpointError(f"{source}: its metadata can't be read: {key}: {error}") from None
        notes.pop("format", None)
        try:
            return cls(**values, notes=notes)
        except GemnetError as error:
            raise CheckpointError(f"{source}: its metadata contradict themselves: {error}.") from None


def read_metadata(source: str | os.PathLike[str]) -> Metadata:
    """What weights say about themselves.

    Args:
        source: a ``.safetensors`` or ``.pth`` file, or a folder that timm's ``local-dir:`` reads.

    Raises:
        CheckpointError: there is no such file, or it can't be read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_folder(path)
    if path.suffix != ".safetensors":
        return metadata_of(load_checkpoint(path), path)
    try:
        with safe_open(path, framework="pt") as file:
            return Metadata.from_texts(file.metadata() or {}, path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file. Give the path of trained weights.") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: can't be read as safetensors ({error}). Is the file complete?") from None


def metadata_of(checkpoint: Mapping[str, Any], source: str | os.PathLike[str]) -> Metadata:
    """What a loaded checkpoint says about its weights; see `gemnet.checkpoint.load_checkpoint`.

    Raises:
        CheckpointError: it says what can't be.
    """
    meta = checkpoint.get("meta")
    texts = meta[KEY] if isinstance(meta, Mapping) and KEY in meta else checkpoint.get(KEY)
    return Metadata.from_texts(texts if isinstance(texts, Mapping) else {}, source)


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Metadata) -> None:
    """Writes weights with their metadata as safetensors, in one step.

    Args:
        path: the file.
        state: tensors by key. They are copied: the format has none that share memory.
        metadata: what they say about themselves.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    with replacing(path) as draft:
        save_file(tensors, draft, metadata.to_texts())


def _of_folder(folder: Path) -> Metadata:
    """Of a folder that holds ``config.json`` and ``model.safetensors``: the config's word counts."""
    config_file, weights = folder / "config.json", folder / "model.safetensors"
    try:
        config = read_json(config_file)
    except OSError as error:
        raise CheckpointError(f"{config_file}: can't be read ({error.strerror}). Give a file of weights.") from None
    except JsonError as error:
        raise CheckpointError(str(error)) from None
    about = config.get("pretrained_cfg") if isinstance(config, Mapping) else None
    if not isinstance(about, Mapping):
        raise CheckpointError(f"{config_file}: has no pretrained_cfg; is it a folder that timm reads?")
    texts = read_metadata(weights).to_texts() if weights.is_file() else {}
    texts.update({key: json.dumps(list(about[key])) for key in ("mean", "std") if isinstance(about.get(key), list)})
    size = about.get("input_size")
    if isinstance(size, list) and len(size) == 3:
        texts.update(in_chans=str(size[0]), input_size=str(size[2]))
    texts.update({key: str(about[key]) for key in ("num_classes", "crop_pct", "interpolation") if key in about})
    arguments = config.get("model_args")
    if isinstance(arguments, Mapping) and "genome" in arguments:
        texts["genome_json"] = json.dumps(arguments["genome"])
    names = config.get("label_names")
    texts.update({"classes": json.dumps(names)} if isinstance(names, list) and names else {})
    return Metadata.from_texts(texts, folder)


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text) if text.isdecimal() and len(text) < 12 else -1
        if not least <= value <= most:
            raise GemnetError(f"{text[:40]!r} is no whole number from {least} to {most}")
        return value

    return read


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise GemnetError(f"{text!r} is no share in (0, 1]")
    return value


def _numbers(least: float) -> Callable[[str], tuple[float, ...]]:
    def read(text: str) -> tuple[float, ...]:
        values = parse_json(text)
        if not isinstance(values, list) or not 1 <= len(values) <= WORD:
            raise GemnetError("expected a list of numbers, one a channel")
        for value in values:
            if type(value) not in (int, float) or not math.isfinite(value) or value < least:
                raise GemnetError(f"{value!r} is no number for a channel")
        return tuple(float(value) for value in values)

    return read


def _classes(text: str) -> tuple[str, ...]:
    values = parse_json(text)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise GemnetError("expected a list of names")
    return tuple(values)


def _mapping(text: str) -> dict[str, Any]:
    value = parse_json(text)
    if not isinstance(value, dict):
        raise GemnetError("expected a mapping")
    return value


def _fingerprint(text: str) -> str:
    if not 1 <= len(text) <= WORD or not text.isalnum():
        raise GemnetError(f"{text[:WORD]!r} is no fingerprint")
    return text


def _word(text: str) -> str:
    if not 1 <= len(text) <= WORD or not text.replace("_", "").replace(".", "").isalnum():
        raise GemnetError(f"{text[:WORD]!r} is no name of a network")
    return text


def _interpolation(text: str) -> str:
    if text not in INTERPOLATIONS:
        raise GemnetError(f"{text[:WORD]!r} is none of {', '.join(INTERPOLATIONS)}")
    return text


_READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "genome": ("fingerprint", _fingerprint),
    "genome_json": ("genome", lambda text: Genome.from_dict(parse_json(text))),
    "arch": ("arch", _word),
    "options": ("options", _mapping),
    "num_classes": ("num_classes", _whole(0, MAX_CLASSES)),
    "in_chans": ("in_chans", _whole(1, MAX_CHANNELS)),
    "input_size": ("input_size", _whole(1, MAX_INPUT_SIZE)),
    "crop_pct": ("crop_pct", _share),
    "interpolation": ("interpolation", _interpolation),
    "mean": ("mean", _numbers(-math.inf)),
    "std": ("std", _numbers(1e-12)),
    "classes": ("classes", _classes),
}
"""By the name of a text: the field it is read into, and how."""
