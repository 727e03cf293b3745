"""Trained detectors of MMDetection: built from what their checkpoint says, and looking at images.

A checkpoint carries its config, and names of classes. The config is read as plain data and never run; of one that names
parts of other packages `gemnet.checkpoint` leaves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from numpy.typing import NDArray
from torch import Tensor

import gemnet.detection  # noqa: F401  (stands in for MMCV's compiled operators)
from gemnet.checkpoint import aligned, describe_mismatch, load_checkpoint, plain_config, state_dict_of
from gemnet.data.reading import read_image
from gemnet.detection.config import complete_config
from gemnet.detection.statistics import genome_in
from gemnet.detector_weights import detector_file, published_detectors
from gemnet.errors import GemnetError, nearest
from gemnet.loading import check_genome
from gemnet.metadata import DETECTOR, metadata_of
from gemnet.private_mmengine import without_missing_extras
from gemnet.trained import SEARCHED, WEIGHT_FILES, checkpoint_in


class TrainedDetectorError(GemnetError):
    """Something that was to be a trained detector, and is none."""


@dataclass(frozen=True)
class Detections:
    """What was found in an image, the surest first.

    Args:
        boxes: corners in pixels, float32 (n, 4).
        scores: float32 (n,).
        labels: number of each one's class, int64 (n,).
        size: width and height of the image.
        upright: whether EXIF's orientation was applied.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    size: tuple[int, int]
    upright: bool = True


class TrainedDetector:
    """A detector with its weights.

    Args:
        config: of MMDetection.
        state: its weights.
        classes: names, in the order of the labels.
        source: where they come from, for messages.
        device: where it runs.

    Raises:
        TrainedDetectorError: it can't be built, or the weights are of another detector.
    """

    def __init__(
        self, config: Config, state: Mapping[str, Tensor], classes: Sequence[str], source: str, device: str = "cpu"
    ) -> None:
        with without_missing_extras():
            from mmdet.registry import MODELS
            from mmdet.utils import register_all_modules

            register_all_modules()
        self.config, self.classes, self.device = config, tuple(classes), torch.device(device)
        model = config.model
        model.train_cfg = None
        for part in ("backbone", "init_cfg"):
            if isinstance(model.get(part), Mapping):
                model[part]["init_cfg"] = None  # all weights come from the checkpoint
        try:
            self.model: Any = MODELS.build(model)
        except GemnetError:
            raise
        except Exception as error:  # whatever a part of MMDetection raises
            text = " ".join(str(error).split())
            raise TrainedDetectorError(f"{source}: its detector can't be built: {text}") from error
        weights = aligned(state, self.model.state_dict())
        difference = describe_mismatch(self.model, weights, extra_is_fine=True)
        if difference:
            raise TrainedDetectorError(f"{source}: the weights are of another detector than the config: {difference}.")
        self.model.load_state_dict(weights, strict=False)
        self.model.eval().to(self.device)
        self._pipeline = Compose(_pipeline_of(config, source))

    @torch.no_grad()
    def __call__(self, file: str | Path, upright: bool = True) -> Detections:
        """What is in an image file.

        Args:
            file: the image.
            upright: whether EXIF's orientation is applied first; boxes are those of the image as it was looked at.

        Raises:
            ImageFileError: the file can't be read.
        """
        pixels = np.ascontiguousarray(
            np.asarray(read_image(file, upright))[..., ::-1]
        )  # OpenCV's order, which MMDetection expects
        data = self._pipeline({"img": pixels, "img_id": 0, "img_path": str(file), "instances": []})
        result = self.model.test_step({"inputs": [data["inputs"]], "data_samples": [data["data_samples"]]})[0]
        found = result.pred_instances.cpu()
        order = found.scores.argsort(descending=True, stable=True)
        return Detections(
            found.bboxes[order].numpy().astype(np.float32),
            found.scores[order].numpy().astype(np.float32),
            found.labels[order].numpy().astype(np.int64),
            (pixels.shape[1], pixels.shape[0]),
            upright,
        )


def find_detector(source: str | Path, config: Config | None = None, device: str = "cpu") -> TrainedDetector:
    """The detector that a checkpoint, or the work folder of a training, stands for.

    Args:
        source: a ``.pth`` or ``.safetensors`` file; of a folder the best checkpoint on the development images, else the
            last; or the name of a published detector.
        config: of MMDetection, where the checkpoint carries none.
        device: where it runs.

    Raises:
        TrainedDetectorError: nothing of the kind is there, it is a classifier, or the classes are not known.
        GemnetError: a file can't be read.
    """
    path = Path(detector_file(source)).expanduser()
    if not path.exists() and path.suffix not in WEIGHT_FILES:
        published = published_detectors()
        raise TrainedDetectorError(
            f"There is neither a folder nor a file {path}. Give the work folder of a training, a checkpoint (.pth, "
            f".safetensors), or a published detector.{nearest(str(source), published) if published else ''}"
        )
    if path.is_dir():
        if (path / f"{SEARCHED}.json").is_file():
            raise _classifier(path)
        path = checkpoint_in(path)
    checkpoint = load_checkpoint(path)
    about = metadata_of(checkpoint, path)
    if config is None and DETECTOR not in about.notes and (about.genome is not None or about.arch):
        raise _classifier(path)
    meta = checkpoint.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    settings = config if config is not None else _carried_config(meta, path)
    if not isinstance(settings.get("model"), Mapping):
        raise TrainedDetectorError(f"{path}: the config has no model=dict(type=...).")
    if config is not None:
        complete_config(settings, checkpoint)
    known = about.classes or (meta.get("dataset_meta") or {}).get("classes")
    known = known or _classes_of(settings)
    if not known:
        raise TrainedDetectorError(
            f"{path} doesn't say what its classes are called. Give its training's config: --config FILE."
        )
    names = [str(name) for name in known]
    detector = TrainedDetector(settings, state_dict_of(checkpoint), names, str(path), device)
    own = genome_in(detector.model)
    if own:
        check_genome(about, own, path)
    return detector


def _classifier(path: Path) -> TrainedDetectorError:
    return TrainedDetectorError(
        f"{path} holds a classifier, which finds no boxes. gemnet-predict looks at images with it, and a detector's "
        "backbone takes it as init_cfg."
    )


def _carried_config(meta: Mapping[str, Any], path: Path) -> Config:
    text = meta.get("cfg")
    plain = plain_config(text) if isinstance(text, str) else None
    if plain is None or "model" not in plain:
        raise TrainedDetectorError(
            f"{path} carries no config of plain data that names parts of MMDetection and of ours alone, and no other "
            "is run for a file's word. Give its training's: --config FILE."
        )
    return Config({key: plain[key] for key in plain if key != "custom_imports"})


def _pipeline_of(config: Config, source: str) -> list[Any]:
    """The test images' transforms, for an image that is in memory; without annotations."""
    for kind in ("test", "val"):
        loader = config.get(f"{kind}_dataloader")
        dataset = (loader or {}).get("dataset")
        while isinstance(dataset, Mapping) and "pipeline" not in dataset:
            dataset = dataset.get("dataset")
        if isinstance(dataset, Mapping):
            steps = [step for step in dataset["pipeline"] if "LoadAnnotations" not in str(step.get("type"))]
            return [{"type": "mmdet.LoadImageFromNDArray"}, *steps[1:]]
    raise TrainedDetectorError(f"{source}: the config has no test_dataloader, which says how images are prepared.")


def _classes_of(config: Config) -> Sequence[str]:
    for kind in ("test", "val", "train"):
        dataset = (config.get(f"{kind}_dataloader") or {}).get("dataset") or {}
        classes = (dataset.get("metainfo") or {}).get("classes")
        if classes:
            return tuple(classes)
    return ()
