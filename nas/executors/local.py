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
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

from gemnet.machine import HUGE_PAGES
from gemnet.stopping import Stopped
from nas.executors.base import Call, ExecutorError, Outcome, describe
from nas.executors.workers import START_LIMIT, THREAD_VARIABLES, Event, Kind, Worker, WorkersExecutor

LOOK = 0.5
"""Seconds between two looks at how much memory workers hold, where that is limited."""
STATM = "/proc/{pid}/statm"
"""Where Linux says how many pages a process holds: the second number."""


class LocalExecutor(WorkersExecutor["_Process"]):
    """Worker processes on this machine, started afresh (not forked: torch's threads don't survive a fork).

    Args:
        build: makes the service whose methods are called; picklable, called once in every worker.
        workers: number of worker processes.
        threads: compute threads of each worker.
        devices: GPUs by the names CUDA_VISIBLE_DEVICES has for them, dealt out in turn; empty for CPUs only.
        log: file that takes what the workers print, or None to drop it.
        start_limit: seconds after which a worker that is not ready is given up.
        memory: gigabytes of memory that a worker may hold; the call of one that holds more has failed. None for no
            limit but the machine's.

    Raises:
        ExecutorError: fewer than one worker or thread, or a limit of memory that is not positive or can't be watched.
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
        memory: float | None = None,
    ) -> None:
        super().__init__(workers, threads, start_limit)
        if memory is not None and (memory <= 0 or not Path(STATM.format(pid="self")).is_file()):
            raise ExecutorError(
                f"workers.options.memory is a positive number of gigabytes, and takes Linux to watch; got {memory:g}."
            )
        self._build, self._threads, self._log, self._memory = build, threads, log, memory
        self._devices = tuple(devices)

    def pids(self) -> list[int]:
        """Process ids of the living workers."""
        return [worker.process.pid for worker in self._at_work if worker.process.pid is not None]

    def start(self) -> _Process:
        taken = {worker.slot for worker in self._at_work}
        slot = next(slot for slot in range(self.workers) if slot not in taken)
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
        return _Process(slot, process, here, self._start_limit)

    def listen(self, pause: float | None) -> Iterable[tuple[_Process, Event]]:
        if self._memory is not None:
            pause = LOOK if pause is None else min(pause, LOOK)
        ready = connection.wait([worker.pipe for worker in self._at_work], pause)
        return [(worker, worker.receive()) for worker in self._at_work if worker.pipe in ready]

    def _expire(self) -> list[Outcome]:
        outcomes = super()._expire()
        if self._memory is not None:
            for worker in [each for each in self._at_work if each.call is not None]:
                held = worker.memory() / 1e9
                if held > self._memory:
                    outcomes += self.give_up(
                        worker, f"over the memory limit of {self._memory:g} GB: its worker held {held:.2f} GB"
                    )
        return outcomes

    def advice(self, worker: _Process) -> str:
        if not worker.born:
            # A started process imports the program's main file anew, and nothing of ours has run in it yet.
            return (
                "Each imports the script that started it, and did not get through that: what the script does belongs "
                "under if __name__ == '__main__':. What they printed stands above."
            )
        if self._log is not None and self._log.is_file() and self._log.stat().st_size:
            return f"What they printed is in {self._log}."
        return "They printed nothing."


class _Process(Worker):
    """One worker process."""

    def __init__(self, slot: int, process: BaseProcess, pipe: connection.Connection, start_limit: float) -> None:
        super().__init__(start_limit)
        self.slot, self.process, self.pipe = slot, process, pipe

    def send(self, call: Call) -> None:
        with contextlib.suppress(OSError):  # it died meanwhile; its pipe says so at the next wait
            self.pipe.send((call.method, call.args))

    def receive(self) -> Event:
        """What it says; may have died instead."""
        try:
            return Event(*self.pipe.recv())
        except Exception:  # the pipe ended, or broke off in the middle of a message: the worker is dead
            self.kill()
            return Event(Kind.DIED, _cause_of_death(self.process.exitcode))

    def memory(self) -> int:
        """Bytes that it holds in the machine's memory; 0 where it has ended."""
        try:
            pages = Path(STATM.format(pid=self.process.pid)).read_text().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe: connection.Connection, build: Callable[[], Any], log: Path | None) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    pipe.send(Event(Kind.BORN))
    _redirect_output(log)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        service = build()
    except Exception as error:  # whatever it is, the driver must hear of it
        pipe.send(Event(Kind.UNBUILDABLE, describe(error)))
        return
    pipe.send(Event(Kind.READY))
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(
                Event(Kind.RETURNED, getattr(service, method)(*args))
            )  # what can't be pickled fails before it is sent
        except Stopped:
            pipe.send(Event(Kind.STOPPED))
        except Exception as error:  # whatever it is, the driver must hear of it
            pipe.send(Event(Kind.RAISED, describe(error)))


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
