"""A training and a test of a whole network, from a config to what came of it: what the commands of these names do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sized
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from gemnet.files import taken_back
from gemnet.stopping import stop_file
from gemnet.training.confusion import Confusion
from gemnet.training.hooks import StopWhenAsked
from gemnet.training.measurement import confusions, draw_detections, measure, select_images
from gemnet.training.runner import build_for_training, close_writers, latest_checkpoint, make_runner
from gemnet.training.runner_config import RunnerError, find_runner_config, load_runner_config

logger = logging.getLogger("gemnet.training")


def train_config(
    name: str,
    work_dir: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    resume: bool | str = False,
    amp: bool = False,
    auto_scale_lr: bool = False,
    launcher: str = "none",
    stop: str | Path | None = None,
) -> Path:
    """Trains what a config describes; returns the work folder.

    Args:
        name: config file, or the name of one that comes with the package.
        work_dir: folder of checkpoints and logs; None for the config's own, else ``work_dirs/<config>``.
        options: ``{'optim_wrapper.optimizer.lr': 0.1}``: values put over the config's.
        resume: whether to go on from the latest checkpoint there, or the checkpoint to go on from.
        amp: mixed precision.
        auto_scale_lr: whether the learning rate is scaled with the batch size.
        launcher: who started this process: ``none``, ``pytorch`` or ``slurm``.
        stop: file whose presence ends the training after the epoch under way; None for one in the work folder, by
            which `gemnet.stopping.ask_to_stop` asks. Not where several processes train together.

    Raises:
        Stopped: that file is there; a checkpoint holds what was done.
        GemnetError: something is to be mended before a training can begin.
        LossError: the loss is no longer finite.
    """
    file = find_runner_config(name)
    config = load_runner_config(file, options)
    folder = Path(work_dir or config.get("work_dir") or Path("work_dirs") / file.stem)
    if not resume and latest_checkpoint(folder) is not None:
        raise RunnerError(
            f"{folder} holds a training already. Go on with it by --resume, or choose another --work-dir."
        )
    if resume is True and latest_checkpoint(folder) is None:
        logger.warning("There is no checkpoint in %s to go on from: a training begins.", folder)
    with taken_back(folder):
        runner = make_runner(config, folder, launcher, amp, auto_scale_lr, resume)
        try:
            build_for_training(runner)
        except BaseException:
            close_writers(runner)
            raise
    _tell_what_is_trained(runner)
    checkpoints = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    if checkpoints is None or launcher != "none":
        runner.train()
        return folder
    with stop_file(folder) if stop is None else nullcontext(Path(stop)) as file:
        runner.register_hook(StopWhenAsked(checkpoints, file))
        runner.train()
    return folder


def _tell_what_is_trained(runner: Runner) -> None:
    """Sizes, and the log file, which has what MMEngine would fill the terminal with."""
    loaders = {"to learn from": runner.train_dataloader}
    if runner.val_loop is not None:
        loaders["to measure on"] = runner.val_dataloader
    counts = [
        f"{len(loader.dataset):,} {what}"
        for what, loader in loaders.items()
        if isinstance(getattr(loader, "dataset", None), Sized)
    ]
    weights = sum(value.numel() for value in runner.model.parameters() if value.requires_grad)
    runner.logger.info("Images: %s. Weights that learn: %s.", ", ".join(counts) or "not known", f"{weights:,}")
    runner.logger.info("Environment, config and hooks: %s", Path(runner.log_dir) / f"{runner.timestamp}.log")


def measure_checkpoint(
    name: str,
    checkpoint: str,
    work_dir: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    final: bool = False,
    show_dir: str | None = None,
    launcher: str = "none",
    on_classes: Callable[[Confusion], None] | None = None,
) -> dict[str, float]:
    """Measures a checkpoint on a config's development images; returns the figures by name.

    Args:
        name: config file, or the name of one that comes with the package.
        checkpoint: checkpoint of `train_config` (.pth), or weights (.safetensors).
        work_dir: folder of logs; None for the config's own, else ``work_dirs/<config>``.
        options: values put over the config's.
        final: whether the official test images are measured on instead, and their opening is written down.
        show_dir: folder for pictures with a detector's boxes; None for none.
        launcher: who started this process: ``none``, ``pytorch`` or ``slurm``.
        on_classes: is told what the images of each class were taken for; not of a detector.

    Raises:
        GemnetError: something is to be mended before anything is measured.
    """
    file = find_runner_config(name)
    config = load_runner_config(file, options)
    folder = Path(work_dir or config.get("work_dir") or Path("work_dirs") / file.stem)
    opened = select_images(config, folder, f"{file.stem}, {_shown(checkpoint)}" if final else None)
    if show_dir:
        draw_detections(config, show_dir, final)
    with taken_back(folder):
        runner = make_runner(config, folder, launcher, load_from=checkpoint, exact=True, final=final)
    figures = {key: float(value) for key, value in measure(runner, final or bool(show_dir), opened).items()}
    if on_classes is not None:
        for found in confusions(runner):
            on_classes(found)
    return figures


def _shown(file: str) -> str:
    """A path as it is seen from the current folder, where it lies below it: logs are passed on."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else file
