"""An executor of a user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nas.executors import SerialExecutor


class OwnExecutor(SerialExecutor):
    """Made as `LocalExecutor` is; works in this process."""

    def __init__(
        self, build: Callable[[], Any], workers: int, threads: int, devices: Sequence[str], log: Path | None
    ) -> None:
        super().__init__(build)
        self.given = (workers, threads, log)
