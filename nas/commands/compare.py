"""``python tools/compare.py`` and ``gemnet-compare``: train networks alike, compare them in pairs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gemnet.errors import GemnetError
from nas.commands.options import options_action, program_name

if TYPE_CHECKING:
    from nas.comparison.config import ComparisonConfig

DESCRIPTION = """\
Trains networks alike and compares them with one of them, the reference: one recipe, the learning rate chosen for each
from the same values on a short run, the same seeds for all, differences paired by seed with their 95 % interval. All
figures are on images set aside from the training images, until --final opens the official test images."""

EXAMPLES = """\
examples
  what is compared, what each network costs, and how long it will take (nothing is trained):
    {program} cifar10 --estimate
  compare; after Ctrl-C, a crash or a power cut the same command goes on:
    {program} cifar10 --workers 2
  when nothing will be changed any more: measure the kept weights on the official test images; this is logged:
    {program} cifar10 --final
  a network of your own against its peers: copy configs/comparison/cifar10.py, put your genome (a search's best.json),
  timm name or function in place of the reference's, and
    {program} mine.py --workers 2

what you get, in the work folder (default work_dirs/comparison_<config>)
  table.md, table.csv   accuracy of each network and by how much the reference leads
  accuracy.png          accuracy against MACs
  trainings.csv         a row a training (delete a row to have it done again)
  weights/              trained weights, safetensors, one file a training
  comparison.json       settings, commit, and every network's genome and costs
  test_openings.jsonl   when, at which commit and what for the test images were opened

exit codes: 0 done, 2 something to be mended (one message says what), 130 interrupted
docs: docs/comparison.md"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    program = program_name("compare")
    options = _parser(program).parse_args(arguments)
    from rich.console import Console

    from nas.comparison.config import load_comparison
    from nas.comparison.run import ComparisonFolder, run_comparison
    from nas.config import find_config
    from nas.report.console import ConsoleMonitor

    console = Console(soft_wrap=True)
    monitor = ConsoleMonitor(console)
    try:
        file = find_config(options.config, "comparison")
        config = load_comparison(file, options.cfg_options)
        if options.workers is not None:
            if options.workers < 0:
                raise GemnetError(f"--workers is at least 0, got {options.workers}.")
            config = replace(config, workers=replace(config.workers, count=options.workers))
        if options.estimate:
            _print_estimate(config)
            return 0
        path = Path(options.work_dir or Path("work_dirs") / f"comparison_{file.stem}")
        with ComparisonFolder(path) as folder:
            monitor.note(f"Work folder: {path}")
            comparison = run_comparison(config, folder, options.final, monitor)
    except GemnetError as error:
        monitor.close()
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        monitor.close()
        print("\nInterrupted. The same command goes on.", file=sys.stderr)
        return 130
    monitor.close()
    from nas.comparison.picture import draw_comparison
    from nas.comparison.report import as_csv, markdown

    text = markdown(comparison)
    (path / "table.md").write_text(text, encoding="utf-8")
    (path / "table.csv").write_text(as_csv(comparison), encoding="utf-8")
    draw_comparison(comparison, path / "accuracy.png")
    print(f"\n{text}\n{path / 'table.md'}, {path / 'table.csv'}, {path / 'accuracy.png'}")
    return 0


def _print_estimate(config: ComparisonConfig) -> None:
    from nas.comparison.run import estimate
    from nas.components import available_cores

    found = estimate(config)
    workers = max(1, config.workers.count or available_cores() // config.workers.threads)
    print(f"{'network':38} {'M MACs':>8} {'k params':>9} {'images/s':>9} {'short runs':>11} {'trainings':>10}")
    longest: dict[str, float] = {}
    for one in found:
        network = one.network
        print(
            f"{network.title:38} {network.macs / 1e6:8.2f} {network.params / 1e3:9.1f} {one.images_per_second:9.0f} "
            f"{one.choice_hours:9.2f} h {one.hours:8.2f} h"
        )
        longest[network.name] = max(one.hours, longest.get(network.name, 0.0))
    total = sum(one.choice_hours for one in found) + sum(longest.values())
    print(
        f"together {total:.1f} h of one worker ({config.workers.threads} thread(s)), {total / workers:.1f} h of "
        f"{workers}; of several forms the slowest counts, and cores shared with others take longer"
    )


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description=DESCRIPTION,
        epilog=EXAMPLES.replace("{program}", program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", help="config file, or the name of one of ours in configs/comparison")
    parser.add_argument(
        "--work-dir", metavar="D", help="folder for everything (default: work_dirs/comparison_<config>)"
    )
    parser.add_argument("--workers", metavar="N", type=int, help="processes that train (default: one a GPU or a core)")
    parser.add_argument(
        "--estimate", action="store_true", help="show networks, their costs and the hours; train nothing"
    )
    parser.add_argument(
        "--final", action="store_true", help="measure all trained networks on the official test images; this is logged"
    )
    parser.add_argument(
        "--cfg-options",
        metavar="KEY=VALUE",
        nargs="+",
        action=options_action(),
        help="values put over the config's, such as epochs=3 seeds=[0]",
    )
    return parser
