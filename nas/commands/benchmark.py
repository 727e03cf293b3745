"""``python tools/benchmark.py`` and ``gemnet-benchmark``: predictors, searches and networks side by side."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nas.commands.entry import command
from nas.commands.options import DistinctAction, check_output, command_parser, positive

DESCRIPTION = """\
Compares search strategies and predictors on tables of known accuracies, and measures how long networks take.

Every finished run is a row of a CSV. Run the same command again to continue, or with more seeds: only what is missing
is computed."""

EXAMPLES = """\
examples
  how long networks take when deployed (timm names, genomes, work folders or files):
    {program} latency mobilenetv2_100 gemnet_a work_dirs/cifar10 mynet.onnx --threads 1
  how well latencies are estimated without running a network:
    {program} estimates --networks 64
  seven strategies, 200 queries, 10 seeds each, on NAS-Bench-201's three data sets:
    {program} search --space nasbench201 --seeds 10
  nasgem beside what other libraries search with (pip install 'gemnet[rivals]'):
    {program} search --space nasbench201 --strategies nasgem tpe botorch smac --seeds 10
  two strategies on one metric, with an option changed:
    {program} search --space nasbench201 --strategies nasgem evolution --metric c10_valid_200ep_1seed \\
      --options evolution.population=50
  how well predictors rank cells they never saw:
    {program} predictors --space nasbench101 --train-sizes 100 172 424 --seeds 10
  what each part of nasgem is worth:
    {program} ablation --space nasbench101 --seeds 10
  how much sooner a search ends when it remembers results on another data set:
    {program} search --space nasbench201 --strategies nasgem --metric c100_valid_200ep_1seed \\
      --memory c10_valid_200ep_1seed --shuffled
  accuracy and latency of a device as two objectives:
    {program} pareto --devices raspi4 edgegpu --seeds 10
    {program} pareto --space accel_nasbench --devices a100 tpuv3 zcu102 --seeds 10
    {program} pareto --table mine.csv --metric accuracy --devices latency_ms
  12-epoch trainings as cheap queries:
    {program} cheap-queries --space nasbench201 --seeds 10
  a table of your own (docs/tables.md):
    {program} search --table mine.parquet --metric accuracy --queries 100 --seeds 5
  the table from a benchmark's official file:
    {program} convert nasbench101 nasbench_full.tfrecord --out data/nasbench/nb101_valid_30001.parquet

tables are in $GEMNET_DATA/nasbench (default data/nasbench), or given with --table
exit codes: 0 done, 2 an error that you can fix (one message says how), 130 interrupted
docs: docs/benchmarks.md"""


SLOW = ("bananas", "structural", "wl_gp")


@command("benchmark", "Interrupted; runs that were finished are kept. To go on")
def main(program: str, arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser(program).parse_args(arguments)
    check_output(options.out if hasattr(options, "out") else Path(options.work_dir) / "rows.csv")
    options.run(options)
    return 0


def _search(options: argparse.Namespace) -> None:
    from gemnet.errors import GemnetError
    from nas.commands.console import make_console
    from nas.strategies import STRATEGIES
    from nas.studies.tabular.search import report_search

    extra = _options_by_strategy(options.options)
    strategies = options.strategies or list(STRATEGIES)
    for name in extra:
        if name not in strategies:
            raise GemnetError(
                f"--options sets {name}.*, but {name!r} is not among the strategies {', '.join(strategies)}."
            )
    slow = options.slow_seeds if options.slow_seeds is not None else options.seeds
    report_search(
        make_console(),
        space=options.space,
        path=options.table,
        metrics=options.metric,
        tasks_of=[(name, slow if name in SLOW else options.seeds, extra.get(name, {})) for name in strategies],
        queries=options.queries,
        initial=options.initial,
        batch=options.batch,
        workers=options.workers,
        folder=Path(options.work_dir),
        whole=options.whole,
        memory=options.memory,
        control=options.shuffled,
    )


def _predictors(options: argparse.Namespace) -> None:
    from nas.commands.console import make_console
    from nas.studies.tabular.predictors import report_predictors

    report_predictors(
        make_console(),
        space=options.space,
        path=options.table,
        metric=options.metric,
        predictors=options.predictors,
        sizes=options.train_sizes,
        seeds=options.seeds,
        workers=options.workers,
        folder=Path(options.work_dir),
        memory=options.memory,
        control=options.shuffled,
    )


def _ablation(options: argparse.Namespace) -> None:
    from nas.commands.console import make_console
    from nas.studies.tabular.ablation import report_ablation

    report_ablation(
        make_console(),
        space=options.space,
        path=options.table,
        metric=options.metric,
        search_metric=options.search_metric,
        parts=options.parts,
        sizes=options.train_sizes,
        seeds=options.seeds,
        workers=options.workers,
        folder=Path(options.work_dir),
    )


def _pareto(options: argparse.Namespace) -> None:
    from nas.commands.console import make_console
    from nas.studies.tabular.pareto import report_pareto

    report_pareto(
        make_console(),
        space=options.space if options.space or options.table else "nasbench201",
        path=options.table,
        devices=options.devices,
        metric=options.metric,
        strategies=options.strategies,
        queries=options.queries,
        seeds=options.seeds,
        workers=options.workers,
        folder=Path(options.work_dir),
    )


def _cheap_queries(options: argparse.Namespace) -> None:
    from nas.commands.console import make_console
    from nas.studies.tabular.cheap_queries import report_cheap_queries

    report_cheap_queries(
        make_console(),
        space=options.space,
        path=options.table,
        metric=options.metric,
        epochs=options.cheap_epochs,
        cheap=options.cheap,
        queries=options.queries,
        seeds=options.seeds,
        workers=options.workers,
        folder=Path(options.work_dir),
    )


def _latency(options: argparse.Namespace) -> None:
    from rich.table import Table

    from gemnet.runtimes.latency import Runtime, usual_backend
    from gemnet.runtimes.latency_report import compare_latency, write_latency
    from nas.commands.console import make_console

    console = make_console()
    runtime = Runtime(options.backend or usual_backend(options.device), options.threads, options.device)
    with console.status("") as status:
        rows = compare_latency(
            options.models,
            runtime,
            options.batch,
            options.size,
            options.int8,
            options.rounds,
            not options.no_memory,
            status.update if console.is_terminal else partial(console.print, highlight=False, markup=False),
        )
    title = (
        f"{rows[0].runtime}, batch {options.batch}{', int8' * options.int8}, an image (± half the spread of the turns)"
    )
    table = Table(title=title, title_justify="left")
    for heading in ("network", "size", "M MACs", "wall ms", "ratio", "CPU ms", "ratio", "peak MiB"):
        left = heading == "network"
        table.add_column(heading, justify="left" if left else "right", overflow="fold" if left else "ellipsis")
    for row in rows:
        table.add_row(
            row.network,
            str(row.size),
            "" if row.macs is None else f"{row.macs / 1e6:.0f}",
            f"{row.wall_ms:.3g} ±{row.wall_spread / 2:.0%}",
            f"{row.wall_ratio:.2f}",
            f"{row.cpu_ms:.3g} ±{row.cpu_spread / 2:.0%}",
            f"{row.cpu_ratio:.2f}",
            "" if row.peak_mib is None else f"{row.peak_mib:.0f}",
        )
    console.print(table)
    classes = list(dict.fromkeys(row.classes for row in rows if row.classes is not None))
    if len(classes) > 1:
        text = f"Note: the networks have {', '.join(map(str, classes))} classes; a large classifier takes its time."
        console.print(text, highlight=False, markup=False)
    csv = Path(options.work_dir) / "latency.csv"
    write_latency(rows, csv, csv.with_suffix(".png"))
    console.print(f"Wrote {csv} and {csv.with_suffix('.png')}")


def _estimates(options: argparse.Namespace) -> None:
    from gemnet.files import write_csv
    from gemnet.runtimes.latency import Runtime
    from nas.commands.console import make_console
    from nas.studies.estimates import study_estimates

    console = make_console()
    with console.status("") as status:
        found = study_estimates(
            options.networks, Runtime(options.backend, options.threads), options.batch, options.seed, status.update
        )
    console.print(
        f"{found.device}: {found.networks} networks take {found.fastest:.3g} to {found.slowest:.3g} ms an image"
    )
    console.print(f"{found.measured} layers measured in {found.seconds:.0f} s; the table holds {found.known}")
    console.print("relative error on networks that were not fitted to: half within, nine of ten within")
    for name, (half, nine) in (
        ("a table of layers, kinds weighed", found.by_table),
        ("the table's plain sum", found.by_sum),
        ("prices of kinds of kernels", found.by_counts),
        ("three prices (MACs, traffic, passes)", found.by_prices),
    ):
        console.print(f"  {name:<38} {half:>6.1%} {nine:>6.1%}")
    csv = Path(options.work_dir) / "estimates.csv"
    write_csv(csv, [vars(found)])
    console.print(f"Wrote {csv}")


def _convert(options: argparse.Namespace) -> None:
    from nas.tables.official import convert

    rows = convert(options.kind, options.source, options.out)
    print(f"{options.out}: {rows} cells")


def _options_by_strategy(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``["evolution.population=50"]`` as ``{"evolution": {"population": 50}}``."""
    from gemnet.errors import GemnetError

    found: dict[str, dict[str, Any]] = {}
    for text in given:
        target, equals, value = text.partition("=")
        strategy, dot, name = target.partition(".")
        if not equals or not dot:
            raise GemnetError(f"--options takes STRATEGY.NAME=VALUE, such as evolution.population=50; got {text!r}.")
        try:
            found.setdefault(strategy, {})[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found.setdefault(strategy, {})[name] = value
    return found


def _parser(program: str) -> argparse.ArgumentParser:
    parser = command_parser(program, DESCRIPTION, EXAMPLES)
    commands = parser.add_subparsers(metavar="command", required=True)

    search = commands.add_parser("search", help="strategies against a table", allow_abbrev=False)
    _add_common(search)
    search.add_argument(
        "--strategies",
        metavar="S",
        nargs="+",
        action=DistinctAction,
        help="default: random, local_search, evolution, bananas, wl_gp, structural, nasgem; others: tpe, botorch, smac",
    )
    _add_metric(search, "columns to maximise (default: the space's usual ones)", nargs="+", action=DistinctAction)
    search.add_argument(
        "--queries", metavar="N", type=positive, default=200, help="evaluations of a run (default %(default)s)"
    )
    search.add_argument(
        "--initial", metavar="N", type=positive, default=10, help="random ones at the start (default %(default)s)"
    )
    search.add_argument(
        "--batch", metavar="N", type=positive, default=5, help="proposals at a time (default %(default)s)"
    )
    search.add_argument(
        "--slow-seeds", metavar="N", type=positive, help=f"fewer seeds for {', '.join(SLOW)}, which take longest"
    )
    search.add_argument(
        "--options",
        metavar="S.NAME=V",
        nargs="+",
        action="extend",
        default=[],
        help="options of a strategy: evolution.population=50",
    )
    search.add_argument(
        "--whole", action="store_true", help="go on when the best of all cells is found (for times; regret stays zero)"
    )
    _add_memory(search)
    search.set_defaults(run=_search)

    predictors = commands.add_parser("predictors", help="how well predictors rank unseen cells", allow_abbrev=False)
    _add_common(predictors)
    _add_sizes(predictors)
    predictors.add_argument(
        "--predictors",
        metavar="P",
        nargs="+",
        action=DistinctAction,
        default=["nasgem", "structural", "wl_gp"],
        help="default: %(default)s",
    )
    _add_memory(predictors)
    predictors.set_defaults(run=_predictors)

    ablation = commands.add_parser("ablation", help="what each part of nasgem is worth", allow_abbrev=False)
    _add_common(ablation)
    _add_sizes(ablation)
    ablation.add_argument(
        "--search-metric", metavar="M", help="column to search for (default: the last of the space's usual ones)"
    )
    ablation.add_argument(
        "--parts",
        metavar="P",
        nargs="+",
        action=DistinctAction,
        help="some of them, such as 'no embedding' (default: all)",
    )
    ablation.set_defaults(run=_ablation)

    pareto = commands.add_parser("pareto", help="accuracy against time on a device", allow_abbrev=False)
    pareto.add_argument(
        "--space", choices=["nasbench201", "accel_nasbench"], help="default, where no table is given: nasbench201"
    )
    pareto.add_argument(
        "--table",
        metavar="FILE",
        help="a table of your own; with --space that space's, where it is not in its usual place (HW-NAS-Bench's lies "
        "beside NAS-Bench-201's)",
    )
    pareto.add_argument(
        "--devices",
        metavar="D",
        nargs="+",
        action=DistinctAction,
        help="raspi4, edgegpu, edgetpu, pixel3, eyeriss, fpga; of accel_nasbench a100, 3090, tpuv2, tpuv3, zcu102, "
        "vck190; or columns of the table that are to be small (default: the space's first device)",
    )
    _add_metric(pareto, "accuracy (default: the space's first)")
    pareto.add_argument(
        "--strategies", metavar="S", nargs="+", action=DistinctAction, default=["nasgem", "evolution", "random"]
    )
    pareto.add_argument("--queries", metavar="N", type=positive, default=200, help="default %(default)s")
    _add_running(pareto)
    pareto.set_defaults(run=_pareto)

    # Its old name is that of another command, which asks how well short trainings rank.
    cheap = commands.add_parser(
        "cheap-queries",
        aliases=["fidelity"],
        help="short trainings as cheap queries, at equal cost",
        allow_abbrev=False,
    )
    cheap.add_argument("--space", choices=["nasbench201", "nasbench101"], required=True)
    cheap.add_argument("--table", metavar="FILE", help="the table, where it is not in its usual place")
    _add_metric(cheap, "column of full trainings (default: the space's first)")
    cheap.add_argument("--cheap-epochs", metavar="N", type=positive, default=12, help="default %(default)s")
    cheap.add_argument("--cheap", metavar="N", type=positive, default=100, help="how many (default %(default)s)")
    cheap.add_argument(
        "--queries", metavar="N", type=positive, default=60, help="budget in full trainings (default %(default)s)"
    )
    _add_running(cheap)
    cheap.set_defaults(run=_cheap_queries)

    latency = commands.add_parser("latency", help="how long networks take, as deployed", allow_abbrev=False)
    latency.add_argument(
        "models", nargs="+", help="timm names, genomes, work folders or .onnx files; ratios to the first"
    )
    latency.add_argument(
        "--backend", metavar="B", help="onnxruntime, openvino, torch or compile (default: onnxruntime; torch on a GPU)"
    )
    latency.add_argument("--threads", metavar="N", type=positive, default=1, help="of the CPU (default %(default)s)")
    latency.add_argument(
        "--batch", metavar="N", type=positive, default=1, help="images at a time (default %(default)s)"
    )
    latency.add_argument("--size", metavar="S", type=positive, help="side of the images (default: each network's own)")
    latency.add_argument("--int8", action="store_true", help="quantise first (onnxruntime, openvino)")
    latency.add_argument("--device", default="cpu", help="cpu, or cuda with torch and compile (default %(default)s)")
    latency.add_argument("--rounds", metavar="N", type=positive, default=30, help="turns of each (default %(default)s)")
    latency.add_argument("--no-memory", action="store_true", help="leave memory out, which takes a process for each")
    latency.add_argument(
        "--work-dir", metavar="D", default="work_dirs/latency", help="for latency.csv and .png (default %(default)s)"
    )
    latency.set_defaults(run=_latency)

    estimates = commands.add_parser(
        "estimates", help="how well latencies are estimated without running a network", allow_abbrev=False
    )
    estimates.add_argument(
        "--networks", metavar="N", type=positive, default=64, help="random ones, at least 16 (default %(default)s)"
    )
    estimates.add_argument("--backend", metavar="B", default="onnxruntime", help="or openvino (default %(default)s)")
    estimates.add_argument("--threads", metavar="N", type=positive, default=1, help="default %(default)s")
    estimates.add_argument(
        "--batch", metavar="N", type=positive, default=1, help="images at a time (default %(default)s)"
    )
    estimates.add_argument("--seed", metavar="N", type=int, default=0, help="of the networks (default %(default)s)")
    estimates.add_argument(
        "--work-dir", metavar="D", default="work_dirs/estimates", help="for estimates.csv (default %(default)s)"
    )
    estimates.set_defaults(run=_estimates)

    convert = commands.add_parser("convert", help="make a table from a benchmark's official file", allow_abbrev=False)
    convert.add_argument(
        "kind",
        choices=["nasbench201", "nasbench101", "nasbench301", "accel_nasbench", "hw_nas_bench", "nas_bench_macro"],
    )
    convert.add_argument(
        "source",
        help="NAS-Bench-201-v1_*.pth, NATS-Bench's folder NATS-tss-v1_0-*, nasbench_*.tfrecord, nb_301_*.zip, "
        "anb_dataset_jsons.tar.gz, HW-NAS-Bench-v1_0.pickle, or nas-bench-macro_cifar10.json",
    )
    convert.add_argument("--out", required=True, help="the .parquet file to write")
    convert.set_defaults(run=_convert)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--space",
        metavar="S",
        help="a benchmark whose table is in place (nasbench201, nasbench101, accel_nasbench), or with --table the "
        "dotted path of the space of your own that its cells come from (mypackage.MySpace)",
    )
    parser.add_argument("--table", metavar="FILE", help="a table of your own, .parquet or .csv (docs/tables.md)")
    _add_running(parser)


def _add_metric(parser: argparse.ArgumentParser, text: str, **options: Any) -> None:
    """``--metric``; the name that one command had for it before is still understood."""
    parser.add_argument("--metric", metavar="M", help=text, **options)
    parser.add_argument("--metrics", dest="metric", help=argparse.SUPPRESS, **{"default": argparse.SUPPRESS, **options})


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--train-sizes",
        metavar="N",
        nargs="+",
        action=DistinctAction,
        type=positive,
        help="training cells (default: as published)",
    )
    _add_metric(parser, "column to predict (default: the space's usual target)")


def _add_memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory",
        metavar="M",
        nargs="+",
        action=DistinctAction,
        default=[],
        help="columns that nasgem remembers as results of another task, compared with nasgem without (docs/search.md)",
    )
    parser.add_argument(
        "--shuffled", action="store_true", help="also run a control: nasgem with these columns' values shuffled"
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", metavar="N", type=positive, default=10, help="runs of each (default %(default)s)")
    parser.add_argument("--workers", metavar="N", type=positive, help="processes (default: one per core)")
    parser.add_argument(
        "--work-dir", metavar="D", default="work_dirs/benchmark", help="folder for results (default %(default)s)"
    )
