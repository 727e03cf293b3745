"""What nasgem remembers in a benchmark: other columns of the table, and as a control the same with shuffled values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nas.evaluation.remembered import MemorySource
from nas.studies.tabular.runs import BenchmarkError
from nas.tables.read import find_table
from nas.tables.table import Table

NASGEM = "nasgem"
"""The strategy, and the predictor, that has a memory."""


def memories_of(
    table: Table, space: str | None, path: str | None, columns: Sequence[str], control: bool
) -> list[tuple[MemorySource, ...]]:
    """Memories to compare with none, none where no columns are named: the columns together, and the same shuffled.

    Args:
        table: as it was read.
        space, path: where it is, see `nas.studies.tabular.sources.open_table`.
        columns: what is remembered; none for no memory.
        control: whether the shuffled one is wanted, too.

    Raises:
        TableError: there is no such column.
        BenchmarkError: a control of nothing.
    """
    if not columns:
        if control:
            raise BenchmarkError("--shuffled shuffles what --memory names. Name columns with --memory.")
        return []
    for name in columns:
        if name not in table.metrics:
            table.metric(name)
    place = str(find_table(space or "", path))
    kept = tuple(MemorySource(table=place, metric=name) for name in columns)
    return [kept, tuple(replace(source, shuffled=True) for source in kept)][: 2 if control else 1]


def check_memories(memories: Sequence[Sequence[MemorySource]], metrics: Sequence[str], used: bool) -> None:
    """Raises `BenchmarkError` where a memory holds what is asked for, or where nobody has a memory.

    Args:
        memories: what is remembered.
        metrics: what is searched for or predicted.
        used: whether nasgem is among what is compared.
    """
    for metric in metrics:
        if any(source.metric == metric for sources in memories for source in sources):
            raise BenchmarkError(f"--memory names {metric!r}, which is what is asked for. Remember another column.")
    if memories and not used:
        raise BenchmarkError("--memory is nasgem's alone, and nasgem is not among what is compared.")
