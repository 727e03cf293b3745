"""What every executor offers: calls go in, outcomes come out, and nothing a call does ends the search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from gemnet.errors import GemnetError


class ExecutorError(GemnetError):
    """Workers that can't be started at all."""


@dataclass(frozen=True)
class Call:
    """One piece of work: a method of the service that every worker builds for itself.

    Args:
        number: the caller's own number; its outcome carries it.
        method: name of the service's method.
        args: its arguments; they must be picklable, as must be the result.
        time_limit: seconds after which the call is given up; None for none.
    """

    number: int
    method: str
    args: tuple[Any, ...] = ()
    time_limit: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a call.

    Args:
        call: the call.
        value: what the method returned; None where it failed.
        failure: one sentence (an exception, the time limit, a dead worker), or "" where it went well.
        seconds: wall-clock time from the start of the (last) attempt to the outcome.
    """

    call: Call
    value: Any = None
    failure: str = ""
    seconds: float = 0.0


class Executor(ABC):
    """Runs calls, in the order of submission, on one or more workers.

    Every submitted call has exactly one outcome: an exception in the method, a worker that dies and a time limit that
    passes are outcomes too, and leave the other calls alone. Outcomes come in the order in which calls end.
    """

    workers: int
    halted = False
    """Whether nothing more is to be begun."""

    @abstractmethod
    def submit(self, call: Call) -> None:
        """Takes a call; returns at once. One that was halted forgets it."""

    @abstractmethod
    def wait(self, timeout: float | None = None) -> list[Outcome]:
        """Outcomes since the last time; blocks until there is one, ``timeout`` seconds have passed or nothing is left.

        Raises:
            ExecutorError: no worker can be started.
            KeyboardInterrupt: it was halted, and nothing is under way any more.
        """

    @property
    def running(self) -> int:
        """Calls under way at this moment."""
        return self.outstanding

    def halt(self) -> None:
        """Begins nothing more: what is under way ends and is handed out, what waits is forgotten."""
        self.halted = True

    @abstractmethod
    def close(self) -> None:
        """Ends the workers at once. Calls without an outcome are forgotten."""

    @property
    @abstractmethod
    def outstanding(self) -> int:
        """Calls submitted whose outcome has not been handed out."""

    def __enter__(self) -> Executor:
        _OPEN.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _OPEN.remove(self)
        self.close()


_OPEN: list[Executor] = []
"""Executors at work in this process: a signal is the process's, and so is this list."""


def halt_executors() -> int | None:
    """Halts every executor of this process; returns how many calls are under way, None where no executor is at work."""
    if not _OPEN:
        return None
    for each in _OPEN:
        each.halt()
    return sum(each.running for each in _OPEN)


def describe(error: BaseException) -> str:
    """An exception as one sentence."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__
