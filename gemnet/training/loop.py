"""Training of a network on images in memory: the loop and the measurement.

The same seed gives the same result, bit for bit, on one kind of machine with one number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gemnet.data.datasets import DataSpec, load_train_images, train_dev_split
from gemnet.data.decoded import CROP_PCT, INTERPOLATION, resize
from gemnet.data.image_set import ImageSet
from gemnet.metadata import Metadata
from gemnet.training.augmentation import Augmentation, drawn_seed, normalised, on_byte_scale
from gemnet.training.confusion import Confusion
from gemnet.training.recipe import Recipe, RecipeError, learning_rate, side_of_epoch

LOSS_CHECK_INTERVAL = 20  # steps between looks at the loss: each look makes a GPU wait
EVALUATION_BATCH, EVALUATION_PIXELS = 500, 500 * 96 * 96
"""Images measured at once: so many, or fewer where they are large, since memory goes with the pixels."""


class TrainingFailed(RuntimeError):
    """A training that came to nothing, with the reason in one sentence: NaN, over its time limit."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Images of one resolution, ready for training.

    Args:
        images: uint8 (n, channels, side, side), all of the data set's training images.
        labels: int64 (n,).
        train: indices of those to learn from.
        dev: indices of those to measure on.
        classes: names.
        mean: of each channel, in [0, 1].
        std: of each channel, in [0, 1].
        digest: of the data set.
        balance: see `gemnet.data.datasets.DataSpec`.
    """

    images: Tensor
    labels: Tensor
    train: Tensor
    dev: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    balance: str | None = None

    def metadata(self) -> Metadata:
        """What weights that are trained on these images say about themselves; the network is still to be named."""
        return Metadata(
            num_classes=len(self.classes),
            in_chans=self.channels,
            input_size=self.resolution,
            crop_pct=CROP_PCT,
            interpolation=INTERPOLATION,
            mean=tuple(map(float, self.mean)),
            std=tuple(map(float, self.std)),
            classes=self.classes,
        )

    def class_weights(self) -> Tensor:
        """What an image of each class counts so that the classes of the training part count alike; mean 1 over them."""
        counts = torch.bincount(self.labels[self.train], minlength=len(self.classes)).clamp(min=1)
        weights = counts.sum() / (len(counts) * counts.to(torch.float32))
        return weights

    @property
    def channels(self) -> int:
        """1 or 3."""
        return int(self.images.shape[1])

    @property
    def resolution(self) -> int:
        """Side in pixels."""
        return int(self.images.shape[2])


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


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to.

    Args:
        accuracy: top-1 on the development images at the end, in percent.
        balanced: mean over the classes of the share of their development images that are recognised, in percent.
        history: one record an epoch.
        seconds: wall-clock time.
        images_per_second: training speed, measurement left out.
    """

    accuracy: float
    balanced: float
    history: tuple[EpochRecord, ...]
    seconds: float
    images_per_second: float


def load_data(spec: DataSpec) -> TrainingData:
    """Reads a data set and divides its training images.

    Raises:
        DataError: see `gemnet.data.datasets`.
    """
    images = load_train_images(spec)
    train, dev = train_dev_split(images.labels, images.classes, spec.dev_fraction, spec.split_seed)
    mean, std = channel_statistics(images)
    return TrainingData(
        images.images,
        images.labels,
        torch.from_numpy(train),
        torch.from_numpy(dev),
        images.classes,
        mean,
        std,
        images.digest,
        spec.balance,
    )


def channel_statistics(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, in [0, 1], from at most 10,000 evenly spaced images."""
    step = max(1, len(images) // 10_000)
    sample = images.images[::step].to(torch.float32) / 255
    std, mean = torch.std_mean(sample, dim=(0, 2, 3))
    return tuple(round(float(v), 4) for v in mean), tuple(round(max(float(v), 1e-3), 4) for v in std)


def at_fidelity(data: TrainingData, resolution: int | None = None, subset: float = 1.0) -> TrainingData:
    """The same data with fewer training images or another resolution.

    Args:
        data: at full fidelity.
        resolution: side in pixels; None keeps it.
        subset: share of the training images, in (0, 1]. Smaller subsets are part of larger ones and hold the classes in
            the same proportion. The development images stay.

    Raises:
        RecipeError: a share or resolution out of range.
    """
    if not 0 < subset <= 1:
        raise RecipeError(f"subset is a share of the training images in (0, 1], got {subset}.")
    if resolution is not None and not 1 <= resolution <= 4096:
        raise RecipeError(f"resolution is a number of pixels from 1 to 4096, got {resolution}.")
    train = data.train[: max(1, math.ceil(len(data.train) * subset))]
    if resolution is None or resolution == data.resolution:
        return TrainingData(**{**vars(data), "train": train})
    kept = torch.cat([train, data.dev])
    return TrainingData(
        images=resize(data.images[kept], resolution),
        labels=data.labels[kept],
        train=torch.arange(len(train)),
        dev=torch.arange(len(train), len(kept)),
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        digest=data.digest,
        balance=data.balance,
    )


def train(
    model: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    epochs: int,
    seed: int,
    device: torch.device | str = "cpu",
    time_limit: float | None = None,
    measure_every: int = 0,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainingResult:
    """Trains a network in place and measures it on the development images.

    Args:
        model: maps float images (batch, channels, side, side), normalised by the data's mean and std, to logits.
        data: what to train on.
        recipe: how.
        epochs: passes over the training images. Incomplete batches at the end of a pass are left out.
        seed: of data order, augmentation, and dropout in the model.
        device: where.
        time_limit: in seconds; None for none.
        measure_every: epochs between measurements; 0 measures at the end only.
        on_epoch: called after each epoch.

    Raises:
        TrainingFailed: the loss is no longer finite, or the time is up.
        RecipeError: fewer than one epoch.
    """
    if epochs < 1:
        raise RecipeError(f"epochs is at least 1, got {epochs}.")
    started = time.perf_counter()
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _train(model, data, recipe, epochs, seed, device, time_limit, measure_every, on_epoch, started)


def _train(
    model: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    epochs: int,
    seed: int,
    device: torch.device,
    time_limit: float | None,
    measure_every: int,
    on_epoch: Callable[[EpochRecord], None] | None,
    started: float,
) -> TrainingResult:
    model.to(device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, recipe)
    average = _moving_average(model, recipe.ema)
    batch_size = min(recipe.batch_size, len(data.train))
    steps_per_epoch = len(data.train) // batch_size
    total = epochs * steps_per_epoch
    generator = torch.Generator().manual_seed(seed)
    history: list[EpochRecord] = []
    weights = data.class_weights().to(device) if data.balance == "weights" else None
    step, training_seconds, result = 0, 0.0, None
    for epoch in range(1, epochs + 1):
        epoch_started = time.perf_counter()
        model.train()
        losses = torch.zeros((), device=device)
        side = side_of_epoch(data.resolution, recipe.progressive, epoch - 1, epochs)
        for images, labels in batches(data, batch_size, recipe, generator, device, side):
            rate = learning_rate(recipe, step, total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = F.cross_entropy(model(images), labels, weights, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if average is not None:
                average.update_parameters(model)
            losses += loss.detach()
            step += 1
            if step % LOSS_CHECK_INTERVAL == 0 and not math.isfinite(losses.item()):
                raise TrainingFailed(f"The loss became {losses.item()} in epoch {epoch} (learning rate {rate:.3g}).")
            if time_limit is not None and time.perf_counter() - started > time_limit:
                raise TrainingFailed(
                    f"Over its time limit of {time_limit:g} s after {step} of {total} steps, in epoch {epoch}."
                )
        mean_loss = losses.item() / steps_per_epoch
        if not math.isfinite(mean_loss):
            raise TrainingFailed(f"The loss became {mean_loss} in epoch {epoch}.")
        training_seconds += time.perf_counter() - epoch_started
        measured = None
        if epoch == epochs or (measure_every and epoch % measure_every == 0):
            result = confusion(average.module if average is not None else model, data, device)
            measured = result.accuracy
        history.append(EpochRecord(epoch, mean_loss, measured))
        if on_epoch is not None:
            on_epoch(history[-1])
    if average is not None:
        model.load_state_dict(average.module.state_dict())
    assert result is not None  # the last epoch is measured
    return TrainingResult(
        result.accuracy,
        result.balanced_accuracy,
        tuple(history),
        time.perf_counter() - started,
        total * batch_size / max(training_seconds, 1e-9),
    )


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD that decays matrices and kernels, but no norms, biases, or what the model says not to decay."""
    skip: set[str] = model.no_weight_decay() if hasattr(model, "no_weight_decay") else set()  # type: ignore[operator]
    decay: list[nn.Parameter] = []
    keep: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (keep if parameter.ndim <= 1 or name in skip else decay).append(parameter)
    groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": keep, "weight_decay": 0.0}]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        fused=True,
    )


def batches(
    data: TrainingData,
    batch_size: int,
    recipe: Recipe,
    generator: torch.Generator,
    device: torch.device,
    side: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over the training images in random order, augmented a batch at a time.

    Args:
        data: the images.
        batch_size: images a batch; an incomplete one at the end is left out.
        recipe: says how they are augmented.
        generator: all randomness.
        device: where the work is done.
        side: of the images that come out; None for the data's.

    Yields:
        Normalised float32 images (batch_size, channels, side, side) in channels_last, and labels: int64 (batch_size,),
        or float32 (batch_size, classes) where images are mixed.
    """
    augment = Augmentation(
        data.mean,
        data.std,
        recipe.crop,
        recipe.flip,
        recipe.cutout,
        device,
        scale=recipe.scale,
        randaugment=recipe.randaugment,
    )
    mixing = recipe.mixing
    if data.balance == "sampler":
        chances = data.class_weights()[data.labels[data.train]]
        order = data.train[torch.multinomial(chances, len(data.train), replacement=True, generator=generator)]
    else:
        order = data.train[torch.randperm(len(data.train), generator=generator)]
    for index in order.split(batch_size):
        if len(index) < batch_size:
            continue
        images, labels = augment(data.images[index], generator, side), data.labels[index].to(device)
        if mixing.mixes_labels:
            images, labels = mixing(images, labels, len(data.classes), np.random.default_rng(drawn_seed(generator)))
        yield images, labels


def evaluation_batch(side: int) -> int:
    """How many images of ``side`` x ``side`` pixels are measured at once."""
    return max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // side**2))


def measure(model: nn.Module, data: TrainingData, device: torch.device | str = "cpu") -> float:
    """Top-1 on the development images, in percent. The model is left in eval mode."""
    return confusion(model, data, device).accuracy


@torch.no_grad()
def confusion(model: nn.Module, data: TrainingData, device: torch.device | str = "cpu") -> Confusion:
    """What the development images of each class are taken for. The model is left in eval mode."""
    device = torch.device(device)
    model.eval()
    mean, std = on_byte_scale(data.mean, device), on_byte_scale(data.std, device)
    predicted = [
        model(normalised(data.images[index].to(device), mean, std)).argmax(1).cpu()
        for index in data.dev.split(evaluation_batch(data.resolution))
    ]
    return Confusion.of(data.labels[data.dev], torch.cat(predicted), data.classes)


def _moving_average(model: nn.Module, decay: float | None) -> torch.optim.swa_utils.AveragedModel | None:
    if decay is None:
        return None
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    return torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=average, use_buffers=True)
