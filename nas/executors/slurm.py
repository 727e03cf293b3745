"""Calls as jobs of a Slurm cluster, through submitit (Facebook AI Research).

It takes the extra ``[slurm]``, and a folder that driver and nodes share.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gemnet.stopping import Stopped
from nas.executors.base import Call, ExecutorError, describe
from nas.executors.local import environment
from nas.executors.workers import THREAD_VARIABLES, Event, Kind, Worker, WorkersExecutor


class SlurmExecutor(WorkersExecutor["_Slot"]):
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
        super().__init__(workers, threads)
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
        except Exception as error:  # submitit's are of many kinds
            shutil.rmtree(self._folder, ignore_errors=True)
            if isinstance(error, ExecutorError):
                raise
            raise ExecutorError(f"workers.options.parameters: {describe(error)}") from None

    def start(self) -> _Slot:
        return _Slot(self._submit)

    def listen(self, pause: float | None) -> Iterable[tuple[_Slot, Event]]:
        done = [worker for worker in self._at_work if worker.job is not None and worker.job.done()]
        if not done:
            time.sleep(self._poll if pause is None else min(self._poll, pause))
        return [(worker, worker.receive()) for worker in done]

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _submit(self, call: Call) -> Any:
        if call.time_limit is not None:
            self._submitter.update_parameters(timeout_min=max(1, math.ceil(call.time_limit / 60)))
        with environment(self._variables):  # which jobs inherit
            return self._submitter.submit(_run, self._build, call.method, call.args)


class _Slot(Worker):
    """Room for one job in Slurm's hands: every call is a job of its own.

    Args:
        submit: makes a call a job.
    """

    def __init__(self, submit: Callable[[Call], Any]) -> None:
        super().__init__(None)
        self._submit = submit
        self.job: Any = None

    def send(self, call: Call) -> None:
        self.deadline = None  # Slurm's matter: a job's time begins when it does
        self.job = self._submit(call)

    def receive(self) -> Event:
        """What its job came to."""
        job, self.job = self.job, None
        try:
            kind, value, seconds = job.result()
        except Exception as error:  # submitit's: the job was killed, or ran out of its time
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return Event(Kind.DIED, lines[0])
        return Event(Kind[kind], value, seconds)

    def kill(self) -> None:
        if self.job is not None:
            self.job.cancel(check=False)


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


def _run(build: Callable[[], Any], method: str, args: tuple[Any, ...]) -> tuple[str, Any, float]:
    """In the job: (name of the kind of event, value or what failed, seconds)."""
    start = time.monotonic()
    kind, value = Kind.UNBUILDABLE, None
    try:
        service = build()
        kind = Kind.RAISED
        value = getattr(service, method)(*args)
        kind = Kind.RETURNED
    except Stopped:
        kind = Kind.STOPPED
    except Exception as error:  # whatever it is, the driver must hear of it
        value = describe(error)
    return kind.name, value, time.monotonic() - start
