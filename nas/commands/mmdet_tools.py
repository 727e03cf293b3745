"""``python tools/mmdet_tools.py TOOL ...`` and ``gemnet-mmdet TOOL ...``: MMDetection's own tools on a GEMNet."""

from __future__ import annotations

import argparse

from nas.commands.entry import command
from nas.commands.options import command_parser

DESCRIPTION = """\
Runs one of MMDetection's tools with what a GEMNet needs: operators that MMCV lacks are stood in for, checkpoints are
read without running what is in them, the neck's channels and the rest that follows from backbone, weights and data are
filled in. All else is the tool's own: gemnet-mmdet TOOL --help."""

EXAMPLES = """\
examples
  a test with test-time augmentation (flips):
    {program} test configs/retinanet_gemnet_coco320.py epoch_9.pth --tta
  training images as the network sees them:
    {program} browse_dataset configs/retinanet_gemnet_coco320.py --output-dir pictures --not-show
  multiply-adds ("Flops") and parameters:
    {program} get_flops configs/retinanet_gemnet_coco320.py"""


@command("mmdet_tools")
def main(program: str, arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = command_parser(program, DESCRIPTION, EXAMPLES)
    parser.add_argument("tool", help="such as train, test, browse_dataset, confusion_matrix, get_flops, print_config")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the tool's own")
    options = parser.parse_args(arguments)
    import gemnet.detection  # noqa: F401  # before MMDetection, whose models import MMCV's operators
    from gemnet.detection.mmdet_tools import run_tool

    run_tool(options.tool, options.arguments)
    return 0
