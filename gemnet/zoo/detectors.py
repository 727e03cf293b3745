"""Puts trained detectors into the package, and measures them as they are stored there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from gemnet import detector_weights
from gemnet.checkpoint import load_checkpoint
from gemnet.detection.backbone import resolve_genome
from gemnet.detection.trained import TrainedDetector, find_detector
from gemnet.files import write_named
from gemnet.metadata import DETECTOR, metadata_of, save_weights
from gemnet.training.run import measure_checkpoint
from gemnet.zoo.publish import stored
from gemnet.zoo.results import ZooError

FIGURE = "coco/bbox_mAP"
"""What is measured, a share."""


def open_detector(source: Path, name: str) -> TrainedDetector:
    """A trained detector that can be published under a name: it is built, and its weights fit.

    Raises:
        ZooError: a malformed name.
        GemnetError: a file that can't be read, is no detector's, or does not fit its config.
    """
    arch, _, tag = name.partition(".")
    if not arch.replace("_", "").isalnum() or not tag.replace("_", "").isalnum():
        raise ZooError(f"name is {name!r}, expected <backbone>.<data>_<detector>, such as gemnet_a.coco320_retinanet.")
    return find_detector(source)


def write_detector(source: Path, name: str, description: str = "", precision: str = "float16") -> Path:
    """Writes a trained detector into the package; its name stands for it at once.

    Args:
        source: a checkpoint of `tools/train.py` (.pth), which carries its config.
        name: ``<backbone>.<data>_<detector>``, such as ``gemnet_a.coco320_retinanet``.
        description: what it was trained on.
        precision: of convolution and matrix weights, ``float16`` or ``float32``; all else stays float32.

    Returns:
        The file.

    Raises:
        ZooError: a malformed name, or values that are not finite.
        GemnetError: a file that can't be read, is no detector's, or does not fit its config.
    """
    detector = open_detector(source, name)
    checkpoint = load_checkpoint(source)
    about = metadata_of(checkpoint, source)
    config = _for_inference(detector.config)
    epoch = (checkpoint.get("meta") or {}).get("epoch")
    notes = {
        **({"epochs": str(epoch)} if isinstance(epoch, int) else {}),
        "config": "".join(f"{key} = {value!r}\n" for key, value in config.items()),
        "precision": precision,
        "name": name,
        "description": description,
    }
    said = about.replace(
        classes=detector.classes,
        num_classes=len(detector.classes),
        notes={DETECTOR: about.notes.get(DETECTOR, str(config["model"]["type"])), **notes},
    )
    weights = stored(detector.model.state_dict(), precision, source)
    detector_weights.FOLDER.mkdir(exist_ok=True)
    path, _ = write_named(detector_weights.FOLDER, name, lambda draft: save_weights(draft, weights, said))
    detector_weights.withdraw_detector(name, but=path)
    return path


def measure_detector(name: str, config: Path, log: Path) -> float:
    """Box AP of a published detector, as it is stored, on the official test images of a config, in percent.

    Args:
        name: of the detector.
        config: of `tools/test.py`; says which images.
        log: file the opening of the test images is written to.

    Raises:
        GemnetError: there is no such detector, or its images are not there.
    """
    # A process of its own: mmengine's logger keeps writing into the folder.
    alone = ProcessPoolExecutor(1, get_context("spawn"))
    with tempfile.TemporaryDirectory() as folder, alone as process:
        file = str(detector_weights.find_detector_file(name))
        figures = process.submit(measure_checkpoint, str(config), file, folder, final=True).result()
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as target:
            for openings in Path(folder).glob("*openings.jsonl"):
                shutil.copyfileobj(openings.open(encoding="utf-8"), target)
    return 100 * figures[FIGURE]


def _for_inference(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a config what building and using the detector takes, as plain data: no paths, no training."""
    parts = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    model = dict(parts["model"])
    model.pop("train_cfg", None)
    backbone = dict(model["backbone"])
    if "genome" in backbone or "arch" in backbone:
        # A name may come to stand for another genome, and a path is of one machine.
        genome = resolve_genome(backbone.pop("arch", None), backbone.pop("genome", None))
        backbone["genome"] = genome.to_dict()
    model["backbone"] = backbone
    data = parts.get("test_dataloader") or parts["val_dataloader"]
    dataset = {key: data["dataset"][key] for key in ("type", "pipeline", "metainfo") if key in data["dataset"]}
    return {"model": model, "test_dataloader": {"dataset": dataset}}
