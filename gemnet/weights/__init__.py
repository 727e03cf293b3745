"""Weights of the published networks, inside the package: safetensors whose names carry their sha256.

``index.json`` maps ``<architecture>.<tag>`` to the file, its full sha256, the fingerprint of the genome it belongs to,
and what timm needs to know (classes, input size, mean, std). timm does not check the hash of local files; we do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gemnet.checkpoint import load_checkpoint
from gemnet.detector_weights import detector_file
from gemnet.errors import GemnetError, nearest
from gemnet.files import verify_sha256
from gemnet.genome import Genome
from gemnet.metadata import Metadata, read_metadata
from gemnet.strict_json import parse_json
from gemnet.timm_checkpoints import said_by

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class PackagedWeights:
    """One file of weights.

    Args:
        file: name of the file in this folder.
        sha256: of the file, 64 hex digits.
        fingerprint: of the genome the weights belong to.
        num_classes: classes of the classifier.
        input_size: side of the images it was trained on.
        mean: channel means the images were normalised with.
        std: channel deviations they were normalised with.
        crop_pct: share of the image's side that is kept for evaluation.
        description: what it was trained on.
        classes: names of the classes, in the order of the logits; empty where they are not known.
        interpolation: by which images were resized, as timm calls it.
        precision: what convolution and matrix weights are stored in; all else is float32.
    """

    file: str
    sha256: str
    fingerprint: str
    num_classes: int
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_pct: float = 1.0
    description: str = ""
    classes: tuple[str, ...] = ()
    precision: str = "float32"
    interpolation: str = "bicubic"

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return FOLDER / self.file

    def metadata(self, genome: Genome | None = None) -> Metadata:
        """What they say about themselves.

        Args:
            genome: the one that their name stands for.
        """
        return Metadata(
            genome=genome,
            fingerprint=self.fingerprint,
            num_classes=self.num_classes,
            in_chans=3,
            input_size=self.input_size,
            crop_pct=self.crop_pct,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            classes=self.classes,
        )


def image_statistics(weights: object) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation of the channels that weights were trained with, in [0, 1] and in the order RGB.

    Args:
        weights: ``<architecture>.<tag>`` of weights in the package, the name of a published detector, the path of a
            ``.safetensors`` or ``.pth`` file, or of a folder that timm's ``local-dir:`` reads.

    Returns:
        Mean and deviation; None where the weights don't say, or there are no such weights.

    Raises:
        CheckpointError: a file that is there and can't be read.
    """
    if not isinstance(weights, str | os.PathLike):
        return None
    known = packaged_weights().get(os.fspath(weights))
    if known is not None:
        return known.mean, known.std
    path = Path(detector_file(weights)).expanduser()
    if not path.exists():
        return None
    if path.is_dir() or path.suffix == ".safetensors":
        return read_metadata(path).statistics
    return said_by(load_checkpoint(path), path).statistics


@lru_cache(maxsize=1)
def packaged_weights() -> dict[str, PackagedWeights]:
    """All weights in the package by ``<architecture>.<tag>``."""
    entries: dict[str, dict[str, Any]] = parse_json((FOLDER / "index.json").read_text(encoding="utf-8"))
    for entry in entries.values():
        entry.update({key: tuple(value) for key, value in entry.items() if isinstance(value, list)})
    return {name: PackagedWeights(**entry) for name, entry in entries.items()}


def find_weights(name: str) -> PackagedWeights:
    """The weights of ``<architecture>.<tag>``.

    Raises:
        GemnetError: there are none under this name; the message has those that exist.
    """
    known = packaged_weights()
    if name not in known:
        raise GemnetError(f"There are no weights {name!r}.{_listed(name, known)}")
    return known[name]


def _listed(name: str, known: dict[str, PackagedWeights]) -> str:
    """The part of a message that says which weights there are, those of the same architecture first."""
    if not known:
        return " This version of GEMNet carries no weights yet; use pretrained=False."
    arch = name.split(".", 1)[0]
    listed = sorted(known, key=lambda other: (other.split(".", 1)[0] != arch, other))
    hint = nearest(name, known)
    return f"{hint if 'Did you mean' in hint else ''} There are: {', '.join(listed)}."


def verify_weights(weights: PackagedWeights) -> Path:
    """The path of the file, once its sha256 has been checked.

    Raises:
        GemnetError: the file is missing, truncated or altered.
    """
    verify_sha256(weights.path, weights.sha256, "Install the package again.")
    return weights.path


def verify_folder(folder: Path, fingerprint: str) -> None:
    """Checks a Hugging Face style folder (``config.json``, ``model.safetensors``) before timm reads it.

    Args:
        folder: as `gemnet.zoo.folder.write_folder` makes it; of others only what they say of themselves is checked.
        fingerprint: of the genome the network is built from.

    Raises:
        GemnetError: the weights are missing, damaged or of another genome.
    """
    weights, config = folder / "model.safetensors", folder / "config.json"
    remedy = "Make or download the folder again."
    if not weights.is_file():
        raise GemnetError(f"{folder} holds no model.safetensors. {remedy}")
    about = parse_json(config.read_text(encoding="utf-8")).get("gemnet", {}) if config.is_file() else {}
    if "sha256" in about:
        verify_sha256(weights, about["sha256"], remedy)
    try:
        with safe_open(weights, framework="pt") as file:
            genome = (file.metadata() or {}).get("genome")
    except SafetensorError as error:
        raise GemnetError(f"{weights}: can't be read as safetensors ({error}). {remedy}") from None
    if genome not in (None, fingerprint):
        raise GemnetError(
            f"{weights} belongs to another genome (fingerprint {genome}) than {config} describes ({fingerprint}). "
            f"{remedy}"
        )
