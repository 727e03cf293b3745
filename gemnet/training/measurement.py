"""Tests with mmengine's Runner: which images are measured, the figures, and a detector's pictures."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from gemnet.data.openings import log_opening
from gemnet.private_mmengine import loop_of, set_loop
from gemnet.training.confusion import Confusion
from gemnet.training.runner import named_errors
from gemnet.training.runner_config import RunnerError

OPENINGS = "test_openings.jsonl"


def select_images(config: Config, work_dir: str | os.PathLike[str], final: str | None) -> Callable[[], None]:
    """Settles which images a test is to see.

    Args:
        config: its ``val_dataloader`` or ``test_dataloader`` is used; that of the other is left alone.
        work_dir: takes the log, ``test_openings.jsonl``.
        final: the purpose, if the official test images are to be opened; else None.

    Returns:
        What `measure` calls once the images are there: it writes down that official test images are opened.

    Raises:
        RunnerError: the config has no such images.
    """
    kind = "val" if final is None else "test"
    loader = config.get(f"{kind}_dataloader")
    if loader is None:
        other = "Measure with --final." if kind == "val" else "Measure without --final."
        raise RunnerError(f"The config has no {kind}_dataloader. {other}")
    # It keeps the best checkpoint of a training, and fails where there was none.
    config.setdefault("default_hooks", ConfigDict()).checkpoint = None
    if final is None:
        return lambda: None
    log = str(Path(work_dir) / OPENINGS)
    dataset = loader.dataset
    if str(dataset.get("type", "")).endswith("ImageArrays"):  # logs itself, with the images' digest
        dataset.openings, dataset.purpose = log, final
        return lambda: None
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) != 0:
        return lambda: None
    names = (dataset.get(key) for key in ("ann_file", "data_root", "source", "type"))
    return partial(log_opening, log, str(next(name for name in names if name)), final)


def draw_detections(config: Config, folder: str | os.PathLike[str], final: bool) -> None:
    """Has a detector's test draw truth and detections, one picture an image.

    MMDetection draws all images of a test, but only some of a validation; so the development images, if they are
    meant, become the test's.

    Args:
        config: a detector's config, changed in place.
        folder: where the pictures go.
        final: whether the official test images are measured.

    Raises:
        RunnerError: the config is no detector's.
    """
    hooks = config.get("default_hooks") or {}
    if (hooks.get("visualization") or {}).get("type") != "DetVisualizationHook":
        raise RunnerError(
            "--show-dir draws boxes, so it needs a detector's config with default_hooks.visualization of type "
            "'DetVisualizationHook'."
        )
    hooks["visualization"] = {
        "type": "DetVisualizationHook",
        "draw": True,
        "test_out_dir": str(Path(folder).absolute()),
    }
    if not final:
        for part in ("dataloader", "evaluator"):
            config[f"test_{part}"] = copy.deepcopy(config[f"val_{part}"])


def measure(runner: Runner, final: bool, opened: Callable[[], None] = lambda: None) -> dict[str, float]:
    """The metrics of the loaded checkpoint, on the official test images (``final``) or the development images.

    Args:
        runner: as `make_runner` gives it.
        final: whether ``test_dataloader`` is measured, else ``val_dataloader``.
        opened: called once the images can be read, before they are.

    Raises:
        RunnerError: the test can't be built.
        GemnetError: the data set or the checkpoint can't be had.
    """
    with named_errors():
        if final:
            set_loop(runner, "test", runner.build_test_loop(loop_of(runner, "test")))
        else:
            set_loop(runner, "val", runner.build_val_loop(loop_of(runner, "val")))
    opened()
    return runner.test() if final else runner.val()


def confusions(runner: Runner) -> list[Confusion]:
    """What a classifier's images were taken for in the last measurement; none of a detector's."""
    loops = (loop_of(runner, "val"), loop_of(runner, "test"))
    metrics = [metric for loop in loops if hasattr(loop, "evaluator") for metric in loop.evaluator.metrics]
    found = [getattr(metric, "confusion_", None) for metric in metrics]
    return [confusion for confusion in found if confusion is not None]
