"""Many independent runs: spread over processes, each result appended to a CSV at once, finished ones never repeated."""

from __future__ import annotations

import hashlib
import inspect
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as TextTable

from gemnet.errors import GemnetError
from gemnet.files import write_csv
from gemnet.machine import available_cores, one_thread
from gemnet.strict import find_class
from nas.executors import Call, Executor, LocalExecutor, SerialExecutor
from nas.executors.base import describe as describe_error
from nas.executors.jobs import Jobs
from nas.spaces import is_own
from nas.studies.csv_log import CsvLog
from nas.tables.table import Table

RunRow = dict[str, str]
LINE_EVERY = 5.0
REMARK, FAILURE = "remark", "failure"
"""Of a run's values those that are said, and not written down."""


class BenchmarkError(GemnetError):
    """A benchmark that can't be run as asked."""


class RunsFile:
    """A `CsvLog` with one row for each finished run.

    Args:
        path: the file; made with its folder when the first row is added.
        key: columns that together name a run.
        columns: the other columns.

    Raises:
        CsvLogError: the file has other columns.
    """

    def __init__(self, path: Path, key: Sequence[str], columns: Sequence[str]) -> None:
        self.key = tuple(key)
        self._log = CsvLog(path, (*key, *columns))
        self._found: dict[tuple[str, ...], RunRow] = {}
        for row in self.rows:
            self._keep(row)

    @property
    def path(self) -> Path:
        """The file."""
        return self._log.path

    @property
    def rows(self) -> list[RunRow]:
        """All finished runs, in the order in which they ended."""
        return self._log.rows

    def find(self, key: Mapping[str, object]) -> RunRow | None:
        """The finished run with these key values, or None."""
        return self._found.get(tuple(str(key[name]) for name in self.key))

    def add(self, row: Mapping[str, object]) -> None:
        """Appends a finished run."""
        self._keep(self._log.add(row))

    def _keep(self, row: RunRow) -> None:
        self._found[tuple(row[name] for name in self.key)] = row


class Task(Protocol):
    """One run."""

    def key(self, table: Table) -> dict[str, object]:
        """What names the run in a results file."""
        ...


T = TypeVar("T", bound=Task)


def run_key(task: object, table: Table, names: Sequence[str]) -> dict[str, object]:
    """What names a run in a results file: its table, and those of its settings that are among the names.

    The fingerprint is the table's, and where the strategy or predictor is one's own, of its source file besides.
    """
    settings = {name: getattr(task, name) for name in names if hasattr(task, name)}
    fingerprint = table.fingerprint
    for part in ("strategy", "predictor"):
        if is_own(str(settings.get(part, ""))):
            fingerprint = with_source(fingerprint, find_class(settings[part], {}, object, part))
    return {"table": table.name, "fingerprint": fingerprint, **settings}


def with_source(fingerprint: str, part: type) -> str:
    """A fingerprint of what is one's own, too: another class, or the same after a change of its file, has another."""
    try:
        source = Path(inspect.getfile(part)).read_bytes()
    except (TypeError, OSError):  # a notebook's class has no file
        source = b""
    about = f"{fingerprint} {part.__module__}.{part.__qualname__} ".encode() + source
    return hashlib.sha256(about).hexdigest()[:16]


def text_table(title: str, headings: Sequence[str]) -> TextTable:
    """An empty table for the terminal."""
    text = TextTable(title=title, title_justify="left")
    for heading in headings:
        text.add_column(heading)
    return text


@dataclass(frozen=True)
class Study:
    """What the runs of a study share, and where what it says goes.

    Args:
        console: where progress and tables go.
        table: what the runs search in or learn from.
        source: reads the table anew, in each other process.
        workers: processes; None takes one a core.
        folder: where the files go.
    """

    console: Console
    table: Table
    source: Callable[[], Table]
    workers: int | None
    folder: Path

    def run(
        self,
        name: str,
        key: Sequence[str],
        columns: Sequence[str],
        tasks: Sequence[T],
        run: Callable[[Table, T], Mapping[str, object]],
        describe: Callable[[T], str],
    ) -> list[RunRow]:
        """`finish` with what there is to say about the table, and a bar of runs done and time left; in a pipe, lines.

        Args:
            name: of the results file.
            key, columns: see `RunsFile`.
            tasks, run: see `finish`.
            describe: names a run.
        """
        console, file = self.console, RunsFile(self.folder / name, key, columns)
        cores = available_cores()
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,  # then there are lines
        )
        for remark in self.table.remarks:
            console.print(f"Note: {remark}", highlight=False, markup=False)
        kept = sum(file.find(task.key(self.table)) is not None for task in tasks)
        if kept:
            console.print(f"{kept} of {len(tasks)} runs were done before: {file.path}", highlight=False, markup=False)
        line = bar.add_task("runs", total=len(tasks))
        begun = printed = time.monotonic()
        done = 0

        def on_result(task: T) -> None:
            nonlocal done, printed
            done += 1
            bar.update(line, advance=1, description=describe(task))
            now = time.monotonic()
            if bar.disable and done > kept and (now - printed >= LINE_EVERY or done == len(tasks)):
                printed = now
                left = (now - begun) / (done - kept) * (len(tasks) - done)
                text = f"runs {done}/{len(tasks)}; {describe(task)}; {left:.0f} s left"
                console.print(text, highlight=False, markup=False)

        with bar:
            return finish(
                file,
                self.table,
                tasks,
                run,
                self.workers or cores,
                self.source,
                on_result,
                describe,
                lambda remark: console.print(f"Note: {remark}", highlight=False, markup=False),
            )

    def write(self, name: str, rows: Sequence[dict[str, object]]) -> None:
        """Writes a table of results into the folder."""
        write_csv(self.folder / name, rows)


def finish(
    file: RunsFile,
    table: Table,
    tasks: Sequence[T],
    run: Callable[[Table, T], Mapping[str, object]],
    workers: int,
    source: Callable[[], Table],
    on_result: Callable[[T], None],
    describe: Callable[[T], str],
    say: Callable[[str], None],
) -> list[RunRow]:
    """Runs the tasks that a results file lacks, and returns the rows of all.

    Args:
        file: where results are looked up and added.
        table: what the runs search in or learn from.
        tasks: the runs wanted.
        run: does one, and returns the values of the file's other columns, and under `REMARK` what there is to say of
            it; a module-level function.
        workers: processes; 1 works in this one.
        source: reads the table anew, in each other process.
        on_result: called for each task that is finished, old ones first.
        describe: names a run.
        say: hears remarks.

    Raises:
        BenchmarkError: a run failed; the message names it, and the line at which it did.
    """
    open_ = []
    for task in tasks:
        if file.find(task.key(table)) is None:
            open_.append(task)
        else:
            on_result(task)

    if open_:
        if workers == 1:
            one_thread()
            executor: Executor = SerialExecutor(lambda: _Runs(table, run))
        else:
            executor = LocalExecutor(partial(_runs, source, run), min(workers, len(open_)))
        with executor:
            for outcome in Jobs(executor, [Call(number, "run", (task,)) for number, task in enumerate(open_)]):
                task, values = open_[outcome.call.number], outcome.value
                failure = outcome.failure or values.get(FAILURE)
                if failure:
                    text = f"A run failed ({describe(task)}): {failure.rstrip('.')}. Those that are done are kept."
                    raise BenchmarkError(text)
                if values.get(REMARK):
                    say(f"{describe(task)}: {values[REMARK]}")
                file.add({**task.key(table), **values})
                on_result(task)
    rows = [file.find(task.key(table)) for task in tasks]
    return [row for row in rows if row is not None]


class _Runs:
    """What a worker does: runs, one after the other, on a table that it has read once."""

    def __init__(self, table: Table, run: Callable[[Table, Any], Mapping[str, object]]) -> None:
        self.table, self._run = table, run

    def run(self, task: Task) -> Mapping[str, object]:
        """One run's values; what failed, and where, under `FAILURE`."""
        try:
            return self._run(self.table, task)
        except GemnetError as error:  # it says all
            return {FAILURE: str(error)}
        except Exception as error:  # a strategy or predictor may be somebody's own
            at = traceback.extract_tb(error.__traceback__)[-1]
            return {FAILURE: f"{describe_error(error)} ({at.filename}:{at.lineno})"}


def _runs(source: Callable[[], Table], run: Callable[[Table, Any], Mapping[str, object]]) -> _Runs:
    one_thread()
    return _Runs(source(), run)
