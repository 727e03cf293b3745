"""What a search says when it is done: what was found, how it compares, what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from rich.console import Console
from rich.table import Table

from gemnet.quoting import printable
from nas.evaluation.costs import COSTS
from nas.evaluation.score import compared_by
from nas.search.config import SearchConfig
from nas.search.folder import REPORT
from nas.search.next_commands import next_commands
from nas.search.report.result import Row, SearchResult, bookkeeping_share, evaluations_per_hour
from nas.spaces.base import SpaceError
from nas.spaces.darts import genotype_of
from nas.spaces.nasbench201 import arch_from_cell

BALANCE_SHOWN = 2.0
"""Points between accuracy and balanced accuracy from which on both are shown."""


def print_ending(console: Console, config: SearchConfig, result: SearchResult, installed: bool) -> None:
    """Prints the end of a search.

    Args:
        console: where to.
        config: the search.
        result: what it found.
        installed: whether the tools are console commands (``gemnet-search``), not files in ``tools/``.
    """

    def say(text: str = "") -> None:
        console.print(printable(text), highlight=False, markup=False)

    chosen, folder = result.chosen, result.folder
    candidate = chosen.found.proposal.candidate
    failed = sum(evaluation.status == "failed" for evaluation in result.evaluations)
    say()
    say(
        f"Chosen: no. {chosen.found.proposal.number} of {len(result.evaluations)}"
        + (f" ({failed} failed)" if failed else "")
        + (f", {len(candidate.cell.ops)} nodes, {len(candidate.cell.edges)} edges" if candidate.cell.ops else "")
        + "".join(f", {name} {value}" for name, value in candidate.macro)
    )
    if config.evaluator.type == "tabular":
        say(f"  accuracy {chosen.found.accuracy:.2f} %")
        for written in (arch_from_cell, genotype_of):
            with suppress(SpaceError):
                say(f"  {written(candidate.cell)}")
    elif chosen.fresh:
        fresh = [each.accuracy for each in chosen.fresh if each.accuracy is not None]
        seeds = f"{len(fresh)} fresh seed{'s' * (len(fresh) != 1)}"
        say(f"  {chosen.found.accuracy:.2f} % in the search, {spread(fresh)} % with {seeds}")
    else:
        say(f"  accuracy {chosen.found.accuracy:.2f} %")
    if result.device is not None:
        most = config.limits.max_latency
        limit = "" if most is None else f"; the limit is {most:g} ms an image"
        if chosen.latency is not None:
            say(f"  {chosen.latency:.3g} ms an image, measured on {result.device}{limit}")
        else:
            say(f"  not measured on this machine: by estimates for {result.device} only{limit}")
    if result.rows and config.final is not None:
        say()
        epochs = config.comparison.epochs if config.comparison is not None else None
        console.print(
            comparison_table(result.rows, epochs or config.final.epochs, compared_by(config.score, config.limits))
        )
    seconds = result.seconds
    evaluated = sum(evaluation.seconds for evaluation in result.evaluations)
    say()
    say(
        f"This run took {duration(seconds['total'])}; bookkeeping (strategy, encoder, ledger, pictures) "
        f"{seconds['total'] * bookkeeping_share(seconds):.1f} s or {100 * bookkeeping_share(seconds):.1f} %."
    )
    if config.evaluator.type in ("training", "detector") and result.evaluated:
        say(
            f"{evaluations_per_hour(result):.0f} evaluations an hour; each took a worker "
            f"{evaluated / len(result.evaluations):.1f} s."
        )
    say(f"The report: {folder / REPORT}")
    say(f"Everything is in {folder}: {', '.join(sorted(item.name for item in folder.glob('[!.]*')))}")
    if result.genome is not None:
        say()
        say("Next:")
        for what, command in next_commands(config, result, installed):
            say(f"  {what}")
            say(f"    {command}")


def comparison_table(rows: Sequence[Row], epochs: int, cost: str = "macs") -> Table:
    """A table with a line for each row.

    Args:
        rows: the comparison.
        epochs: how long each network was trained.
        cost: by which networks were fitted to the found one.
    """
    name, test = COSTS[cost].name, any(row.test_accuracies for row in rows)
    table = Table(
        title=f"Each trained alike ({epochs} epoch{'s' * (epochs != 1)}), at no more than the found network's {name}",
        caption="top-1 in %, mean ± standard deviation of n trainings; dev: images set aside from the training set",
    )
    table.add_column("network", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("dev", justify="right", no_wrap=True)
    if test:
        table.add_column("test", justify="right", no_wrap=True)
    balanced = any(is_unbalanced(row) for row in rows)
    if balanced:
        table.add_column("balanced", justify="right", no_wrap=True)
    table.add_column("M MACs", justify="right", no_wrap=True)
    table.add_column("k params", justify="right", no_wrap=True)
    timed = any(row.milliseconds is not None for row in rows)
    if timed:
        table.add_column("ms", justify="right", no_wrap=True)
    for row in rows:
        count = f"{len(row.accuracies)}" + (f" (+{row.failed} failed)" if row.failed else "")
        cells = [row.name, count, spread(row.accuracies)]
        if test:
            cells.append(spread(row.test_accuracies))
        if balanced:
            cells.append(spread(row.test_balanced or row.balanced))
        cells += [f"{row.macs / 1e6:.2f}", f"{row.params / 1e3:.1f}"]
        if timed:
            cells.append("" if row.milliseconds is None else f"{row.milliseconds:.3g}")
        table.add_row(*cells)
    return table


def is_unbalanced(row: Row) -> bool:
    """Whether classes are so unequal that a row's balanced accuracy says something else than its accuracy."""
    return any(
        abs(one - other) > BALANCE_SHOWN
        for ones, others in ((row.accuracies, row.balanced), (row.test_accuracies, row.test_balanced))
        for one, other in zip(ones, others, strict=False)
    )


def spread(values: Sequence[float]) -> str:
    """``mean ± standard deviation``, the mean alone of a single value, a dash of none."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def duration(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    whole = round(max(0.0, seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
