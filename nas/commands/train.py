"""``python tools/train.py`` and ``gemnet-train``: train a network, classifier or detector, with mmengine."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from nas.commands.entry import command
from nas.commands.options import OptionsAction, command_parser

DESCRIPTION = "Trains the network of a config: a classifier, a detector, or anything else that mmengine runs."

EXAMPLES = """\
examples
  a published network on CIFAR-10 (an image folder data/cifar10, or downloaded):
    {program} configs/classification/gemnet_b_cifar_cifar10.py
  the network that a search found:
    {program} configs/classification/gemnet_b_cifar_cifar10.py \\
        --cfg-options model.arch=None model.genome=work_dirs/cifar10/best.json
  continue after an interruption:
    {program} configs/classification/gemnet_b_cifar_cifar10.py --resume
  on two GPUs (or two CPU processes):
    torchrun --nproc-per-node 2 tools/train.py configs/classification/gemnet_b_cifar_cifar10.py --launcher pytorch

curves: tensorboard --logdir work_dirs
exit codes: 0 done, 1 the loss is not finite, 2 an error that you can fix (one message says how), 130 interrupted"""


@command("train", "Interrupted. To go on", resume=True)
def main(program: str, arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser(program).parse_args(arguments)
    # What takes seconds to import comes after --help and wrong arguments.
    from gemnet.machine import HUGE_PAGES

    os.environ.setdefault(HUGE_PAGES, "1")  # read when torch allocates for the first time
    import torch

    from gemnet.training.hooks import LossError
    from gemnet.training.run import train_config

    try:
        folder = train_config(
            options.config,
            options.work_dir,
            options.cfg_options,
            resume=True if options.resume == "auto" else options.resume or False,
            amp=options.amp,
            auto_scale_lr=options.auto_scale_lr,
            launcher=options.launcher,
        )
    except LossError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    finally:
        is_first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if is_first:
        _tell_what_next(folder, program.startswith("gemnet-"))
    return 0


def _tell_what_next(folder: Path, installed: bool) -> None:
    """The checkpoint to use, and commands that take it; nothing where the config keeps none, as one of MMEngine may."""
    from gemnet.checkpoint import load_checkpoint
    from gemnet.errors import GemnetError
    from gemnet.metadata import DETECTOR, metadata_of
    from gemnet.trained import checkpoint_in
    from nas.search.next_commands import program

    try:
        file = checkpoint_in(folder)
        about = metadata_of(load_checkpoint(file), file)
    except GemnetError:
        return
    print(f"\n{'Best' if file.name.startswith('best_') else 'Last'} checkpoint: {file}")
    place = shlex.quote(str(folder))
    if DETECTOR in about.notes:
        print(f"See what it finds:    {program('detect', installed)} {place} path/to/images")
    elif about.genome is not None or about.arch:
        print(f"See what it says:     {program('predict', installed)} {place} path/to/images")
        print(f"Bring it elsewhere:   {program('export', installed)} {place} --to onnx")


def _parser(program: str) -> argparse.ArgumentParser:
    parser = command_parser(program, DESCRIPTION, EXAMPLES)
    parser.add_argument("config", help="config file, or the name of one of ours")
    parser.add_argument("--work-dir", metavar="D", help="folder for checkpoints and logs (default: work_dirs/<config>)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="FILE",
        help="go on from the latest checkpoint in the work folder, or from FILE",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision (GPU)")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate with the batch size")
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none", help="who started this")
    parser.add_argument(
        "--cfg-options",
        metavar="KEY=VALUE",
        nargs="+",
        action=OptionsAction,
        help="values that override the config's",
    )
    return parser
