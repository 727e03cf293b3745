"""What executors with several workers have in common: who does which call, and what becomes of it if a worker dies."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from enum import Enum, auto
from typing import Any, Generic, NamedTuple, TypeVar

from nas.executors.base import Call, Executor, ExecutorError, Outcome

MAX_FAILED_STARTS = 3
"""Workers in a row that die before they are ready, until the executor gives up."""

START_LIMIT = 600.0
"""Seconds a worker may take until it is ready: to import everything and to read its images."""

ATTEMPTS = 2
"""A call whose worker died is tried once more: the killer may have been an outsider. Twice is the call's own doing."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables by which numerical libraries learn how many threads they get."""


class Kind(Enum):
    """What the driver hears of a worker."""

    BORN = auto()  # code of ours runs in it
    READY = auto()  # it takes calls
    UNBUILDABLE = auto()  # its service can't be made
    RETURNED = auto()
    RAISED = auto()
    STOPPED = auto()  # its call was asked to stop, and can be taken up again
    DIED = auto()


class Event(NamedTuple):
    """One thing that the driver hears of a worker.

    Args:
        kind: what.
        value: of a call that returned, what; else one sentence, or None.
        seconds: what the call took, where the worker knows better than the driver.
    """

    kind: Kind
    value: Any = None
    seconds: float | None = None


class Worker(ABC):
    """The driver's side of one worker.

    Args:
        start_limit: seconds it has to become ready; None where it is ready already.
    """

    def __init__(self, start_limit: float | None) -> None:
        self.born = False
        self.ready = start_limit is None
        self.call: Call | None = None
        self.attempts = 0
        self.started = time.monotonic()
        self.deadline: float | None = None if start_limit is None else self.started + start_limit  # then of its call

    def give(self, call: Call, attempts: int) -> None:
        """Hands it a call that was attempted so often before."""
        self.call, self.attempts, self.started = call, attempts + 1, time.monotonic()
        self.deadline = None if call.time_limit is None else self.started + call.time_limit
        self.send(call)

    def take(self, seconds: float | None = None) -> tuple[Call, float]:
        """Its call back, and the seconds it took."""
        assert self.call is not None
        call, self.call, self.deadline = self.call, None, None
        return call, time.monotonic() - self.started if seconds is None else seconds

    @abstractmethod
    def send(self, call: Call) -> None:
        """Lets the worker begin a call; one that died meanwhile is no error here."""

    @abstractmethod
    def kill(self) -> None:
        """Ends it at once, if it is not dead."""


AnyWorker = TypeVar("AnyWorker", bound=Worker)


class WorkersExecutor(Executor, Generic[AnyWorker]):
    """Starts workers as calls come, replaces those that die, and makes their calls once more.

    Args:
        workers: how many at most.
        threads: compute threads of each.
        start_limit: seconds a worker may take until it is ready.

    Raises:
        ExecutorError: fewer than one worker or thread.
    """

    def __init__(self, workers: int, threads: int, start_limit: float = START_LIMIT) -> None:
        if workers < 1 or threads < 1:
            raise ExecutorError(f"At least one worker with one thread is needed, got {workers} with {threads}.")
        self.workers = workers
        self._start_limit = start_limit
        self._queue: deque[tuple[Call, int]] = deque()  # (call, attempts so far)
        self._at_work: list[AnyWorker] = []
        self._failed_starts = 0

    @abstractmethod
    def start(self) -> AnyWorker:
        """A new worker."""

    @abstractmethod
    def listen(self, pause: float | None) -> Iterable[tuple[AnyWorker, Event]]:
        """What is heard of workers; waits for it, but no longer than ``pause`` seconds (None: without end)."""

    def submit(self, call: Call) -> None:
        if not self.halted:
            self._queue.append((call, 0))
            self._dispatch()

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        end = math.inf if timeout is None else time.monotonic() + timeout
        while self.outstanding or self.halted:
            self._dispatch()
            if self.halted and not self.running:
                raise KeyboardInterrupt
            first = min([end, *(each.deadline for each in self._at_work if each.deadline is not None)])
            pause = None if first == math.inf else max(0.0, first - time.monotonic())
            outcomes = [outcome for worker, event in self.listen(pause) for outcome in self._hear(worker, event)]
            outcomes += self._expire()
            self._dispatch()
            if outcomes or time.monotonic() >= end:
                return outcomes
        return []

    @property
    def running(self) -> int:
        return sum(worker.call is not None for worker in self._at_work)

    @property
    def outstanding(self) -> int:
        return len(self._queue) + self.running

    def close(self) -> None:
        for worker in self._at_work:
            worker.kill()
        self._at_work.clear()
        self._queue.clear()

    def give_up(self, worker: AnyWorker, failure: str) -> list[Outcome]:
        """Ends a worker for what its call does; that is not tried again."""
        self._remove(worker)
        call, seconds = worker.take()
        return [Outcome(call, failure=failure, seconds=seconds)]

    def too_slow_to_start(self, worker: AnyWorker) -> None:
        """What becomes of a worker that was not ready in time."""
        self._remove(worker)
        self._count_failed_start(worker, f"were not ready after {self._start_limit:g} s")

    def advice(self, worker: AnyWorker) -> str:
        """Where to look when workers don't start; "" or a sentence."""
        return ""

    def _dispatch(self) -> None:
        if self.halted:
            self._queue.clear()
        while len(self._at_work) < min(self.workers, self.outstanding):
            self._at_work.append(self.start())
        if self._queue:
            for worker in self._at_work:
                if self._queue and worker.ready and worker.call is None:
                    worker.give(*self._queue.popleft())

    def _hear(self, worker: AnyWorker, event: Event) -> list[Outcome]:
        if event.kind is Kind.DIED:
            return self._bury(worker, event.value)
        worker.born = True
        if event.kind is Kind.BORN:
            return []
        if event.kind is Kind.READY:
            worker.ready, worker.deadline = True, None
            self._failed_starts = 0
            return []
        if event.kind is Kind.UNBUILDABLE:
            raise ExecutorError(f"A worker could not be set up: {event.value}")
        call, seconds = worker.take(event.seconds)
        if event.kind is Kind.STOPPED:  # forgotten, as is what waits
            self.halt()
            return []
        if event.kind is Kind.RAISED:
            return [Outcome(call, failure=event.value, seconds=seconds)]
        return [Outcome(call, value=event.value, seconds=seconds)]

    def _bury(self, worker: AnyWorker, cause: str) -> list[Outcome]:
        self._remove(worker)
        if not worker.ready:
            self._count_failed_start(worker, f"died while starting ({cause})")
        if worker.call is None:
            return []
        attempts = worker.attempts
        call, seconds = worker.take()
        if attempts < ATTEMPTS:
            self._queue.appendleft((call, attempts))
            return []
        return [Outcome(call, failure=f"the worker died {attempts} times: {cause}", seconds=seconds)]

    def _expire(self) -> list[Outcome]:
        now = time.monotonic()
        outcomes = []
        for worker in [each for each in self._at_work if each.deadline is not None and each.deadline <= now]:
            if worker.call is None:
                self.too_slow_to_start(worker)
            else:
                outcomes += self.give_up(worker, f"over the time limit of {worker.call.time_limit:g} s")
        return outcomes

    def _remove(self, worker: AnyWorker) -> None:
        self._at_work.remove(worker)
        worker.kill()

    def _count_failed_start(self, worker: AnyWorker, what: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise ExecutorError(f"{MAX_FAILED_STARTS} workers in a row {what}. {self.advice(worker)}".strip())
