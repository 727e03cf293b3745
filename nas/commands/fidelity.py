"""``python tools/fidelity.py`` and ``gemnet-fidelity``: how well does a search's short training rank cells?"""

from __future__ import annotations

import argparse
from pathlib import Path

from nas.commands.entry import command
from nas.commands.options import OptionsAction, check_output, command_parser

DESCRIPTION = """\
Measures how well a search's short training ranks cells. Trains random cells with two seeds, and once several times as
long, and prints Kendall's tau between the seeds and against the longer training, and evaluations per hour. Rows go into
a CSV; run the same command again to continue."""

EXAMPLES = """\
examples
  how well the default search ranks cells, by six of them:
    {program} default --cells 6 --times 2
  the same with shorter trainings, into a file of its own:
    {program} cifar10 --cfg-options fidelity.epochs=1 --out one_epoch.csv

exit codes: 0 done, 2 an error that you can fix (one message says how), 130 interrupted"""


@command("fidelity", "Interrupted. To go on")
def main(program: str, arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser(program).parse_args(arguments)
    from nas.search.config import find_config, load_config
    from nas.studies.ranking import RankingRow, measure_fidelity

    def show(row: RankingRow, done: int, total: int) -> None:
        print(
            f"{done}/{total}  cell {row.cell}  {row.nodes} nodes  {row.macs / 1e6:.1f} M MACs  {row.epochs} epochs  "
            f"seed {row.seed}  {row.accuracy:.2f} %  {row.seconds:.0f} s",
            flush=True,
        )

    file = find_config(options.config)
    config = load_config(file, options.cfg_options)
    table = Path(options.out or Path("work_dirs") / f"fidelity_{file.stem}.csv")
    check_output(table)
    found = measure_fidelity(config, table, options.cells, options.times, options.seed, show)
    print(
        f"{config.fidelity}\n"
        f"tau between two seeds        {found.between_seeds:.3f}  ({found.cells} cells)\n"
        f"tau against {options.times} times as long  {found.against_longer:.3f}  ({found.longer_cells} cells; mean of "
        f"both seeds: {found.mean_against_longer:.3f})\n"
        f"one seed's noise             {found.seed_noise:.2f} points; cells differ by {found.spread:.2f}\n"
        f"a training takes             {found.seconds:.0f} s: {3600 / found.seconds:.0f} an hour and worker\n"
        f"rows                         {table}"
    )
    return 0


def _parser(program: str) -> argparse.ArgumentParser:
    parser = command_parser(program, DESCRIPTION, EXAMPLES)
    parser.add_argument("config", help="config of a search, or the name of one of ours")
    parser.add_argument("--cells", metavar="N", type=int, default=20, help="random cells (default %(default)s)")
    parser.add_argument(
        "--times",
        metavar="K",
        type=int,
        default=4,
        help="the longer training has K times the epochs (default %(default)s)",
    )
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="draws the cells")
    parser.add_argument("--out", metavar="FILE", help="the CSV (default: work_dirs/fidelity_<config>.csv)")
    parser.add_argument(
        "--cfg-options",
        metavar="KEY=VALUE",
        nargs="+",
        action=OptionsAction,
        help="values that override the config's, such as fidelity.epochs=3 fidelity.resolution=24",
    )
    return parser
