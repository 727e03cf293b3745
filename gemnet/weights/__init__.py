"""Weights of the published networks, inside the package: safetensors whose names carry their sha256.

``index.json`` maps ``<architecture>.<tag>`` to the file, its full sha256, the fingerprint of the genome it belongs to,
and what timm needs to know (classes, input size, mean, std). timm does not check the hash of local files; we do.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gemnet.errors import GemnetError, nearest

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

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return FOLDER / self.file


@lru_cache(maxsize=1)
def packaged_weights() -> dict[str, PackagedWeights]:
    """All weights in the package by ``<architecture>.<tag>``."""
    entries = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
    return {
        name: PackagedWeights(**{**entry, "mean": tuple(entry["mean"]), "std": tuple(entry["std"])})
        for name, entry in entries.items()
    }


def find_weights(name: str) -> PackagedWeights:
    """The weights of ``<architecture>.<tag>``.

    Raises:
        GemnetError: there are none under this name; the message has those that exist.
    """
    known = packaged_weights()
    if name not in known:
        listed = nearest(name, known) if known else " This version carries no weights yet."
        raise GemnetError(f"There are no weights {name!r}.{listed}")
    return known[name]


def verify_weights(weights: PackagedWeights) -> Path:
    """The path of the file, once its sha256 has been checked.

    Raises:
        GemnetError: the file is missing, truncated or altered.
    """
    try:
        found = hashlib.sha256(weights.path.read_bytes()).hexdigest()  # a few megabytes at most
    except OSError as error:
        raise GemnetError(f"{weights.path}: can't be read ({error.strerror}). Install the package again.") from None
    if found != weights.sha256:
        raise GemnetError(
            f"{weights.path}: sha256 is {found[:8]}..., expected {weights.sha256[:8]}...; the file is damaged or was "
            "altered. Install the package again."
        )
    return weights.path
