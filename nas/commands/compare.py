"""``python tools/compare.py`` and ``gemnet-compare``: train networks alike, compare them in pairs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.commands.entry import command
from nas.commands.options import OptionsAction, command_parser

if TYPE_CHECKING:
    from nas.executors.monitor import Monitor
    from nas.studies.comparison.run import Comparison, ComparisonFolder

    Compare = Callable[[ComparisonFolder, bool, Monitor], str]

DESCRIPTION = """\
Trains networks alike and compares them with a reference: one recipe, the learning rate of each chosen from the same
values on a short run, the same seeds, differences paired by seed with 95 % intervals. All figures are on images set
aside from the training images; --final measures on the official test images.

A config that lists detectors compares backbones inside them: each detector is trained on each backbone."""

DETECTORS = "detectors"
"""The key that makes a config one of backbones in detectors."""

EXAMPLES = """\
examples
  networks, their costs, and how long it will take (nothing is trained):
    {program} cifar10 --estimate
  compare (after Ctrl-C, a crash or a power cut the same command continues):
    {program} cifar10 --workers 2
  table and picture of the trainings finished so far, also while it runs:
    {program} cifar10 --report
  at the very end, measure the kept weights on the official test images (this is logged):
    {program} cifar10 --final
  a network of your own: copy configs/comparison/cifar10.py, replace the reference by your genome (a search's
  best.json), timm name or function, and run
    {program} mine.py --workers 2
  backbones inside detectors, on a small part of COCO:
    {program} coco320 --workers 2

what you get, in the work folder (default work_dirs/comparison_<config>)
  table.md, table.csv   accuracy of each network and by how much the reference leads
  accuracy.png          accuracy against MACs (curves.png of detectors: losses and AP)
  trainings.csv         one row per training (delete a row to repeat it)
  weights/              trained weights, one safetensors file per training
  <detector>_<backbone>_seed<n>/   detectors: all of one training (delete the folder to repeat it)
  comparison.json       settings, commit, and every network's genome and costs
  test_openings.jsonl   when, at which commit and what for the test images were used

exit codes: 0 done, 2 an error that you can fix (one message says how), 130 interrupted
docs: docs/comparing.md (how), docs/comparison.md (results)"""


@command("compare", "Interrupted. To go on")
def main(program: str, arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser(program).parse_args(arguments)

    from gemnet.config_files import read_file
    from gemnet.strict import ConfigError
    from nas.commands.console import ConsoleMonitor, make_console
    from nas.search.config import find_config
    from nas.studies.comparison.run import ComparisonFolder

    monitor = ConsoleMonitor(make_console())
    with closing(monitor):
        if options.workers is not None and options.workers < 0:
            raise ConfigError(f"--workers is at least 0, got {options.workers}.")
        file = find_config(options.config, "comparison")
        data = read_file(file, options.cfg_options)
        if options.workers is not None:
            workers = data.get("workers", {})
            if not isinstance(workers, Mapping):
                raise ConfigError(f"workers is a dict, got {workers!r}.")
            data["workers"] = {**workers, "count": options.workers}
        path = Path(options.work_dir or Path("work_dirs") / f"comparison_{file.stem}")
        if options.estimate:
            _print_estimate(data, path, monitor)
            return 0
        if options.report:
            print(_report(data, path))
            return 0
        prepare = _detectors if DETECTORS in data else _classifiers
        compare = prepare(data)  # a config that makes no sense is to be found out before the folder is made
        with ComparisonFolder(path) as folder:
            monitor.note(f"Work folder: {path}")
            text = compare(folder, options.final, monitor)
    print(f"\n{text}")
    return 0


def _classifiers(data: Mapping[str, Any]) -> Compare:
    from nas.studies.comparison.config import read_comparison
    from nas.studies.comparison.run import run_comparison

    config = read_comparison(data)
    return lambda folder, final, monitor: _write_classifiers(
        run_comparison(config, folder, final, monitor), folder.path
    )


def _report(data: Mapping[str, Any], path: Path) -> str:
    from gemnet.errors import GemnetError
    from nas.studies.comparison.config import read_comparison
    from nas.studies.comparison.run import comparison_so_far

    if DETECTORS in data:
        raise GemnetError(
            f"--report is for classifiers. Each finished training of a detector is a training.json below {path}."
        )
    return _write_classifiers(comparison_so_far(read_comparison(data), path), path)


def _write_classifiers(comparison: Comparison, path: Path) -> str:
    from nas.studies.comparison.picture import draw_comparison
    from nas.studies.comparison.report import as_csv, markdown

    draw_comparison(comparison, path / "accuracy.png")
    return _write_tables(path, markdown(comparison), as_csv(comparison), "accuracy.png")


def _detectors(data: Mapping[str, Any]) -> Compare:
    from nas.studies.detectors.config import read_detector_comparison
    from nas.studies.detectors.picture import draw_curves
    from nas.studies.detectors.report import as_csv, markdown
    from nas.studies.detectors.run import run_detector_comparison

    config = read_detector_comparison(data)

    def compare(folder: ComparisonFolder, final: bool, monitor: Monitor) -> str:
        comparison = run_detector_comparison(config, folder, final, monitor)
        draw_curves(comparison, folder.path / "curves.png")
        return _write_tables(folder.path, markdown(comparison), as_csv(comparison), "curves.png")

    return compare


def _write_tables(path: Path, markdown: str, rows: str, picture: str) -> str:
    from gemnet.files import write_text

    write_text(path / "table.md", markdown)
    write_text(path / "table.csv", rows)
    return f"{markdown}\n{path / 'table.md'}, {path / 'table.csv'}, {path / picture}"


def _print_estimate(data: Mapping[str, Any], path: Path, monitor: Monitor) -> None:
    from gemnet.errors import GemnetError
    from nas.executors.options import workers_of
    from nas.studies.comparison.config import read_comparison
    from nas.studies.comparison.run import ComparisonFolder, estimate

    if DETECTORS in data:
        raise GemnetError("--estimate is for classifiers. A detectors' comparison says what is left after its first.")
    config = read_comparison(data)
    timed = config.fit.by == "time"
    if timed:  # what it takes minutes to measure is there when the comparison begins
        with ComparisonFolder(path) as folder:
            found = estimate(config, folder.times, monitor.note)
    else:
        found = estimate(config)
    workers = max(1, workers_of(config.workers)[0])
    time = f"{'time':>6} " if timed else ""
    print(f"{'network':38} {time}{'M MACs':>8} {'k params':>9} {'images/s':>9} {'short runs':>11} {'trainings':>10}")
    longest: dict[str, float] = {}
    for one in found:
        network = one.network
        print(
            f"{network.title:38} {f'{network.time:6.2f} ' if timed else ''}{network.macs / 1e6:8.2f} "
            f"{network.params / 1e3:9.1f} {one.images_per_second:9.0f} "
            f"{one.choice_hours:9.2f} h {one.hours:8.2f} h"
        )
        longest[network.name] = max(one.hours, longest.get(network.name, 0.0))
    total = sum(one.choice_hours for one in found) + sum(longest.values())
    print(
        f"together {total:.1f} h of one worker ({config.workers.threads} thread(s)), {total / workers:.1f} h of "
        f"{workers}; of several forms the slowest counts, and cores shared with others take longer"
    )


def _parser(program: str) -> argparse.ArgumentParser:
    parser = command_parser(program, DESCRIPTION, EXAMPLES)
    parser.add_argument("config", help="config file, or the name of one of ours in configs/comparison")
    parser.add_argument(
        "--work-dir", metavar="D", help="folder for everything (default: work_dirs/comparison_<config>)"
    )
    parser.add_argument("--workers", metavar="N", type=int, help="training processes (default: one per GPU or core)")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--estimate", action="store_true", help="show networks, their costs and the hours; train nothing")
    ways.add_argument(
        "--report", action="store_true", help="write table and picture of the trainings so far; train nothing"
    )
    ways.add_argument(
        "--final", action="store_true", help="measure all trained networks on the official test images; this is logged"
    )
    parser.add_argument(
        "--cfg-options",
        metavar="KEY=VALUE",
        nargs="+",
        action=OptionsAction,
        help="values that override the config's, such as epochs=3 seeds=[0]",
    )
    return parser
