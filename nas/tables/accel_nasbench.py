"""Rows of Accel-NASBench from the JSON files that its authors publish, one a network."""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gemnet.strict_json import JsonError, parse_json
from nas.spaces.accel_nasbench import CHOICES
from nas.tables.table import TableError

_FILE = re.compile(r"result_(\d+)\.json")
_MOST_BYTES = 1 << 20  # of one network's file, which has one and a half thousand


def accel_nasbench_records(source: Path) -> Iterator[dict[str, Any]]:
    """Rows from ``anb_dataset_jsons.tar.gz``, or from the folder that is in it.

    A row has the choices, ``val_top1``, ``val_top5`` and ``train_seconds`` of the proxy training, ``macs`` and
    ``params`` as published, and ``<device>_latency`` (ms) or ``<device>_throughput`` (images/s), empty where they were
    not measured. Of a network that was trained twice the file with the lower number is kept.

    Raises:
        TableError: no such files, or one in another form.
    """
    seen = set()
    for name, content in sorted(_files(source), key=lambda file: int(_FILE.sub(r"\1", file[0]))):
        try:
            row = _row(parse_json(content))
        except (JsonError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise TableError(f"{name} of {source} is no network of Accel-NASBench: {error}.") from None
        network = tuple(row[choice] for choice in CHOICES)
        if network not in seen:
            seen.add(network)
            yield row


def _files(source: Path) -> list[tuple[str, bytes]]:
    if source.is_dir():
        found = [(path.name, path.read_bytes()) for path in source.rglob("*.json") if _FILE.fullmatch(path.name)]
    else:
        try:
            with tarfile.open(source) as archive:
                members = [m for m in archive if m.isfile() and _FILE.fullmatch(Path(m.name).name)]
                found = [
                    (Path(member.name).name, file.read(_MOST_BYTES))
                    for member in members
                    if (file := archive.extractfile(member)) is not None
                ]
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise TableError(f"{source} is not Accel-NASBench's anb_dataset_jsons.tar.gz: {error}.") from None
    if not found:
        raise TableError(f"{source} holds no files such as result_0.json; give anb_dataset_jsons.tar.gz.")
    return found


def _row(network: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for choice, values in CHOICES.items():
        value = int(network["architecture"][choice])
        if value not in values:
            raise ValueError(f"{choice} is one of {values}, got {value}")
        row[choice] = value
    metrics, costs = network["metrics"], network["model_info"]
    row |= {"val_top1": float(metrics["val_top1"]), "val_top5": float(metrics["val_top5"])}
    row |= {"train_seconds": float(metrics["train_time"])}
    row |= {"macs": float(costs["macs"]) * 1e6, "params": float(round(float(costs["params"]) * 1e6))}
    for measured, values in network["platform_perf"].items():
        what, _, device = measured.partition("_")
        value = values[f"{what}_mean"]
        row[f"{device}_{what}"] = None if value is None else float(value)
    return row
