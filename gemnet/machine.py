"""The machine: threads, cores, GPUs, and what its processor is called."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""PyTorch's variable; with 1 it asks the kernel for huge pages: up to a fifth more images a second on a CPU
(tools/measure/huge_pages.py), and the same results. A user's own setting stands."""


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Runs torch on ``threads`` CPU threads, and on as many as before afterwards."""
    before = torch.get_num_threads()
    if threads != before:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if threads != before:
            torch.set_num_threads(before)


def visible_gpus() -> list[str]:
    """The GPUs this process was given, by the names (numbers, UUIDs) that CUDA_VISIBLE_DEVICES gives them."""
    count = torch.cuda.device_count()
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return given[:count] or [str(number) for number in range(count)]


def available_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def idle_cores() -> int:
    """Cores this process may use and others don't, at least one.

    Threads that wait for each other where other programs are busy wait for these too: on a loaded machine two threads
    train an encoder ten times more slowly than one.
    """
    busy = round(os.getloadavg()[0]) if hasattr(os, "getloadavg") else 0
    return max(1, available_cores() - busy)


@contextmanager
def single_thread() -> Iterator[None]:
    """One compute thread for NumPy, SciPy and torch in this process, as many as before afterwards."""
    with threadpool_limits(1), limited_threads(1):
        yield


def one_thread() -> None:
    """Keeps the numerical libraries of this process to one thread: the processes are the parallelism."""
    torch.set_num_threads(1)
    threadpool_limits(1)


def processor_name() -> str:
    """The processor as the system calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
