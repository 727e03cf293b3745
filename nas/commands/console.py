"""A search on the terminal: progress while it runs, lines where there is no terminal, and the log file."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from gemnet.quoting import printable
from gemnet.training.confusion import Confusion
from nas.executors.monitor import Monitor
from nas.search.ending import duration

MATRIX_CLASSES = 20
PIPE_WIDTH = 120
LINE_EVERY = 5.0
"""Seconds between progress lines where the output is not a terminal."""


def make_console(stderr: bool = False) -> Console:
    """Where a command prints: in a file or a pipe 120 columns or ``$COLUMNS``, without bars and colours.

    Notebooks set FORCE_COLOR, by which Rich would draw bars into the pipes of a cell's shell commands.
    """
    if (sys.stderr if stderr else sys.stdout).isatty():
        return Console(stderr=stderr, soft_wrap=True)
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) else PIPE_WIDTH
    return Console(stderr=stderr, soft_wrap=True, force_terminal=False, width=width)


class ConsoleMonitor(Monitor):
    """Shows each phase as a bar (done/total, best so far, time left); every step goes to the log file.

    Args:
        console: where to print; None for standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(soft_wrap=True)
        self._logger = logging.Logger("search")
        self._handler: logging.Handler = logging.NullHandler()
        self._logger.addHandler(self._handler)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._phase, self._total, self._done = "", 0, 0
        self._new, self._began, self._printed = 0, 0.0, 0.0

    def log_to(self, path: Path) -> None:
        self._logger.removeHandler(self._handler)
        self._handler = logging.FileHandler(path, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._logger.addHandler(self._handler)

    def note(self, text: str) -> None:
        text = printable(text)
        self._logger.info(text)
        self.console.print(text, highlight=False, markup=False)

    def begin(self, phase: str, total: int, done: int = 0) -> None:
        self._phase, self._total, self._done, self._new = phase, total, done, 0
        self._began = self._printed = time.monotonic()
        self._logger.info("%s: %d of %d done before", phase, done, total)
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TextColumn("{task.fields[best]}"),
                TextColumn("{task.fields[left]}"),
                console=self.console,
            )
            self._task = self._progress.add_task(phase, total=total, completed=done, best="", left="")
            self._progress.start()
        else:  # the first step may take minutes
            self.console.print(f"{phase} {done}/{total}", highlight=False, markup=False)

    def step(self, text: str, best: str = "", left: str = "", known: bool = False) -> None:
        text, best = printable(text), printable(best)
        self._done += 1
        self._new += not known
        self._logger.info("%s %d/%d: %s%s", self._phase, self._done, self._total, text, f"; {best}" if best else "")
        now = time.monotonic()
        if not left and self._new:
            left = f"{duration((now - self._began) / self._new * (self._total - self._done))} left"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._done, best=best, left=left)
        elif now - self._printed >= LINE_EVERY or self._done == self._total:
            self._printed = now
            parts = [f"{self._phase} {self._done}/{self._total}", text, best, left]
            self.console.print("; ".join(part for part in parts if part), highlight=False, markup=False)

    def end(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def close(self) -> None:
        """Takes the bar off the screen and closes the log."""
        self.end()
        self._handler.close()


def show_confusion(found: Confusion, matrix: bool = False) -> None:
    """Prints the figures of each class, and the pairs that are confused most.

    Args:
        found: what was taken for what.
        matrix: whether the matrix is printed, too; of more than 20 classes it would fit on no screen.
    """
    console = make_console()
    console.print(found.table())
    if matrix and len(found.classes) <= MATRIX_CLASSES:
        console.print(found.matrix_table())
    for true, taken, count in found.most_confused():
        console.print(f"{count} of {true!r} taken for {taken!r}", highlight=False, markup=False)
