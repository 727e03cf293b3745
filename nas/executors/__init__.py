"""Executors: where evaluations run."""

from nas.executors.base import Call, Executor, ExecutorError, Outcome
from nas.executors.local import LocalExecutor
from nas.executors.serial import SerialExecutor

__all__ = ["Call", "Executor", "ExecutorError", "LocalExecutor", "Outcome", "SerialExecutor"]
