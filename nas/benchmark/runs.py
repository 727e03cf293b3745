"""Many independent runs: spread over processes, each result appended to a CSV at once, finished ones never repeated."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from gemnet.errors import GemnetError

Row = dict[str, str]


class RunsError(GemnetError):
    """A results file that is not what this benchmark writes."""


class RunsFile:
    """A CSV with one row for each finished run.

    A row is written in one piece and flushed to the disk; a last line that a killed process left unfinished is dropped when
    the file is opened again.

    Args:
        path: the file; made with its folder when the first row is added.
        key: columns that together name a run.
        columns: the other columns.

    Raises:
        RunsError: the file has other columns.
    """

    def __init__(self, path: Path, key: Sequence[str], columns: Sequence[str]) -> None:
        self.path = path
        self.key = tuple(key)
        self.columns = (*key, *columns)
        self.rows: list[Row] = []
        if path.exists():
            self._read()

    def find(self, key: Mapping[str, object]) -> Row | None:
        """The finished run with these key values, or None."""
        wanted = tuple(str(key[name]) for name in self.key)
        return self._index().get(wanted)

    def add(self, row: Mapping[str, object]) -> None:
        """Appends a finished run."""
        text = {name: str(row[name]) for name in self.columns}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(text)
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(text)

    def _index(self) -> dict[tuple[str, ...], Row]:
        return {tuple(row[name] for name in self.key): row for row in self.rows}

    def _read(self) -> None:
        text = self.path.read_text()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            half = self.path.with_suffix(".tmp")
            half.write_text(whole)
            half.replace(self.path)
        reader = csv.DictReader(whole.splitlines())
        if whole and tuple(reader.fieldnames or ()) != self.columns:
            raise RunsError(
                f"{self.path} has the columns {', '.join(reader.fieldnames or ())}, but this benchmark writes "
                f"{', '.join(self.columns)}. Choose another --work-dir, or move the file away."
            )
        self.rows = list(reader)


def run_all(
    tasks: Sequence[Any],
    function: Callable[[Any], Mapping[str, object]],
    workers: int,
    prepare: Callable[..., None],
    arguments: tuple[Any, ...],
) -> Iterator[Mapping[str, object]]:
    """Results of ``function`` for each task, as they come.

    Args:
        tasks: what to do; picklable.
        function: does one; a module-level function.
        workers: processes; 1 works in this one.
        prepare: called once in each process before its first task, with ``arguments``.
        arguments: see ``prepare``.
    """
    if workers == 1:
        prepare(*arguments)
        for task in tasks:
            yield function(task)
        return
    # Fresh processes: a fork of one that has used torch's threads can hang.
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_prepared, initargs=(prepare, arguments)
    ) as pool:
        futures = [pool.submit(function, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _prepared(prepare: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    one_thread()
    prepare(*arguments)


def one_thread() -> None:
    """Keeps the numerical libraries of this process to one thread: the processes are the parallelism."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)
