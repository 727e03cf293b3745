"""Image classification for mmengine's Runner: data set, preprocessor, model and metric.

Configs name this module (``custom_imports=dict(imports=['gemnet.classification'], ...)``) and its parts with the
scope ``gemnet.``. Images are those of `gemnet.data.datasets`: decoded once, moved a batch at a time, augmented as one
tensor where the model is. A batch's augmentation depends on the seed, the iteration and the rank only, so a
resumed training sees what an uninterrupted one would have seen. Data sets too large for memory are read an image at a
time: `gemnet.classification.files`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import timm
import torch
from mmengine.dist import get_rank
from mmengine.logging import MessageHub, print_log
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor
from torch.nn import functional as F

import gemnet.models  # noqa: F401  (registers its networks with timm)
from gemnet.classification.arrays import ClassificationError
from gemnet.metadata import Metadata
from gemnet.registry import MODELS
from gemnet.strict import make
from gemnet.training.augmentation import Augmentation
from gemnet.training.mixing import Mixing
from gemnet.training.runner_config import unknown_network
from gemnet.training.teacher import Distillation, Teacher


@MODELS.register_module()
class BatchAugmentation(BaseDataPreprocessor):
    """Augments (in training) and normalises a batch of bytes on the model's device.

    The augmentation is `gemnet.training.augmentation.Augmentation`.

    Args:
        mean: of each channel, in [0, 1]; None for what its weights, or else the network, were made for.
        std: likewise.
        crop: padding of random crops, as a share of the side.
        flip: whether images may be mirrored.
        cutout: side of the covered square, as a share of the side.
        mixup: alpha of mixup; 0 for none. See `gemnet.training.mixing.Mixing`.
        cutmix: alpha of CutMix; 0 for none.
        erase: share of the images in which a rectangle becomes noise.
        scale: least share of the area of a random resized crop, in place of ``crop``; 1 for none.
        randaugment: magnitude of RandAugment, up to 30; 0 for none.
        seed: draws the augmentation; the tools fill in ``randomness.seed``.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        crop: float = 0.125,
        flip: bool = True,
        cutout: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        erase: float = 0.0,
        scale: float = 1.0,
        randaugment: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.fixed = mean is not None
        self.crop, self.flip, self.cutout = crop, flip, cutout
        self.scale, self.randaugment = scale, randaugment
        self.mixing = Mixing(mixup, cutmix, erase)
        self.num_classes: int | None = None
        self.seed = seed
        self._augment: Augmentation | None = None

    def follow(self, statistics: tuple[Sequence[float], Sequence[float]]) -> bool:
        """Takes over mean and std of loaded weights; returns whether they changed.

        Not where the config sets its own, nor where the weights are for images of other channels.
        """
        others = self.mean is not None and len(self.mean) != len(statistics[0])
        if self.fixed or others or (self.mean, self.std) == statistics:
            return False
        self.mean, self.std = statistics
        self._augment = None
        return True

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and std of each channel, in [0, 1], that broadcast over a batch; (1, channels, 1, 1) each."""
        assert self.mean is not None  # forward has seen to it
        assert self.std is not None
        mean, std = (torch.tensor(each, device=self.device)[None, :, None, None] for each in (self.mean, self.std))
        return mean, std

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Tensor]:
        """``inputs`` as float32 in channels_last, ``labels`` on the device: int64 (n,), or float32 (n, classes)."""
        augment = self._augment
        if augment is None or augment.device != self.device:
            if self.mean is None or self.std is None:
                raise ClassificationError("The network names no mean and std. Set them in data_preprocessor.")
            augment = self._augment = Augmentation(
                self.mean,
                self.std,
                self.crop,
                self.flip,
                self.cutout,
                self.device,
                scale=self.scale,
                randaugment=self.randaugment,
            )
        if training:
            step = MessageHub.get_current_instance().get_info("iter", 0)
            state = np.random.SeedSequence([self.seed, get_rank(), step]).generate_state(1, np.uint64)
            inputs = augment(data["inputs"], torch.Generator().manual_seed(int(state[0] >> np.uint64(1))))
            if self.mixing.erase or self.mixing.mixes_labels:
                if self.num_classes is None:
                    raise ClassificationError("mixup, cutmix and erase need a model with a number of classes.")
                rng = np.random.default_rng([self.seed, get_rank(), step, 1])
                inputs, labels = self.mixing(inputs, data["labels"].to(self.device), self.num_classes, rng)
                return {"inputs": inputs, "labels": labels}
        else:
            inputs = augment.normalise(data["inputs"].to(self.device))
        return {"inputs": inputs, "labels": data["labels"].to(self.device)}


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """Any timm network with a cross-entropy loss.

    Args:
        arch: a timm name, GEMNet's or another's.
        genome: path or dict of a genome, in place of ``arch``.
        num_classes: classes; the tools fill in the data set's.
        in_chans: channels of the images; the tools fill in the data set's.
        pretrained: start from the weights timm has for ``arch`` (with its tag).
        label_smoothing: of the loss, in [0, 1).
        options: further keyword arguments of the network, such as ``drop_path_rate``.
        teacher: whose logits are learnt from beside the labels: a tag of the zoo, a checkpoint, a work folder or a timm
            name, or a dict of the settings of `gemnet.training.teacher.Distillation`; None for none.
        classes: names of the classes, which a teacher is asked by; the tools fill in the data set's.
        data_preprocessor: config of the preprocessor.
        init_cfg: accepted for mmengine; networks initialise themselves.

    Raises:
        ClassificationError: no such network, or both ``arch`` and ``genome``.
        TeacherError: no such teacher, or it doesn't know the classes.
    """

    def __init__(
        self,
        arch: str | None = None,
        genome: Any = None,
        num_classes: int | None = None,
        in_chans: int = 3,
        pretrained: bool = False,
        label_smoothing: float = 0.0,
        options: Mapping[str, Any] | None = None,
        teacher: str | Mapping[str, Any] | None = None,
        classes: Sequence[str] = (),
        data_preprocessor: Any = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor or {"type": "gemnet.BatchAugmentation"}, init_cfg=init_cfg)
        if (arch is None) == (genome is None):
            raise ClassificationError("The model needs either arch (a timm name) or genome (a path).")
        arguments = dict(options or {})
        if num_classes is not None:
            arguments["num_classes"] = num_classes
        if arch is None:
            arch, arguments["genome"] = "gemnet", genome
        elif arch.split(".")[0] not in timm.list_models():
            raise ClassificationError(unknown_network(arch))
        try:
            network = timm.create_model(arch, pretrained=pretrained, in_chans=in_chans, **arguments)
        except (TypeError, RuntimeError) as error:
            raise ClassificationError(f"Network {arch!r} can't be built with {arguments}: {error}") from None
        self.network = network.to(memory_format=torch.channels_last)
        self.arch, self.options = arch.split(".")[0], dict(options or {})
        self.label_smoothing = label_smoothing
        if pretrained and genome is None:
            _report_weights(arch, network, num_classes, in_chans)
        preprocessor = self.data_preprocessor
        if isinstance(preprocessor, BatchAugmentation):
            preprocessor.num_classes = network.num_classes
        if isinstance(preprocessor, BatchAugmentation) and preprocessor.mean is None:
            made_for = getattr(network, "pretrained_cfg", {})
            if in_chans == 3:
                preprocessor.mean, preprocessor.std = made_for.get("mean"), made_for.get("std")
            else:
                preprocessor.mean, preprocessor.std = [0.5] * in_chans, [0.5] * in_chans
        self.teacher: Teacher | None = None
        if teacher:
            settings = {"network": teacher} if isinstance(teacher, str) else teacher
            if not isinstance(preprocessor, BatchAugmentation):
                raise ClassificationError("A teacher needs images from gemnet.BatchAugmentation as data_preprocessor.")
            self.teacher = Teacher(make(Distillation, settings, "model.teacher"), classes, in_chans)

    def metadata(self, images: Mapping[str, Any]) -> Metadata:
        """What the weights say about themselves when they are saved.

        Args:
            images: ``metainfo`` of the data set they are trained on.
        """
        preprocessor = self.data_preprocessor
        known = isinstance(preprocessor, BatchAugmentation) and preprocessor.mean is not None
        genome = getattr(self.network, "genome", None)
        return Metadata(
            genome=genome,
            arch="" if genome is not None else self.arch,
            options={} if genome is not None else self.options,
            num_classes=self.network.num_classes,
            in_chans=images.get("channels"),
            input_size=images.get("input_size"),
            crop_pct=images.get("crop_pct"),
            interpolation=images.get("interpolation"),
            mean=tuple(map(float, preprocessor.mean)) if known else None,
            std=tuple(map(float, preprocessor.std)) if known else None,
            classes=tuple(images.get("classes") or ()),
        )

    def init_weights(self) -> None:
        """Does nothing: the network has initialised itself or loaded its weights."""

    def forward(self, inputs: Tensor, labels: Tensor | None = None, mode: str = "tensor") -> Any:
        """Logits (``tensor``), a dict with the loss (``loss``), or logits and labels for the metric (``predict``).

        Args:
            inputs: float32 (n, channels, side, side).
            labels: int64 (n,), or shares of the classes, float32 (n, classes).
            mode: as mmengine calls it.
        """
        logits = self.network(inputs)
        if mode == "tensor":
            return logits
        if mode == "loss":
            assert labels is not None
            loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            if self.teacher is not None:
                loss = self.teacher.loss(
                    loss, logits, self.teacher.logits(inputs, *self.data_preprocessor.statistics())
                )
            return {"loss": loss}
        return [{"logits": logits, "labels": labels}]


def _report_weights(arch: str, network: Any, num_classes: int | None, in_chans: int) -> None:
    """Says in the log which weights a network starts from, and what of it is new."""
    made_for = getattr(network, "pretrained_cfg", {})
    known, channels = made_for.get("num_classes"), made_for.get("input_size", (in_chans,))[0]
    text = f"Starts from the weights of {arch}."
    if num_classes not in (None, known):
        text += (
            f" They tell {known} classes apart, these images have {num_classes}: a fresh classifier takes the place of "
            "theirs, all else is kept."
        )
    if channels != in_chans:
        text += f" Their first convolution is adapted from {channels} channels to {in_chans}."
    print_log(text, logger="current")
