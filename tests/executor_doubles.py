"""Executors of a user's own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gemnet.stopping import STOP
from gemnet.training.state import TrainingState
from nas.executors import LocalExecutor, SerialExecutor


class OwnExecutor(SerialExecutor):
    """Made as `LocalExecutor` is; works in this process."""

    def __init__(
        self, build: Callable[[], Any], workers: int, threads: int, devices: Sequence[str], log: Path | None
    ) -> None:
        super().__init__(build)
        self.given = (workers, threads, log)


class Signalling(LocalExecutor):
    """Its worker sends Ctrl-C to the whole process group in a training's second epoch, and waits for what follows."""

    def __init__(
        self, build: Callable[[], Any], workers: int, threads: int, devices: Sequence[str], log: Path | None
    ) -> None:
        super().__init__(partial(_signalling, build), workers, threads, devices, log)


def _signalling(build: Callable[[], Any]) -> Any:
    save = TrainingState.save

    def signal_and_wait(state: TrainingState, path: Path, identity: Any) -> None:
        save(state, path, identity)
        if len(state.history) == 2:
            os.killpg(0, signal.SIGINT)
            while not (path.parents[1] / STOP).exists():
                time.sleep(0.01)

    TrainingState.save = signal_and_wait  # type: ignore[method-assign]  # in this worker's process alone
    return build()
