"""Who evaluates: how many workers, with what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemnet.machine import available_cores, visible_gpus
from gemnet.strict import at_least, check_options, find_class, keyword_names, typed
from nas.executors import EXECUTORS, Executor


@dataclass(frozen=True)
class WorkerOptions:
    """The workers that evaluate candidates.

    Args:
        count: worker processes; None for one per GPU, or without GPUs one per ``threads`` CPU cores; 0 evaluates in the
            main process. Changes no results, and may change when a search is resumed.
        type: ``local``, ``ray``, ``slurm``, or the dotted path of an `Executor` of your own, with the arguments of
            `LocalExecutor`. Changes no results, and may change when a search is resumed; so may ``options``.
        options: further keyword arguments of the executor, such as ``dict(address='auto')`` of Ray's.
        threads: compute threads of a worker. Sums of floats depend on it in their last digits, so results do too.
    """

    count: int | None = None
    threads: int = 1
    type: str = "local"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least("workers", self, threads=1, count=0)


def workers_of(options: WorkerOptions) -> tuple[int, list[str]]:
    """How many worker processes a config asks for, 0 for none, and the GPUs to deal out to them."""
    gpus = visible_gpus()
    if options.count is not None:
        return options.count, gpus
    return len(gpus) or max(1, available_cores() // options.threads), gpus


def make_workers(options: WorkerOptions, build: Callable[[], Any], log: Path | None = None) -> Executor:
    """The workers a config asks for, at least one; they start with the first call.

    Args:
        options: the config's.
        build: makes the service whose methods are called; picklable, called once in every worker.
        log: file that takes what the workers print, or None to drop it.

    Raises:
        ConfigError: ``type`` names no executor, or ``options`` something it does not take.
    """
    count, gpus = workers_of(options)
    kind: Any = find_class(options.type, EXECUTORS, Executor, "workers.type")
    own = [name for name in keyword_names(kind) if name not in ("build", "workers", "threads", "devices", "log")]
    check_options(own, options.options, "workers.options")
    further = typed(kind, options.options, "workers.options")
    made: Executor = kind(build, max(count, 1), options.threads, gpus, log, **further)
    return made
