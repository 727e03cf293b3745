"""Training of whole networks with mmengine: from a config to a Runner, with clear messages on the way."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import logging
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.runner import Runner, find_latest_checkpoint

from gemnet.checkpoint import guard_mmengine, load_checkpoint
from gemnet.detector_weights import detector_file
from gemnet.errors import GemnetError, nearest
from gemnet.private_mmengine import loop_of, set_loop, train_loader_of
from gemnet.training.completion import fill_in
from gemnet.training.hooks import CheckpointCheck, Describe, EpochSeeds, FiniteLoss
from gemnet.training.resuming import refuse_other_schedule
from gemnet.training.runner_config import RunnerError

LAUNCHERS = ("none", "pytorch", "slurm")
LOADER = "MMEngine's loader: "
SCREENS = (
    "\n" + 60 * "-" + "\nSystem environment:",
    "Config:\n",
    "Hooks will be executed",
    LOADER,
)
"""How MMEngine's records begin that fill screens: they are for the log file."""
ASIDES = ("Exp name: ", "Distributed training is not used", '"FileClient" will be', '"HardDiskBackend" is')
"""And those that say nothing to whoever trains."""


class _Runner(Runner):
    """MMEngine's, whose environment, config and list of hooks go to the log file and not to the terminal."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As MMEngine's; where a part can't be built, what writes into the work folder is closed."""
        try:
            super().__init__(*args, **kwargs)
        except BaseException:
            close_writers(self)
            raise

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """The logger that MMEngine would build, with a terminal that says less."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_for_the_terminal)
        return logger

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """As MMEngine's, whose page of weights that don't fit goes to the log file: our hook says what is taken."""
        with contextlib.redirect_stdout(io.StringIO()) as said:
            loaded = super().load_checkpoint(*args, **kwargs)
        if said.getvalue().strip():
            self.logger.info("%s%s", LOADER, said.getvalue().strip())
        return loaded


def close_writers(runner: Runner) -> None:
    """Closes what writes curves: TensorBoard's thread goes on writing after its folder was taken back."""
    visualizer = getattr(runner, "visualizer", None)
    if visualizer is not None:
        visualizer.close()


def _is_for_the_terminal(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith((*SCREENS, *ASIDES))


def make_runner(
    config: Config,
    work_dir: str | os.PathLike[str],
    launcher: str = "none",
    amp: bool = False,
    auto_scale_lr: bool = False,
    resume: str | bool = False,
    load_from: str | None = None,
    exact: bool = False,
    final: bool = False,
) -> Runner:
    """A Runner whose parts are all built, so that whatever a config gets wrong is said before anything is trained.

    Args:
        config: what to run; what it leaves open is filled in.
        work_dir: folder for checkpoints and logs.
        launcher: ``none``, ``pytorch`` (started by torchrun) or ``slurm``.
        amp: mixed precision; ``amp = True`` in a config means the same where there is a GPU.
        auto_scale_lr: scale the learning rate with the batch size.
        resume: go on from the latest checkpoint in the work folder, or from this file.
        load_from: start from these weights.
        exact: whether the weights must fit the network completely (a test), or a part will do (fine-tuning).
        final: whether the official test images are to be measured.

    Raises:
        RunnerError: something in the config or on this machine doesn't fit; the message names it.
        GemnetError: the data set or the network can't be had.
    """
    guard_mmengine()
    config = copy.deepcopy(config)
    config.work_dir = os.fspath(work_dir)
    config.launcher = launcher
    if resume is True:
        resume = latest_checkpoint(work_dir) or False
    config.resume = bool(resume)
    if isinstance(resume, str):
        load_from = resume
    if load_from is not None:
        config.load_from = load_from
    source = config.get("load_from")
    if source and not isinstance(source, str | os.PathLike):
        raise RunnerError(
            f"load_from is a text, got {source!r}. In --cfg-options put it in quotes: \"load_from='2024'\"."
        )
    if source:
        source = config.load_from = os.fspath(detector_file(source))
    trained = None
    if source and "://" not in source:
        trained = load_checkpoint(source)  # before anything is written, a message instead of a traceback
    if amp or (config.get("amp") and torch.cuda.is_available()):
        _use_amp(config)
    if auto_scale_lr:
        if "base_batch_size" not in config.get("auto_scale_lr", {}):
            raise RunnerError("--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config.")
        config.auto_scale_lr.enable = True
    with named_errors():
        fill_in(config, trained, final)
    if resume and trained is not None:
        refuse_other_schedule(config, trained, source)
    _prepare_launcher(config, launcher)
    with named_errors():
        runner = _Runner.from_cfg(config)
        runner.register_hook(CheckpointCheck(exact or bool(resume)), priority="VERY_HIGH")
        runner.register_hook(EpochSeeds(), priority="VERY_HIGH")
        runner.register_hook(FiniteLoss(), priority="LOW")  # before checkpoints
        runner.register_hook(Describe(), priority="VERY_LOW")
    return runner


def build_for_training(runner: Runner) -> None:
    """Builds loops, optimiser and schedulers now, not in the middle of `Runner.train`.

    Raises:
        RunnerError: one can't be built.
        GemnetError: a data set can't be read.
    """
    # One line a norm and bias, several hundred for a network of ours, hides all others.
    runner.logger.addFilter(lambda record: not record.getMessage().startswith("paramwise_options"))
    with named_errors():
        # In Runner.train's own order; it builds whatever is still a config and takes the rest as it is.
        set_loop(runner, "train", _train_loop(runner))
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        runner.auto_scale_lr = None  # done: once is enough
        if runner.param_schedulers is not None:
            shorten_warmup(runner.param_schedulers, runner.max_iters, len(runner.train_dataloader))
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        if loop_of(runner, "val") is not None:
            set_loop(runner, "val", runner.build_val_loop(loop_of(runner, "val")))


def _train_loop(runner: Runner) -> Any:
    """The loop; of fewer images than a batch, all of them are a batch."""
    settings = loop_of(runner, "train")
    loop = runner.build_train_loop(copy.deepcopy(settings))
    loader = loop.dataloader
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    images = len(sampler)
    smaller = train_loader_of(runner)
    if not isinstance(smaller, dict) or not 0 < images < smaller["batch_size"]:
        return loop
    runner.logger.info(
        "The %d training images are fewer than a batch of %d: all are one.", images, smaller["batch_size"]
    )
    smaller["batch_size"], smaller["drop_last"] = images, False
    if isinstance(smaller.get("batch_sampler"), dict):
        smaller["batch_sampler"]["drop_last"] = False
    return runner.build_train_loop(settings)


def shorten_warmup(schedulers: Any, iterations: int, epoch: int) -> None:
    """Lets a warm-up take a tenth of the training's iterations at most, and end: a small data set has few.

    One of epochs that MMEngine would convert is given in iterations afterwards.

    Args:
        schedulers: those of a config, changed in place; what is no list of configs is left alone.
        iterations: of the whole training.
        epoch: iterations of an epoch.
    """
    most = max(2, iterations // 10)  # at the end of a warm-up of one, MMEngine's LinearLR stays where it began
    for each in schedulers if isinstance(schedulers, list) else ():
        if not _is_warmup(each):
            continue
        end = each.get("end", most)
        if each.get("by_epoch", True):
            if not each.pop("convert_to_iter_based", False):
                continue
            each["by_epoch"], end = False, end * epoch
        each["end"] = max(2, min(end, most))


def _is_warmup(scheduler: Any) -> bool:
    """Whether it lets the learning rate rise from the training's begin on; a `LinearLR` may also let it fall."""
    if not isinstance(scheduler, dict) or scheduler.get("type") != "LinearLR" or scheduler.get("begin", 0):
        return False
    rises: bool = scheduler.get("start_factor", 1 / 3) < scheduler.get("end_factor", 1.0)
    return rises


def latest_checkpoint(work_dir: str | os.PathLike[str]) -> str | None:
    """The checkpoint a training in this folder would go on from; None where there is none.

    That which mmengine wrote down, wherever the folder lies now; where a killed process left no such note, the last
    whole one.
    """
    folder = Path(work_dir)
    if not folder.is_dir():
        return None
    found = find_latest_checkpoint(os.fspath(folder))
    if found:
        here = folder / Path(found).name
        if here.is_file() or Path(found).is_file():
            return str(here if here.is_file() else found)
    numbered = {
        int(match[1]): path
        for path in folder.glob("*.pth")
        if (match := re.fullmatch(r"(?:epoch|iter)_(\d+)\.pth", path.name)) and zipfile.is_zipfile(path)
    }
    return str(numbered[max(numbered)]) if numbered else None


def _use_amp(config: Config) -> None:
    if not torch.cuda.is_available():
        raise RunnerError("--amp needs a GPU: mixed precision is no faster on a CPU. Leave it out.")
    wrapper = config.get("optim_wrapper")
    if wrapper is None or wrapper.get("type", "OptimWrapper") not in ("OptimWrapper", "AmpOptimWrapper"):
        kind = None if wrapper is None else wrapper.get("type")
        raise RunnerError(f"--amp takes an optim_wrapper of type 'OptimWrapper', the config has {kind!r}.")
    wrapper.type = "AmpOptimWrapper"
    wrapper.setdefault("loss_scale", "dynamic")


def _prepare_launcher(config: Config, launcher: str) -> None:
    if launcher not in LAUNCHERS:
        raise RunnerError(f"Unknown launcher {launcher!r}.{nearest(launcher, LAUNCHERS)}")
    if launcher == "pytorch" and "RANK" not in os.environ:
        raise RunnerError(
            "--launcher pytorch is for processes that torchrun starts: "
            "torchrun --nproc-per-node 2 tools/train.py CONFIG --launcher pytorch"
        )
    if launcher == "slurm" and "SLURM_PROCID" not in os.environ:
        raise RunnerError("--launcher slurm is for processes that srun starts: srun ... python tools/train.py CONFIG")
    if launcher == "none" or torch.cuda.is_available():
        return
    if launcher == "slurm":
        raise RunnerError("--launcher slurm needs GPUs. On CPUs use torchrun and --launcher pytorch.")
    # mmengine picks a GPU for each rank; without GPUs the group is made here, and the wrapper told to stay on the CPU.
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(backend="gloo")
    wrapper = config.setdefault(
        "model_wrapper_cfg",
        ConfigDict(
            type="MMDistributedDataParallel",
            broadcast_buffers=False,
            find_unused_parameters=config.get("find_unused_parameters", False),
        ),
    )
    wrapper.device_ids = None


@contextmanager
def named_errors() -> Iterator[None]:
    """Turns what mmengine raises over a config into one message that names the part and the key."""
    try:
        yield
    except GemnetError:
        raise
    except (TypeError, KeyError, ValueError, AttributeError, AssertionError, ImportError, OSError) as error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        text = " ".join(text.split()) or type(error).__name__
        part, hint = _part_being_built(error), ""
        if "unexpected keyword argument '" in text and part is not None:
            key = text.split("unexpected keyword argument '")[1].split("'")[0]
            hint = nearest(key, [name for name in inspect.signature(part).parameters if name != "self"])
        where = f" {part.__name__}" if part is not None else ""
        raise RunnerError(f"The config's part{where} can't be built: {text}.{hint}") from error


def _part_being_built(error: BaseException) -> Any:
    """The innermost class or function that mmengine's registry was calling when the error rose."""
    part, trace = None, error.__traceback__
    while trace is not None:
        part = trace.tb_frame.f_locals.get("obj_cls", part)
        trace = trace.tb_next
    return part
