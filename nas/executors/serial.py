"""Runs calls in the process that drives the search: for tables, where a call takes microseconds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from nas.executors.base import Call, Executor, Outcome, describe


class SerialExecutor(Executor):
    """One worker, in this process. It can't survive what kills the process, and has no time limits.

    Args:
        build: makes the service whose methods are called; called once, at the first call.
    """

    workers = 1

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._service: Any = None
        self._queue: deque[Call] = deque()
        self._busy = False

    def submit(self, call: Call) -> None:
        if not self.halted:
            self._queue.append(call)

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        if self.halted:
            raise KeyboardInterrupt
        if not self._queue:
            return []
        if self._service is None:
            self._service = self._build()
        call = self._queue.popleft()
        start = time.perf_counter()
        self._busy = True
        try:
            value = getattr(self._service, call.method)(*call.args)
        except Exception as error:  # the service is the caller's: one call's failure must not end the others
            return [Outcome(call, failure=describe(error), seconds=time.perf_counter() - start)]
        finally:
            self._busy = False
        return [Outcome(call, value=value, seconds=time.perf_counter() - start)]

    @property
    def running(self) -> int:
        return int(self._busy)

    def close(self) -> None:
        self._queue.clear()
        self._service = None

    @property
    def outstanding(self) -> int:
        return len(self._queue)
