"""Workers on a Ray cluster: one actor each, wherever the cluster has room.

It takes the extra ``[ray]``. The project must be importable on every node: installed there, or shipped by a runtime
environment (``runtime_env=dict(py_modules=[...])``).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.executors.base import Call, Executor, ExecutorError, Outcome, describe
from nas.executors.local import ATTEMPTS, MAX_FAILED_STARTS, START_LIMIT


class RayExecutor(Executor):
    """Actors on a Ray cluster; one that dies, or whose node does, is replaced, and its call is made once more.

    Args:
        build: makes the service whose methods are called; called once in every actor.
        workers: actors at most.
        threads: CPU cores that each asks for, and compute threads.
        devices: GPUs of this machine, as `LocalExecutor` takes them; where there are some, each actor asks for one.
        log: not used: what actors print is in Ray's own logs.
        address: of the cluster, such as ``auto``, ``10.0.0.1:6379`` or ``ray://host:10001``; None for one on this
            machine that lives as long as the search.
        gpus: GPUs that each actor asks for, also parts of one; None for one where ``devices`` has some, else none.
        resources: custom resources that each asks for: ``{"fast_node": 1}``.
        runtime_env: Ray's runtime environment for the workers: what is shipped, which variables are set.
        start_limit: seconds within which the first actor must be ready.

    Raises:
        ExecutorError: Ray is not installed, no cluster answers there, or fewer than one worker or thread.
    """

    def __init__(
        self,
        build: Callable[[], Any],
        workers: int,
        threads: int = 1,
        devices: Sequence[str] = (),
        log: Path | None = None,
        *,
        address: str | None = None,
        gpus: float | None = None,
        resources: Mapping[str, Any] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        start_limit: float = START_LIMIT,
    ) -> None:
        if workers < 1 or threads < 1:
            raise ExecutorError(f"At least one worker with one thread is needed, got {workers} with {threads}.")
        self.workers = workers
        self._build, self._start_limit = build, start_limit
        self._ray, self._is_ours = _connect(address)
        self._asked = {
            "num_cpus": threads,
            "num_gpus": (1 if devices else 0) if gpus is None else gpus,
            "resources": dict(resources or {}),
        }
        further = {} if runtime_env is None else {"runtime_env": dict(runtime_env)}
        # Ray sets OMP_NUM_THREADS to the cores that an actor asks for.
        self._actor = self._ray.remote(_Service).options(**self._asked, **further, max_restarts=0)
        self._queue: deque[tuple[Call, int]] = deque()  # (call, attempts so far)
        self._crew: list[_Worker] = []
        self._failed_starts = 0
        self._was_ready = False

    def submit(self, call: Call) -> None:
        if not self.halted:
            self._queue.append((call, 0))
            self._dispatch()

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        end = None if timeout is None else time.monotonic() + timeout
        while self.outstanding or self.halted:
            self._dispatch()
            if self.halted and not self.running:
                raise KeyboardInterrupt
            deadlines = [worker.deadline for worker in self._crew if worker.deadline is not None]
            if end is not None:
                deadlines.append(end)
            pause = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
            under_way = {worker.reference: worker for worker in self._crew if worker.reference is not None}
            ready = self._ray.wait(list(under_way), num_returns=1, timeout=pause)[0] if under_way else []
            outcomes = [outcome for reference in ready for outcome in self._listen(under_way[reference])]
            outcomes += self._expire()
            self._dispatch()
            if outcomes or (end is not None and time.monotonic() >= end):
                return outcomes
        return []

    @property
    def running(self) -> int:
        return sum(worker.call is not None for worker in self._crew)

    @property
    def outstanding(self) -> int:
        return len(self._queue) + self.running

    def close(self) -> None:
        for worker in self._crew:
            self._ray.kill(worker.actor)
        self._crew.clear()
        self._queue.clear()
        if self._is_ours:
            self._ray.shutdown()

    def _dispatch(self) -> None:
        if self.halted:
            self._queue.clear()
        while len(self._crew) < min(self.workers, self.outstanding):
            actor = self._actor.remote()
            self._crew.append(_Worker(actor, actor.start.remote(self._build), self._start_limit))
        for worker in self._crew:
            if self._queue and worker.ready and worker.call is None:
                worker.give(*self._queue.popleft())

    def _listen(self, worker: _Worker) -> list[Outcome]:
        try:
            went_well, value = self._ray.get(worker.reference)
        except self._ray.exceptions.RayError as error:  # the actor is dead, its node gone, its result too large
            return self._bury(worker, describe(error))
        if not worker.ready:
            if not went_well:
                raise ExecutorError(f"A worker could not be set up: {value}")
            worker.ready, worker.reference, worker.deadline = True, None, None
            self._was_ready, self._failed_starts = True, 0
            return []
        call, seconds = worker.take()
        if went_well:
            return [Outcome(call, value=value, seconds=seconds)]
        return [Outcome(call, failure=value, seconds=seconds)]

    def _bury(self, worker: _Worker, cause: str) -> list[Outcome]:
        self._crew.remove(worker)
        self._ray.kill(worker.actor)
        if worker.call is None:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise ExecutorError(f"{MAX_FAILED_STARTS} workers in a row died while starting. The last: {cause}")
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
            if not worker.ready:
                if not self._was_ready:
                    has = {key: round(value, 2) for key, value in self._ray.cluster_resources().items()}
                    raise ExecutorError(
                        f"No worker was ready after {self._start_limit:g} s. Each asks for {self._asked}; the cluster "
                        f"has {has}."
                    )
                worker.deadline = None  # others work; the cluster may have room for this one later
                continue
            self._crew.remove(worker)
            self._ray.kill(worker.actor)
            call, seconds = worker.take()
            outcomes.append(Outcome(call, failure=f"over the time limit of {call.time_limit:g} s", seconds=seconds))
        return outcomes


def _connect(address: str | None) -> tuple[Any, bool]:
    """Ray, connected, and whether that was our doing."""
    try:
        import ray
    except ImportError:
        raise ExecutorError("workers.type is 'ray', and Ray is not installed: pip install 'gemnet[ray]'.") from None
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="error", include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ExecutorError(
            f"No Ray cluster answers at {address!r} ({describe(error)}). `ray start --head` starts one; "
            "workers.options.address (--ray-address) names it."
        ) from None
    return ray, True


class _Worker:
    """The driver's side of one actor."""

    def __init__(self, actor: Any, reference: Any, start_limit: float) -> None:
        self.actor, self.reference = actor, reference  # of its start, then of its call; None while it is idle
        self.ready = False
        self.call: Call | None = None
        self.attempts = 0
        self.started = 0.0
        self.deadline: float | None = time.monotonic() + start_limit

    def give(self, call: Call, attempts: int) -> None:
        self.call, self.attempts, self.started = call, attempts + 1, time.monotonic()
        self.deadline = None if call.time_limit is None else self.started + call.time_limit
        self.reference = self.actor.call.remote(call.method, call.args)

    def take(self) -> tuple[Call, float]:
        assert self.call is not None
        call, self.call, self.reference, self.deadline = self.call, None, None, None
        return call, time.monotonic() - self.started


class _Service:
    """What lives in an actor. Exceptions come back as sentences: their classes may not exist at the driver's."""

    def start(self, build: Callable[[], Any]) -> tuple[bool, Any]:
        try:
            self.service = build()
        except Exception as error:  # whatever it is, the driver must hear of it
            return False, describe(error)
        return True, None

    def call(self, method: str, args: tuple[Any, ...]) -> tuple[bool, Any]:
        try:
            return True, getattr(self.service, method)(*args)
        except Exception as error:  # whatever it is, the driver must hear of it
            return False, describe(error)
