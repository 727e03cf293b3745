"""Published detectors: safetensors inside the package that say all that is to be known of them.

``gemnet_a.coco320_retinanet`` stands for ``weights/detectors/gemnet_a.coco320_retinanet-1a2b3c4d.safetensors``, whose
name ends in the beginning of its sha256. Its metadata hold the detector's config as plain data, the
names of its classes and how its images were normalised, so that nothing else is needed to build and use it.
"""

from __future__ import annotations

import os
from pathlib import Path

from gemnet.errors import GemnetError, nearest
from gemnet.files import DIGITS, verify_sha256

FOLDER = Path(__file__).parent / "weights/detectors"


def published_detectors() -> dict[str, Path]:
    """The files of all published detectors by name, ``<backbone>.<data>_<detector>``."""
    return {path.stem.rpartition("-")[0]: path for path in sorted(FOLDER.glob("*-*.safetensors"))}


def find_detector_file(name: str) -> Path:
    """The file of a published detector, once it has been checked.

    Raises:
        GemnetError: there is none under this name, or the file is damaged.
    """
    known = published_detectors()
    if name not in known:
        raise GemnetError(
            f"There is no published detector {name!r}.{nearest(name, known) if known else ' None is published yet.'}"
        )
    verify(known[name])
    return known[name]


def detector_file(source: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The file that a path or the name of a published detector stands for; a path that exists is taken as it is."""
    name = os.fspath(source)
    return find_detector_file(name) if name in published_detectors() and not Path(name).exists() else source


def verify(path: Path) -> None:
    """Checks a file against the digits in its name.

    Raises:
        GemnetError: it is missing or damaged.
    """
    verify_sha256(path, path.stem.rpartition("-")[2], "Install the package again.", DIGITS)


def withdraw_detector(name: str, but: Path | None = None) -> None:
    """Takes what is published under a name out of the package, all but one file where that is given."""
    for path in FOLDER.glob(f"{name}-{'?' * DIGITS}.safetensors"):
        if path != but:
            path.unlink()
