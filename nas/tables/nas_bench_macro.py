"""Rows of NAS-Bench-Macro: 6,561 networks of eight layers, each one of three blocks, trained on CIFAR-10.

Source: Su, Huang et al., "Prioritized Architecture Sampling with Monte-Carlo Tree Search", CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gemnet.strict_json import JsonError, read_json
from nas.tables.choices import COLUMN
from nas.tables.table import TableError

_BLOCKS = {"0": "identity", "1": "mb3_k3", "2": "mb6_k5"}


def nas_bench_macro_records(source: Path) -> Iterator[dict[str, Any]]:
    """Rows from ``nas-bench-macro_cifar10.json``.

    A row has ``choices`` (``layer1=mb3_k3, layer2=identity, ...``), ``test_accuracy`` of the first of three trainings,
    ``test_accuracy_mean`` of all, and ``macs`` and ``params`` as published.

    Raises:
        TableError: not that file, or one in another form.
    """
    try:
        content = read_json(source)
        rows = [_row(network, values) for network, values in content.items()]
    except (JsonError, OSError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else error
        raise TableError(
            f"{source} is not nas-bench-macro_cifar10.json of github.com/xiusu/NAS-Bench-Macro: {said}."
        ) from None
    yield from rows


def _row(network: str, values: dict[str, Any]) -> dict[str, Any]:
    if not network or not set(network) <= set(_BLOCKS):
        raise ValueError(f"a network is named by digits from 0 to 2, got {network!r}")
    accuracies = [float(accuracy) for accuracy in values["test_acc"]]
    return {
        COLUMN: ", ".join(f"layer{layer}={_BLOCKS[digit]}" for layer, digit in enumerate(network, start=1)),
        "test_accuracy": accuracies[0],
        "test_accuracy_mean": float(np.mean(accuracies)),
        "macs": float(values["flops"]),
        "params": float(values["params"]),
    }
