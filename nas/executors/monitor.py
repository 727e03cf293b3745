"""What a search tells whoever watches it, and how long its parts take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Monitor:
    """Hears how a search goes; this one stays silent. `nas.commands.console.ConsoleMonitor` prints."""

    def log_to(self, path: Path) -> None:
        """The search has a folder now, and a log file in it."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def begin(self, phase: str, total: int, done: int = 0) -> None:
        """A phase of ``total`` steps begins, ``done`` of which were done before (in a resumed search)."""

    def step(self, text: str, best: str = "", left: str = "", known: bool = False) -> None:
        """A step of the phase is done: ``text`` says which, ``best`` what is the best so far.

        ``left`` is the time that is left, where the caller knows better than the steps done so far tell. What was
        ``known`` took no time, and tells nothing about it.
        """

    def end(self) -> None:
        """The phase is over."""


class Stopwatch:
    """Wall-clock seconds spent in named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Counts the time of a ``with`` block under ``part``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

    @property
    def total(self) -> float:
        """Seconds since the stopwatch was made."""
        return time.perf_counter() - self._start
