"""Training of a network on images in memory: the loop and the measurement.

The same seed gives the same result, bit for bit, on one kind of machine with one number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gemnet.stopping import Stopped
from gemnet.training.augmentation import Augmentation, drawn_seed, normalised, on_byte_scale
from gemnet.training.confusion import Confusion
from gemnet.training.images import TrainingData
from gemnet.training.recipe import Recipe, RecipeError, learning_rate, side_of_epoch
from gemnet.training.state import EpochRecord, TrainingState
from gemnet.training.teacher import Teacher

LOSS_CHECK_INTERVAL = 20  # steps between looks at the loss: each look makes a GPU wait
EVALUATION_BATCH, EVALUATION_PIXELS = 500, 500 * 96 * 96
"""Images measured at once: so many, or fewer where they are large, since memory goes with the pixels."""


class TrainingFailed(RuntimeError):
    """A training that came to nothing, with the reason in one sentence: NaN, over its time limit."""


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
    keep: Path | None = None,
    stop: Path | None = None,
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
        on_epoch: called after each epoch; of a training that goes on, for the epochs before as well.
        keep: file of the training's state, written after each epoch. Where it is there, the training goes on from it,
            and comes to the same, bit for bit. It stays there: whoever has the result takes it away.
        stop: file whose presence ends a training that is kept after the epoch under way; None for none.

    Raises:
        Stopped: the file ``stop`` is there, and epochs are left.
        TrainingFailed: the loss is no longer finite, or the time is up.
        RecipeError: fewer than one epoch.
        StateError: ``keep`` is of another training.
        TeacherError: the recipe's teacher isn't there, or doesn't know the images' classes.
    """
    if epochs < 1:
        raise RecipeError(f"epochs is at least 1, got {epochs}.")
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _train(model, data, recipe, epochs, seed, device, time_limit, measure_every, on_epoch, keep, stop)


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
    keep: Path | None,
    stop: Path | None,
) -> TrainingResult:
    model.to(device).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(seed)
    state = TrainingState(model, make_optimizer(model, recipe), _moving_average(model, recipe.ema), generator, device)
    criterion = TrainingLoss(data, recipe, device)
    batch_size = min(recipe.batch_size, len(data.train))
    steps_per_epoch = len(data.train) // batch_size
    total = epochs * steps_per_epoch
    identity = {} if keep is None else _identity(data, recipe, epochs, seed)
    if keep is not None and keep.is_file():
        state.load(keep, identity)
        if on_epoch is not None:
            for record in state.history:
                on_epoch(record)
    optimizer, average, result = state.optimizer, state.average, None
    step = len(state.history) * steps_per_epoch
    for epoch in range(len(state.history) + 1, epochs + 1):
        epoch_started = time.perf_counter()
        model.train()
        losses = torch.zeros((), device=device)
        side = side_of_epoch(data.resolution, recipe.progressive, epoch - 1, epochs)
        for images, labels in batches(data, batch_size, recipe, generator, device, side):
            rate = learning_rate(recipe, step, total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                logits = model(images)
            loss = criterion(logits.float(), images, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if average is not None:
                average.update_parameters(model)
            losses += loss.detach()
            step += 1
            if step % LOSS_CHECK_INTERVAL == 0 and not math.isfinite(losses.item()):
                raise TrainingFailed(f"The loss became {losses.item()} in epoch {epoch} (learning rate {rate:.3g}).")
            if time_limit is not None and state.elapsed > time_limit:
                raise TrainingFailed(
                    f"Over its time limit of {time_limit:g} s after {step} of {total} steps, in epoch {epoch}."
                )
        mean_loss = losses.item() / steps_per_epoch
        if not math.isfinite(mean_loss):
            raise TrainingFailed(f"The loss became {mean_loss} in epoch {epoch}.")
        state.training_seconds += time.perf_counter() - epoch_started
        result = None
        if epoch == epochs or (measure_every and epoch % measure_every == 0):
            result = confusion(average.module if average is not None else model, data, device)
        state.history.append(EpochRecord(epoch, mean_loss, None if result is None else result.accuracy))
        if keep is not None:
            state.save(keep, identity)
        if on_epoch is not None:
            on_epoch(state.history[-1])
        if keep is not None and stop is not None and epoch < epochs and stop.exists():
            raise Stopped(f"Stopped after epoch {epoch} of {epochs}.")
    if average is not None:
        model.load_state_dict(average.module.state_dict())
    if result is None:  # a training that was kept after its last epoch
        result = confusion(model, data, device)
    return TrainingResult(
        result.accuracy,
        result.balanced_accuracy,
        tuple(state.history),
        state.elapsed,
        total * batch_size / max(state.training_seconds, 1e-9),
    )


def _identity(data: TrainingData, recipe: Recipe, epochs: int, seed: int) -> dict[str, Any]:
    """What a training's state must agree in with the training that goes on from it."""
    return {
        "epochs": epochs,
        "seed": seed,
        "recipe": recipe.identity(),
        "data": data.digest,
        "resolution": data.resolution,
        "training images": len(data.train),
        "balance": data.balance,
    }


class TrainingLoss:
    """The loss of a batch: the labels', and a teacher's where the recipe has one.

    Args:
        data: whose classes they are.
        recipe: says how.
        device: where.

    Raises:
        TeacherError: the teacher isn't there, or doesn't know the classes.
    """

    def __init__(self, data: TrainingData, recipe: Recipe, device: torch.device) -> None:
        self.smoothing = recipe.label_smoothing
        self.weights = data.class_weights().to(device) if data.balance == "weights" else None
        self.teacher = (
            None if recipe.distillation is None else Teacher(recipe.distillation, data.classes, data.channels)
        )
        self.mean, self.std = (torch.tensor(each, device=device)[None, :, None, None] for each in (data.mean, data.std))

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """The loss; ().

        Args:
            logits: of the network (n, classes).
            images: that it saw, normalised.
            labels: int64 (n,), or shares of the classes (n, classes).
        """
        loss = F.cross_entropy(logits, labels, self.weights, label_smoothing=self.smoothing)
        if self.teacher is None:
            return loss
        return self.teacher.loss(loss, logits, self.teacher.logits(images, self.mean, self.std))


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD that decays matrices and kernels, but no norms, biases, or what the model says not to decay."""
    skip: set[str] = getattr(model, "no_weight_decay", set)()
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

    def mix(averaged: Any, current: Any, taken: Tensor | int) -> None:
        step = int(taken)
        torch.optim.swa_utils.get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))(averaged, current, taken)

    return torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=mix, use_buffers=True)
