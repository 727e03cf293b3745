"""Workers on a Ray cluster: one actor each, wherever the cluster has room.

It takes the extra ``[ray]``. The project must be importable on every node: installed there, or shipped by a runtime
environment (``runtime_env=dict(py_modules=[...])``).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gemnet.stopping import Stopped
from nas.executors.base import Call, ExecutorError, describe
from nas.executors.workers import START_LIMIT, Event, Kind, Worker, WorkersExecutor

LOOK = 2.0
"""Seconds between two looks at whether the cluster's head is there, while nothing is heard of it."""
PATIENCE = 20.0
"""Seconds for which it may be away. Ray itself ends the process, without a word to the search, after 60."""


class RayExecutor(WorkersExecutor["_Actor"]):
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
        super().__init__(workers, threads, start_limit)
        self._build = build
        self._ray, self._is_ours = _connect(address)
        self._asked = {
            "num_cpus": threads,
            "num_gpus": (1 if devices else 0) if gpus is None else gpus,
            "resources": dict(resources or {}),
        }
        further = {} if runtime_env is None else {"runtime_env": dict(runtime_env)}
        # Ray sets OMP_NUM_THREADS to the cores that an actor asks for.
        self._actor = self._ray.remote(_Service).options(**self._asked, **further, max_restarts=0)
        self._was_ready = False
        self._head = self._ray.get_runtime_context().gcs_address
        self._seen = time.monotonic()

    def start(self) -> _Actor:
        return _Actor(self._ray, self._actor.remote(), self._build, self._start_limit)

    def listen(self, pause: float | None) -> Iterable[tuple[_Actor, Event]]:
        pause = LOOK if pause is None else min(pause, LOOK)
        under_way = {worker.reference: worker for worker in self._at_work if worker.reference is not None}
        ready = self._ray.wait(list(under_way), num_returns=1, timeout=pause)[0] if under_way else []
        self._look()
        events = [(under_way[reference], under_way[reference].receive()) for reference in ready]
        self._was_ready |= any(event.kind is Kind.READY for _, event in events)
        return events

    def _look(self) -> None:
        """Raises `ExecutorError` where the head has been away for too long."""
        if time.monotonic() - self._seen < LOOK:
            return
        host, _, port = self._head.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK).close()
        except OSError as error:
            if time.monotonic() - self._seen > PATIENCE:
                self._at_work.clear()  # killing them would wait for the head
                raise ExecutorError(
                    f"The head of the Ray cluster, {self._head}, has been away for {PATIENCE:g} s "
                    f"({describe(error)}). What was evaluated is recorded: start the cluster again and go on with "
                    "--resume."
                ) from None
            return
        self._seen = time.monotonic()

    def close(self) -> None:
        super().close()
        if self._is_ours:
            self._ray.shutdown()

    def too_slow_to_start(self, worker: _Actor) -> None:
        if self._was_ready:
            worker.deadline = None  # others work; the cluster may have room for this one later
            return
        has = {key: round(value, 2) for key, value in self._ray.cluster_resources().items()}
        raise ExecutorError(
            f"No worker was ready after {self._start_limit:g} s. Each asks for {self._asked}; the cluster has {has}."
        )


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


class _Actor(Worker):
    """One actor."""

    def __init__(self, ray: Any, actor: Any, build: Callable[[], Any], start_limit: float) -> None:
        super().__init__(start_limit)
        self._ray, self.actor = ray, actor
        self.reference: Any = actor.start.remote(build)  # then of its call; None while it is idle

    def send(self, call: Call) -> None:
        self.reference = self.actor.call.remote(call.method, call.args)

    def receive(self) -> Event:
        """What its reference holds."""
        reference, self.reference = self.reference, None
        try:
            kind, value = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # the actor is dead, its node gone, its result too large
            return Event(Kind.DIED, describe(error))
        return Event(Kind[kind], value)

    def kill(self) -> None:
        self._ray.kill(self.actor)


class _Service:
    """What lives in an actor; says the name of a `Kind`, and a value.

    Exceptions come back as sentences: their classes may not exist at the driver's.
    """

    def start(self, build: Callable[[], Any]) -> tuple[str, Any]:
        try:
            self.service = build()
        except Exception as error:  # whatever it is, the driver must hear of it
            return Kind.UNBUILDABLE.name, describe(error)
        return Kind.READY.name, None

    def call(self, method: str, args: tuple[Any, ...]) -> tuple[str, Any]:
        try:
            return Kind.RETURNED.name, getattr(self.service, method)(*args)
        except Stopped:
            return Kind.STOPPED.name, None
        except Exception as error:  # whatever it is, the driver must hear of it
            return Kind.RAISED.name, describe(error)
