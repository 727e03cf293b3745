"""Rows of HW-NAS-Bench (Li et al., ICLR 2021): times and energies of NAS-Bench-201's networks on six devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nas.tables.plain_pickle import read_pickle
from nas.tables.table import TableError

_DATA_SETS = {"c10": "cifar10", "c100": "cifar100", "in16": "ImageNet16-120"}
_CONFIG = "config"


def hw_nas_bench_records(source: Path) -> Iterator[dict[str, Any]]:
    """Rows from ``HW-NAS-Bench-v1_0.pickle``, in the form that its authors' own interface reads.

    A row has ``arch_index``, ``arch_str``, and what was measured on each data set, such as ``c10_raspi4_latency``; a
    latency is in ms, and -1 where the device can't run the network.

    Raises:
        TableError: not that file, or one in another form.
    """
    content = read_pickle(source)
    try:
        of_space = content["nasbench201"]
        cells = [config["arch_str"] for config in of_space["cifar10"][_CONFIG]]
        measured = {
            f"{short}_{name}": [float(value) for value in values]
            for short, data_set in _DATA_SETS.items()
            for name, values in of_space[data_set].items()
            if name != _CONFIG
        }
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise TableError(
            f"{source} is not HW-NAS-Bench-v1_0.pickle of github.com/GATECH-EIC/HW-NAS-Bench: "
            f"{type(error).__name__} {error}."
        ) from None
    for name, values in measured.items():
        if len(values) != len(cells):
            raise TableError(f"{source} has {len(cells)} cells and {len(values)} values of {name}.")
    for index, cell in enumerate(cells):
        yield {**{name: values[index] for name, values in measured.items()}, "arch_index": index, "arch_str": cell}
