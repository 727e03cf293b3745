"""Which table, metric and training sizes a benchmark uses where the user names none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nas.spaces import is_own, make_space
from nas.studies.tabular.runs import BenchmarkError, with_source
from nas.tables.read import HW_FILE, find_table, read_table
from nas.tables.table import Table

CHECKPOINTS = (50, 100, 150, 200)
DEFAULT_METRICS = {
    "nasbench201": ("c10_valid_200ep_1seed", "c100_valid_200ep_1seed", "in16_valid_200ep_1seed"),
    "nasbench101": ("108ep_valid",),
    "accel_nasbench": ("val_top1",),
}
# Points that equal cells differ by on this metric (one standard deviation): within it, the best is a matter of luck.
DEVIATION = {"in16_valid_200ep_1seed": 0.6}
DEFAULT_SIZES = {
    "nasbench201": (50, 78, 156, 469, 781, 1563),
    "nasbench101": (100, 172, 424, 2000),
    "accel_nasbench": (50, 100, 200, 400),
}
DEFAULT_TARGET = {"nasbench201": "c10_test_200ep_mean", "nasbench101": "108ep_valid", "accel_nasbench": "val_top1"}


def open_table(space: str | None, path: str | None) -> Table:
    """The table of a space, or a user's own; ``space`` may be the dotted path of the space that its cells come from.

    Raises:
        BenchmarkError: neither is named, or both.
        TableError: it is missing or not right.
    """
    own = make_space(space) if space is not None and is_own(space) else None
    if (path is None) == (space is None) and own is None:
        given = "neither" if path is None else f"both --space {space} and --table {path}"
        raise BenchmarkError(f"A table is named by --space or by --table, got {given}.")
    table = read_table(find_table(space or "", path), space if path is None else None, own)
    if own is None:
        return table
    # Another space, or the same after a change, is another table: runs of before are not taken for its own.
    return replace(table, fingerprint=with_source(table.fingerprint, type(own)))


DEVICES = {
    "nasbench201": ("raspi4", "edgegpu", "edgetpu", "pixel3", "eyeriss", "fpga"),
    "accel_nasbench": ("a100", "3090", "tpuv2", "tpuv3", "zcu102", "vck190"),
}
"""Devices on which a benchmark's networks were measured."""
_TIME, _RATE = "latency", "throughput"
_BETWEEN = r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=(?:Latency|Throughput|Mean|Std)(?![a-z]))"


def open_hardware_table(space: str | None, path: str | None) -> Table:
    """A table with times on each device: NAS-Bench-201 with HW-NAS-Bench's, Accel-NASBench, or one's own.

    ``space`` is a key of `DEVICES`; None takes the table at ``path`` as it is.

    ``<device>_latency`` holds times, whatever the names of the columns that they are read from: a column measures what
    the words of its name say (``a100_throughput``, ``throughput_a100_throughput_mean``). Where a throughput (images/s)
    was measured instead, the time is that of an image at this throughput, in ms. A network that was not measured, or
    that the device can't run (-1 in HW-NAS-Bench), counts as the slowest that was.

    Raises:
        TableError: a table that is not there or not right.
    """
    place = find_table(space or "", path)
    table = read_table(place, space)
    if space == "nasbench201":
        table = table.joined(read_table(find_table("hw_nas_bench", place.parent / HW_FILE if path else None)))
    times: dict[str, NDArray[np.float64]] = {}
    for measured in (_TIME, _RATE):
        for name, values in table.metrics.items():
            device = _device(name, measured)
            if device is not None and (values > 0).any():
                times.setdefault(
                    _time_on(device), values if measured == _TIME else 1000 / np.where(values > 0, values, np.nan)
                )
    slowest = {name: float(np.nanmax(values)) for name, values in times.items()}
    times = {name: np.where(values > 0, values, slowest[name]) for name, values in times.items()}
    return replace(table, metrics={**table.metrics, **times})


def _device(column: str, measured: str) -> str | None:
    """The device whose latency or throughput a column holds, by its name; None where it holds something else."""
    words = _words(column)
    known = {word.lower() for word in words}
    other = _RATE if measured == _TIME else _TIME
    if measured not in known or other in known or "std" in known:
        return None
    rest = [word for word in words if word.lower() not in (_TIME, _RATE, "mean")]
    return "_".join(rest) or ("" if measured == _TIME else _RATE)  # of the only device


def _words(column: str) -> list[str]:
    """The words of a name, whatever separates them; ``meanThroughput`` has two."""
    return [word for word in re.split(_BETWEEN, column) if word]


def _time_on(device: str) -> str:
    """The column with a device's times; the only device has no name."""
    return f"{device}_{_TIME}" if device else _TIME


def find_time(table: Table, space: str | None, metric: str, device: str) -> str:
    """Column of `open_hardware_table` with times on a device; NAS-Bench-201's are of the metric's data set.

    Args:
        table: as `open_hardware_table` gives it.
        space: a key of `DEVICES`, or None.
        metric: the accuracy that stands against the time.
        device: its name, or that of a column of the table. A throughput stands for the time that follows from it, a
            time for itself as `open_hardware_table` completes it; any other column is taken as it is, and is to be
            small.

    Raises:
        BenchmarkError: neither a device nor a column of the table.
    """
    data_set = f"{metric.partition('_')[0]}_" if space == "nasbench201" else ""
    named = [_device(device, measured) for measured in (_TIME, _RATE)] if device in table.metrics else []
    of_column = [_time_on(each) for each in named if each is not None]
    for name in (f"{data_set}{device}_{_TIME}", _time_on("_".join(_words(device))), *of_column, device):
        if name in table.metrics:
            return name
    times = [name for name in table.metrics if name.startswith(data_set) and name.endswith(f"_{_TIME}")]
    devices = [d for name in times if (d := _device(name, _TIME)) and name == _time_on(d)]
    known = ", ".join(each.removeprefix(data_set) for each in devices) or "no device"
    raise BenchmarkError(
        f"Table {table.name!r} has no time on {device!r}; it has times on {known}. Name one of these, or any column "
        f"that is to be small: {', '.join(table.metrics)}."
    )


def metrics_of(table: Table, space: str | None, asked: Sequence[str] | None) -> tuple[str, ...]:
    """The metrics asked for, or the usual ones of the space, or the only one of a user's own table.

    Raises:
        BenchmarkError: a table with several metrics, and none was named.
        TableError: unknown metric, or one with gaps.
    """
    if asked:
        names = tuple(asked)
    elif space in DEFAULT_METRICS and all(name in table.metrics for name in DEFAULT_METRICS[space]):
        names = DEFAULT_METRICS[space]
    elif len(table.metrics) == 1:
        names = tuple(table.metrics)
    else:
        raise BenchmarkError(f"Name what is to be maximised with --metric: {', '.join(table.metrics)}.")
    for name in names:
        table.metric(name)
    return names
