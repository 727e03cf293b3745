"""Where a search's memory comes from: tables, work folders and ledgers of the same space.

What is remembered is read once a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gemnet.errors import GemnetError, nearest
from nas.evaluation.csv_table import read_evaluations
from nas.evaluation.ledger import LEDGER, records_of
from nas.evaluation.records import Evaluation, Fidelity
from nas.predictors.memory import Remembered, rows_to_learn
from nas.spaces.base import Candidate, SearchSpace
from nas.tables.read import FILES, find_table, read_table
from nas.tables.space import TableSpace

ACCURACY = "accuracy"
FEWEST = 10
"""Evaluations that something can be learnt from."""


class RecallError(GemnetError):
    """A memory that can't be used: no such source or metric, or candidates of another space."""


@dataclass(frozen=True)
class MemorySource:
    """Evaluations of other tasks in the space that is searched: ``dict(table='nasbench201', metric='c10_valid_12ep')``.

    Exactly one of ``table``, ``work_dir`` and ``ledger`` is given.

    Args:
        table: a table's file (docs/tables.md), or the benchmark whose table is in its usual place.
        work_dir: the work folder of a search.
        ledger: a table of a search's evaluations (.csv), as ``tools/export.py --ledger`` writes it.
        metric: the column of the table; for ledgers ``accuracy``, their default, or another metric that was measured.
            More is better.
        shuffled: deals the values out at random, by the seed of the search: a control that has to do no harm.

    Raises:
        RecallError: none of the sources is given, or several; or a table without a metric.
    """

    table: str | None = None
    work_dir: str | None = None
    ledger: str | None = None
    metric: str | None = None
    shuffled: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("table", "work_dir", "ledger") if getattr(self, name) is not None]
        if len(given) != 1:
            raise RecallError(
                "A memory is of a table, a work_dir or a ledger: dict(table='mine.csv', metric='accuracy'); got "
                f"{' and '.join(given) or 'none of them'}."
            )
        if self.table is not None and self.metric is None:
            raise RecallError(
                f"A memory of table {self.table!r} needs metric: the column that is remembered, such as "
                f"dict(table={self.table!r}, metric='accuracy')."
            )

    def __str__(self) -> str:
        what = self.metric or self.place
        return f"shuffled {what}" if self.shuffled else what

    def to_dict(self) -> dict[str, Any]:
        """What is given, as a config has it."""
        return {name: value for name, value in asdict(self).items() if value}

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return str(self.table or self.work_dir or self.ledger)


def remembered(sources: Sequence[MemorySource], space: SearchSpace, seed: int = 0) -> list[Remembered]:
    """What the sources hold, as candidates of a space; those of several evaluators or fidelities are several tasks.

    Args:
        sources: where to look.
        space: the space that is searched.
        seed: of the controls that are shuffled.

    Raises:
        RecallError: no such metric, candidates of another space, or too few of them.
        TableError, LedgerError: a source can't be read.
    """
    found: list[Remembered] = []
    for source in sources:
        for task in _tasks(source, space):
            found.append(_shuffled(task, seed) if source.shuffled else task)
    return found


@lru_cache(maxsize=8)
def _shuffled(task: Remembered, seed: int) -> Remembered:
    scores = np.random.default_rng([seed, len(task.scores)]).permutation(task.scores)
    return Remembered(task.batch, scores)


@lru_cache(maxsize=8)
def _tasks(source: MemorySource, space: SearchSpace) -> tuple[Remembered, ...]:
    return (_of_table(source, space),) if source.table is not None else _of_ledger(source, space)


def _of_table(source: MemorySource, space: SearchSpace) -> Remembered:
    assert source.table is not None
    assert source.metric is not None
    table = read_table(find_table(source.table) if source.table in FILES else source.table)
    if source.metric not in table.metrics:
        table.metric(source.metric)  # says what there is
    values = table.metrics[source.metric]
    there = np.flatnonzero(np.isfinite(values))
    rows = there[rows_to_learn(values[there])]
    own = table.space.base if isinstance(table.space, TableSpace) and table.space.base is not None else table.space
    return _task([own.unpack(table.batch, int(row)) for row in rows], values[rows].tolist(), source, space)


def _of_ledger(source: MemorySource, space: SearchSpace) -> tuple[Remembered, ...]:
    metric = source.metric or ACCURACY
    tasks: dict[tuple[str, Fidelity], list[tuple[Candidate, float]]] = {}
    known: set[str] = set()
    for each, evaluator in _evaluations(source):
        measured = {ACCURACY: each.accuracy, "macs": each.macs, "params": each.params, **each.metrics}
        value = measured.get(metric)
        known |= {name for name, one in measured.items() if one is not None}
        if each.status == "ok" and value is not None and np.isfinite(value):
            tasks.setdefault((evaluator, each.proposal.fidelity), []).append((each.proposal.candidate, value))
    if not tasks and metric not in known and known:
        raise RecallError(f"The evaluations in {source.place} have no metric {metric!r}.{nearest(metric, known)}")
    large = [pairs for pairs in tasks.values() if len(pairs) >= FEWEST]
    if not large:
        most = max(map(len, tasks.values()), default=0)
        raise RecallError(
            f"{source.place} has {most} evaluations that went well; a memory takes at least {FEWEST} by one evaluator "
            "at one fidelity."
        )
    return tuple(
        _task([candidate for candidate, _ in pairs], [value for _, value in pairs], source, space) for pairs in large
    )


def _evaluations(source: MemorySource) -> list[tuple[Evaluation, str]]:
    if source.ledger is not None:
        return read_evaluations(Path(source.ledger))
    try:
        return records_of(Path(source.place))
    except FileNotFoundError:
        raise RecallError(
            f"There is no {LEDGER} in {source.place}. Give the work folder of a search; of one whose ledger is "
            "elsewhere, a table of its evaluations: ledger='....csv' (tools/export.py WORK_FOLDER --ledger FILE)."
        ) from None


def _task(candidates: list[Candidate], values: list[float], source: MemorySource, space: SearchSpace) -> Remembered:
    """Raises `RecallError` where a candidate is not of the space."""
    # A table's own space knows but its rows, and what is remembered may be of others.
    rules = space.base if isinstance(space, TableSpace) else space
    try:
        batch = space.pack(candidates)
        if rules is not None:
            for candidate in candidates:
                rules.check(candidate)
    except GemnetError as error:
        raise RecallError(
            f"{source.place} is of another space than {space.name!r}, which is searched: {error}"
        ) from None
    if len(batch) < FEWEST:
        raise RecallError(
            f"{source.place} has {len(batch)} values of {source.metric!r}; a memory takes at least {FEWEST}."
        )
    return Remembered(batch, np.array(values))
