"""Executors: where evaluations run."""

from nas.executors.base import Call, Executor, ExecutorError, Outcome
from nas.executors.local import LocalExecutor
from nas.executors.serial import SerialExecutor

EXECUTORS = {
    "local": "nas.executors.local.LocalExecutor",
    "ray": "nas.executors.ray.RayExecutor",
    "slurm": "nas.executors.slurm.SlurmExecutor",
}
"""Those a config names; one's own is named by its dotted path and made as `LocalExecutor` is."""

__all__ = ["EXECUTORS", "Call", "Executor", "ExecutorError", "LocalExecutor", "Outcome", "SerialExecutor"]
