"""``python tools/search.py`` and ``gemnet-search``: search for a network."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.commands.entry import command, shown_command
from nas.commands.options import OptionsAction, check_output, command_parser, positive

DESCRIPTION = """\
Searches for a small, accurate vision network: cells are proposed, trained for a short while on your images, and the
best one becomes a network you can build with timm. Without a config it searches on scenes drawn from the handwritten
digits that come with scikit-learn, in a few minutes on two cores."""

EXAMPLES = """\
examples
  the default search, on scenes of handwritten digits:
    {program}
  on CIFAR-10 (an image folder data/cifar10, or downloaded), for two hours' worth of candidates, on four workers:
    {program} configs/search/cifar10.py --evaluations 100 --workers 4
  on images of your own (photos/train/<class>/*.jpg), for a network of at most 100 million MACs:
    {program} configs/search/photos.py --data photos --max-macs 100e6 --work-dir work_dirs/photos
  for a network that takes at most 2 ms per image on this processor, or 0.5 ms per image in batches on a GPU:
    {program} configs/search/cifar10.py --max-latency 2
    {program} configs/search/cifar10.py --max-latency 0.5 --cfg-options latency.device=cuda latency.batch_size=64
  for one that may take twice the time of 1 ms for each point of accuracy:
    {program} configs/search/cifar10.py --target-latency 1 --cfg-options score.weight=1
  continue after Ctrl-C, a crash or a power cut (no finished evaluation is lost or repeated):
    {program} configs/search/cifar10.py --evaluations 100 --workers 4 --resume
  ten whole searches, compared with random search, random cells and hand-made blocks:
    {program} --seeds 10
  change any key of a config:
    {program} --cfg-options strategy.type=random final.epochs=20 workers.threads=2

what you get, in the work folder (default work_dirs/<name of the config>)
  best.json          the network as a genome: timm.create_model('gemnet', genome='.../best.json')
  best.safetensors   its weights after a longer training
  report.html        open this first: results and progress, also while the search runs
  cell.png           the cell as a graph          search.png    progress of the search
  summary.json       the printed table            ledger.db     every evaluation (SQLite)
  search.log         the log                      search.json   the config (for --resume)

exit codes: 0 done, 2 an error that you can fix (one message says how), 130 interrupted
docs: docs/search.md, docs/latency.md (time limits), docs/cluster.md (Ray, Slurm)"""


@command("search", "Interrupted. To go on", resume=True)
def main(program: str, arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser(program).parse_args(arguments)
    if options.status or options.list or options.export_csv:
        return _tell(options)
    # What takes seconds to import comes after --help and wrong arguments.
    from nas.commands.console import ConsoleMonitor, make_console
    from nas.search.main import run_search

    console = make_console()
    monitor = ConsoleMonitor(console)
    with closing(monitor):
        config, folder = _read(options)
        monitor.note(f"Work folder: {folder}")
        if options.resume and not folder.is_dir():
            monitor.note("Nothing is there to go on with: a search begins.")
        if options.seeds is not None:
            from nas.studies.repeated_search import print_seeds, repeat_search

            print_seeds(console, repeat_search(config, folder, options.seeds, monitor))
            return 0
        result = run_search(config, folder, options.resume, monitor, shown_command(program, arguments))
        from nas.search.ending import print_ending

        print_ending(console, config, result, program.startswith("gemnet-"))
    return 0


def _tell(options: argparse.Namespace) -> int:
    """Says how far searches are, or writes what they found; nothing is searched."""
    from gemnet.errors import GemnetError
    from gemnet.quoting import printable
    from nas.evaluation.storage import is_url
    from nas.search.export import save_ledger
    from nas.search.status import status_of_folder, statuses_of_ledger

    if options.export_csv:
        source = options.storage or options.work_dir or (options.status if options.status else None)
        if source is None:
            raise GemnetError("--export-csv needs --work-dir D, the search, or --storage URL, the ledger of several.")
        check_output(options.export_csv)
        print(f"Wrote {options.export_csv}: {save_ledger(source, Path(options.export_csv))} evaluations")
    if options.list:
        found = statuses_of_ledger(options.list)
        print("\n".join(printable(each.line()) for each in found) or "No search is entered in this ledger.")
    if options.status:
        folder = Path(options.status).expanduser()
        if not is_url(options.status) and not folder.exists():
            raise GemnetError(f"There is no work folder and no ledger {options.status}: check the path.")
        known = [status_of_folder(folder)] if folder.is_dir() else statuses_of_ledger(options.status)
        print("\n".join(printable(line) for each in known for line in each.lines()) or "No search is entered there.")
    return 0


def _read(options: argparse.Namespace) -> tuple[Any, Path]:
    """Config and work folder from the arguments."""
    from gemnet.strict import Component, ConfigError
    from nas.search.config import find_config, load_config, read_config
    from nas.search.folder import read_identity

    changes = dict(options.cfg_options or {})
    for name, key in (
        ("evaluations", "search.evaluations"),
        ("seed", "search.seed"),
        ("workers", "workers.count"),
        ("executor", "workers.type"),
        ("ray_address", "workers.options.address"),
        ("data", "data.source"),
        ("max_macs", "limits.max_macs"),
        ("max_params", "limits.max_params"),
        ("max_latency", "limits.max_latency"),
        ("target_macs", "score.target_macs"),
        ("target_latency", "score.target_latency"),
        ("storage", "ledger"),
        ("retry_failed", "search.retry_failed"),
    ):
        if getattr(options, name) is not None:
            changes[key] = getattr(options, name)
    if options.target_latency is not None:
        changes["score.cost"] = "latency"
    folder = Path(options.work_dir) if options.work_dir else None
    goes_on = options.config is None and options.resume and folder is not None and options.seeds is None
    if goes_on and folder is not None and (folder / "search.json").is_file():
        config = read_config(_with(read_identity(folder)["config"], changes))
    elif goes_on and folder is not None and not (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(
            f"There is no search in {folder} to go on with. Check the path; to begin one there leave out --resume."
        )
    else:
        file = find_config("default" if options.config is None else options.config)
        config = load_config(file, changes)
        folder = folder or Path("work_dirs") / (file.stem + "_seeds" * bool(options.seeds))
    if options.optuna_storage is not None:
        others = tuple(each for each in config.callbacks if each.type != "optuna")
        config = replace(config, callbacks=(*others, Component("optuna", {"storage": options.optuna_storage})))
    return config, folder


def _with(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    from mmengine.config import Config

    from gemnet.config_files import settled

    parts = {key.partition(".")[0] for key in changes if "." in key}
    # mmengine can't merge an option into a part that isn't there.
    merged = Config({key: {} if value is None and key in parts else value for key, value in config.items()})
    merged.merge_from_dict(settled(changes, config))
    return merged.to_dict()


def _parser(program: str) -> argparse.ArgumentParser:
    parser = command_parser(program, DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "config", nargs="?", help="config file, or the name of one of ours (default: 'default', scenes of digits)"
    )
    parser.add_argument("--work-dir", metavar="D", help="folder for everything the search writes")
    parser.add_argument("--evaluations", "--budget", metavar="N", type=int, help="candidates to evaluate")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", metavar="S", type=int, help="seed of the strategy")
    seeds.add_argument(
        "--seeds",
        metavar="N",
        type=positive,
        help="repeat the whole search with seeds 0 to N-1, each beside random search, and compare what they find (run "
        "again to continue)",
    )
    parser.add_argument(
        "--workers", metavar="N", type=int, help="worker processes (default: one per GPU, else one per core; 0: none)"
    )
    parser.add_argument(
        "--executor",
        metavar="E",
        help="where workers run: local (default), ray ([ray]), slurm ([slurm]), or the dotted path of your own",
    )
    parser.add_argument(
        "--ray-address",
        metavar="A",
        help="address of the Ray cluster: auto, host:port (default: start one on this machine)",
    )
    parser.add_argument("--resume", action="store_true", help="continue the search in the work folder")
    parser.add_argument(
        "--retry-failed",
        action="store_true",
        default=None,
        help="evaluate failed candidates again (time limit, out of memory, killed worker)",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="ledger shared by several searches, such as postgresql+psycopg2://user@host/database; the password may "
        "come from PGPASSWORD or ~/.pgpass (default: an SQLite file in the work folder)",
    )
    parser.add_argument(
        "--optuna-storage",
        metavar="URL",
        help="show the search in `optuna-dashboard URL`: where its study is stored, such as "
        "sqlite:///work_dirs/optuna.db ([dashboard])",
    )
    parser.add_argument(
        "--data",
        metavar="SOURCE",
        help="image folder (SOURCE/train/<class>/*), timm data set name, cifar10, digits or digit_scenes",
    )
    parser.add_argument("--max-macs", metavar="X", type=float, help="hard limit on multiply-adds, such as 20e6")
    parser.add_argument("--max-params", metavar="X", type=float, help="hard limit on parameters")
    parser.add_argument(
        "--max-latency",
        metavar="MS",
        type=float,
        help="hard limit on milliseconds per image, one at a time on one thread of this CPU (change with "
        "latency.device, latency.threads, latency.batch_size)",
    )
    parser.add_argument("--target-macs", metavar="X", type=float, help="MACs at which the score has no penalty")
    parser.add_argument(
        "--target-latency",
        metavar="MS",
        type=float,
        help="milliseconds at which the score has no penalty; it then penalises time (score.cost=latency), not MACs",
    )
    telling = parser.add_argument_group("without searching")
    telling.add_argument(
        "--status", metavar="PLACE", help="progress of the search in a work folder, or of those in a ledger URL"
    )
    telling.add_argument("--list", metavar="URL", help="the searches that share a ledger, one per line")
    telling.add_argument(
        "--export-csv", metavar="FILE", help="write the evaluations in --work-dir, or all in --storage, as a table"
    )
    parser.add_argument(
        "--cfg-options",
        metavar="KEY=VALUE",
        nargs="+",
        action=OptionsAction,
        help="values that override the config's",
    )
    return parser
