"""Calls as jobs of a Slurm cluster, through submitit (Facebook AI Research).

It takes the extra ``[slurm]``, and a folder that driver and nodes share.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.executors.base import Call, Executor, ExecutorError, Outcome, describe
from nas.executors.local import ATTEMPTS, THREAD_VARIABLES, environment


class SlurmExecutor(Executor):
    """A job for each call, at most ``workers`` of them in Slurm's hands at a time.

    Args:
        build: makes the service whose methods are called; called in every job, so it is what a job begins with.
        workers: jobs at a time.
        threads: CPU cores that each asks for, and compute threads.
        devices: GPUs of this machine, as `LocalExecutor` takes them; where there are some, each job asks for one.
        log: its folder is where the jobs' files go, which must be shared; None for the current folder.
        parameters: what submitit hands to ``sbatch``: ``{"slurm_partition": "gpu", "mem_gb": 8}``.
        poll: seconds between looks at the jobs.
        cluster: ``slurm``; ``local`` runs the jobs as processes of this machine.

    Raises:
        ExecutorError: submitit or Slurm is not there, a parameter it does not know, or fewer than one worker or thread.
    """

    def __init__(
        self,
        build: Callable[[], Any],
        workers: int,
        threads: int = 1,
        devices: Sequence[str] = (),
        log: Path | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        poll: float = 2.0,
        cluster: str = "slurm",
    ) -> None:
        if workers < 1 or threads < 1:
            raise ExecutorError(f"At least one worker with one thread is needed, got {workers} with {threads}.")
        self.workers = workers
        self._build, self._poll = build, poll
        self._variables = {name: str(threads) for name in THREAD_VARIABLES}
        # Job files are pickles that submitit reads back: a fresh folder each time, so that nothing older is read.
        folder = (Path.cwd() if log is None else log.parent).resolve()
        self._folder = Path(tempfile.mkdtemp(prefix="jobs-", dir=folder))
        try:
            self._submitter = _submitter(self._folder, cluster)
            asked = {"cpus_per_task": threads, **({"gpus_per_node": 1} if devices else {}), "name": "gemnet"}
            self._submitter.update_parameters(**asked)
            self._submitter.update_parameters(**(parameters or {}))
        except Exception as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            if isinstance(error, ExecutorError):
                raise
            raise ExecutorError(f"workers.options.parameters: {describe(error)}") from None
        self._queue: deque[tuple[Call, int]] = deque()  # (call, attempts so far)
        self._jobs: list[_Job] = []

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
            outcomes = [outcome for job in list(self._jobs) if job.handle.done() for outcome in self._collect(job)]
            self._dispatch()
            if outcomes or time.monotonic() >= end:
                return outcomes
            time.sleep(min(self._poll, max(0.0, end - time.monotonic())))
        return []

    @property
    def running(self) -> int:
        return len(self._jobs)

    @property
    def outstanding(self) -> int:
        return len(self._queue) + self.running

    def close(self) -> None:
        for job in self._jobs:
            job.handle.cancel(check=False)
        self._jobs.clear()
        self._queue.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _dispatch(self) -> None:
        if self.halted:
            self._queue.clear()
        while self._queue and self.running < self.workers:
            call, attempts = self._queue.popleft()
            if call.time_limit is not None:
                self._submitter.update_parameters(timeout_min=max(1, math.ceil(call.time_limit / 60)))
            with environment(self._variables):  # which jobs inherit
                handle = self._submitter.submit(_run, self._build, call.method, call.args)
            self._jobs.append(_Job(call, attempts + 1, handle, time.monotonic()))

    def _collect(self, job: _Job) -> list[Outcome]:
        self._jobs.remove(job)
        try:
            built, went_well, value, seconds = job.handle.result()
        except Exception as error:  # submitit's: the job was killed, or ran out of its time
            if job.attempts < ATTEMPTS:
                self._queue.appendleft((job.call, job.attempts))
                return []
            lines = str(error).strip().splitlines() or [type(error).__name__]
            seconds = time.monotonic() - job.submitted
            return [Outcome(job.call, failure=f"the job died {job.attempts} times: {lines[0]}", seconds=seconds)]
        if not built:
            raise ExecutorError(f"A worker could not be set up: {value}")
        if not went_well:
            return [Outcome(job.call, failure=value, seconds=seconds)]
        return [Outcome(job.call, value=value, seconds=seconds)]


class _Job:
    """A call in Slurm's hands."""

    def __init__(self, call: Call, attempts: int, handle: Any, submitted: float) -> None:
        self.call, self.attempts, self.handle, self.submitted = call, attempts, handle, submitted


def _submitter(folder: Path, cluster: str) -> Any:
    try:
        import submitit
    except ImportError:
        raise ExecutorError(
            "workers.type is 'slurm', and submitit is not installed: pip install 'gemnet[slurm]'."
        ) from None
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise ExecutorError(
            "workers.type is 'slurm', and there is no sbatch on this machine: start it on a login node."
        )
    return submitit.AutoExecutor(folder=folder, cluster=cluster)


def _run(build: Callable[[], Any], method: str, args: tuple[Any, ...]) -> tuple[bool, bool, Any, float]:
    """In the job: (built, went well, value or what failed, seconds)."""
    start = time.monotonic()
    try:
        service = build()
    except Exception as error:  # whatever it is, the driver must hear of it
        return False, False, describe(error), time.monotonic() - start
    try:
        return True, True, getattr(service, method)(*args), time.monotonic() - start
    except Exception as error:  # whatever it is, the driver must hear of it
        return True, False, describe(error), time.monotonic() - start
