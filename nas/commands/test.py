"""``python tools/test.py`` and ``gemnet-test``: measure a checkpoint."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from nas.commands.entry import command
from nas.commands.options import OptionsAction, check_output, command_parser

DESCRIPTION = """\
Measures a checkpoint on the config's development images (val_dataloader). With --final it is measured on the official
test images (test_dataloader) instead, and this is logged with the commit. Do not tune by test images."""

EXAMPLES = """\
examples
  a training's checkpoint on its development images; the figures go to a file, too:
    {program} configs/classification/gemnet_b_cifar_cifar10.py epoch_100.pth --out figures.json
  a detector, with pictures of what it finds:
    {program} configs/retinanet_gemnet.py work_dirs/retinanet_gemnet/epoch_24.pth --show-dir found
  at the very end, on the official test images:
    {program} configs/classification/gemnet_b_cifar_cifar10.py epoch_100.pth --final

exit codes: 0 done, 2 an error that you can fix (one message says how), 130 interrupted"""


@command("test")
def main(program: str, arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser(program).parse_args(arguments)
    import torch

    from gemnet.files import write_text
    from gemnet.training.run import measure_checkpoint
    from nas.commands.console import show_confusion

    try:
        if options.out:
            check_output(options.out)
        figures = measure_checkpoint(
            options.config,
            options.checkpoint,
            options.work_dir,
            options.cfg_options,
            final=options.final,
            show_dir=options.show_dir,
            launcher=options.launcher,
            on_classes=show_confusion,
        )
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if options.out:
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(options.out), json.dumps(figures, indent=1) + "\n")
    print(("test images: " if options.final else "development images: ") + json.dumps(figures))
    return 0


def _parser(program: str) -> argparse.ArgumentParser:
    parser = command_parser(program, DESCRIPTION, EXAMPLES)
    parser.add_argument("config", help="config file, or the name of one of ours")
    parser.add_argument("checkpoint", help="checkpoint of tools/train.py (.pth), or weights (.safetensors)")
    parser.add_argument("--final", action="store_true", help="measure on the official test images; this is logged")
    parser.add_argument("--work-dir", metavar="D", help="folder for logs (default: work_dirs/<config>)")
    parser.add_argument("--show-dir", metavar="D", help="folder for pictures with a detector's boxes")
    parser.add_argument("--out", metavar="FILE", help="write the figures to this JSON file, too")
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none", help="who started this")
    parser.add_argument(
        "--cfg-options",
        metavar="KEY=VALUE",
        nargs="+",
        action=OptionsAction,
        help="values that override the config's",
    )
    return parser
