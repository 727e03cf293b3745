"""Worker processes on this machine.

Each worker is a process of its own with a pipe of its own to the driver: no queue, lock or pool is shared, so nothing
that kills one worker (a segmentation fault, the kernel's out-of-memory killer, kill -9) can hang or corrupt another.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

from gemnet.machine import HUGE_PAGES
from nas.executors.base import Call, Executor, ExecutorError, Outcome, describe

MAX_FAILED_STARTS = 3
"""Workers in a row that die before they are ready, until the executor gives up."""

START_LIMIT = 600.0
"""Seconds a worker may take until it is ready: to import everything and to read its images."""

ATTEMPTS = 2
"""A call whose worker died is tried once more: the killer may have been an outsider. Twice is the call's own doing."""


THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_BORN, _READY, _UNBUILDABLE, _RETURNED, _RAISED = "born", "ready", "unbuildable", "returned", "raised"


class LocalExecutor(Executor):
    """Worker processes on this machine, started afresh (not forked: torch's threads don't survive a fork).

    Args:
        build: makes the service whose methods are called; picklable, called once in every worker.
        workers: number of worker processes.
        threads: compute threads of each worker.
        devices: GPUs by the names CUDA_VISIBLE_DEVICES has for them, dealt out in turn; empty for CPUs only.
        log: file that takes what the workers print, or None to drop it.
        start_limit: seconds after which a worker that is not ready is given up.

    Raises:
        ExecutorError: fewer than one worker or thread.
    """

    start_method: ClassVar[str] = "spawn"
    """How `multiprocessing` starts them."""

    def __init__(
        self,
        build: Callable[[], Any],
        workers: int,
        threads: int = 1,
        devices: Sequence[str] = (),
        log: Path | None = None,
        start_limit: float = START_LIMIT,
    ) -> None:
        if workers < 1 or threads < 1:
            raise ExecutorError(f"At least one worker with one thread is needed, got {workers} with {threads}.")
        self.workers = workers
        self._build, self._threads, self._log, self._start_limit = build, threads, log, start_limit
        self._devices = tuple(devices)
        self._queue: deque[tuple[Call, int]] = deque()  # (call, attempts so far)
        self._crew: list[_Worker] = []
        self._failed_starts = 0

    def submit(self, call: Call) -> None:
        if not self.halted:
            self._queue.append((call, 0))
            self._dispatch()

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        end = None if timeout is None else time.monotonic() + timeout
        self._forget_if_halted()
        if self.halted and not self.outstanding:
            raise KeyboardInterrupt
        while self.outstanding:
            self._dispatch()
            now = time.monotonic()
            deadlines = [worker.deadline for worker in self._crew if worker.deadline is not None]
            if end is not None:
                deadlines.append(end)
            pause = max(0.0, min(deadlines) - now) if deadlines else None
            ready = connection.wait([worker.pipe for worker in self._crew], pause)
            outcomes = [outcome for worker in self._crew if worker.pipe in ready for outcome in self._listen(worker)]
            outcomes += self._expire()
            self._dispatch()
            if outcomes or (end is not None and time.monotonic() >= end):
                return outcomes
        return []

    @property
    def running(self) -> int:
        return sum(worker.call is not None for worker in self._crew)

    def close(self) -> None:
        for worker in self._crew:
            worker.kill()
        self._crew.clear()
        self._queue.clear()

    @property
    def outstanding(self) -> int:
        return len(self._queue) + self.running

    def pids(self) -> list[int]:
        """Process ids of the living workers."""
        return [worker.process.pid for worker in self._crew if worker.process.pid is not None]

    def _forget_if_halted(self) -> None:
        if self.halted:
            self._queue.clear()

    def _dispatch(self) -> None:
        self._forget_if_halted()
        while len(self._crew) < min(self.workers, self.outstanding):
            taken = {worker.slot for worker in self._crew}
            self._start(next(slot for slot in range(self.workers) if slot not in taken))
        for worker in self._crew:
            if self._queue and worker.ready and worker.call is None:
                worker.give(*self._queue.popleft())

    def _start(self, slot: int) -> None:
        context: Any = multiprocessing.get_context(self.start_method)
        here, there = context.Pipe()
        process = context.Process(
            target=_work, args=(there, self._build, self._log), name=f"worker {slot}", daemon=True
        )
        variables = {name: str(self._threads) for name in THREAD_VARIABLES}
        variables[HUGE_PAGES] = os.environ.get(HUGE_PAGES, "1")
        if self._devices:
            variables["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
        with environment(variables):
            process.start()
        there.close()  # so that the pipe ends when the worker does
        self._crew.append(_Worker(slot, process, here, time.monotonic() + self._start_limit))

    def _listen(self, worker: _Worker) -> list[Outcome]:
        try:
            kind, value = worker.pipe.recv()
        except Exception:  # the pipe ended, or broke off in the middle of a message: the worker is dead
            return self._bury(worker)
        if kind == _BORN:
            worker.born = True
            return []
        if kind == _READY:
            worker.ready, worker.deadline = True, None
            self._failed_starts = 0
            return []
        if kind == _UNBUILDABLE:
            raise ExecutorError(f"A worker could not be set up: {value}")
        call, seconds = worker.take()
        if kind == _RAISED:
            return [Outcome(call, failure=value, seconds=seconds)]
        return [Outcome(call, value=value, seconds=seconds)]

    def _bury(self, worker: _Worker) -> list[Outcome]:
        self._crew.remove(worker)
        worker.kill()
        cause = _cause_of_death(worker.process.exitcode)
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
        for worker in [each for each in self._crew if each.deadline is not None and each.deadline <= now]:
            self._crew.remove(worker)
            worker.kill()
            if not worker.ready:
                self._count_failed_start(worker, f"were not ready after {self._start_limit:g} s")
                continue
            call, seconds = worker.take()
            outcomes.append(Outcome(call, failure=f"over the time limit of {call.time_limit:g} s", seconds=seconds))
        return outcomes

    def _count_failed_start(self, worker: _Worker, what: str) -> None:
        self._failed_starts += 1
        if self._failed_starts < MAX_FAILED_STARTS:
            return
        if not worker.born:
            # A started process imports the program's main file anew, and nothing of ours has run in it yet.
            advice = (
                "Each imports the script that started it, and did not get through that: what the script does belongs "
                "under if __name__ == '__main__':. What they printed stands above."
            )
        elif self._log is not None and self._log.is_file() and self._log.stat().st_size:
            advice = f"What they printed is in {self._log}."
        else:
            advice = "They printed nothing."
        raise ExecutorError(f"{MAX_FAILED_STARTS} workers in a row {what}. {advice}")


class _Worker:
    """The driver's side of one worker process."""

    def __init__(self, slot: int, process: BaseProcess, pipe: connection.Connection, deadline: float) -> None:
        self.slot, self.process, self.pipe = slot, process, pipe
        self.born = self.ready = False  # runs code of ours; takes calls
        self.call: Call | None = None
        self.attempts = 0
        self.started = 0.0
        self.deadline: float | None = deadline  # of its start, then of its call

    def give(self, call: Call, attempts: int) -> None:
        self.call, self.attempts, self.started = call, attempts + 1, time.monotonic()
        self.deadline = None if call.time_limit is None else self.started + call.time_limit
        with contextlib.suppress(OSError):  # it died meanwhile; its pipe says so at the next wait
            self.pipe.send((call.method, call.args))

    def take(self) -> tuple[Call, float]:
        assert self.call is not None
        call, self.call, self.deadline = self.call, None, None
        return call, time.monotonic() - self.started

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe: connection.Connection, build: Callable[[], Any], log: Path | None) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    pipe.send((_BORN, None))
    _redirect_output(log)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        service = build()
    except Exception as error:  # whatever it is, the driver must hear of it
        pipe.send((_UNBUILDABLE, describe(error)))
        return
    pipe.send((_READY, None))
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((_RETURNED, getattr(service, method)(*args)))  # what can't be pickled fails before it is sent
        except Exception as error:  # whatever it is, the driver must hear of it
            pipe.send((_RAISED, describe(error)))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)  # in the middle of a training: nobody is left to take its result


def _redirect_output(log: Path | None) -> None:
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if log else os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


def _cause_of_death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"it ended with code {code}"
    name = signal.Signals(-code).name
    hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
    return f"killed by {name}{hint}"


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Sets environment variables while a child is started: it inherits them before it imports anything."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
