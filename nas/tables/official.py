"""Converters from the benchmarks' official files to the tables that `read_table` reads.

NAS-Bench-201 and NATS-Bench come as pickles, which are read without running any code in them
(`nas.tables.plain_pickle`). NAS-Bench-101 comes as TFRecords of JSON with a protocol buffer inside; both formats are
short enough to be read here (tensorflow.org/tutorials/load_data/tfrecord, protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

from gemnet.strict_json import parse_json
from nas.spaces.base import SpaceError
from nas.spaces.nasbench101 import VOCABULARY as VOCABULARY_101
from nas.spaces.nasbench101 import cell_from_spec
from nas.tables.accel_nasbench import accel_nasbench_records
from nas.tables.hw_nas_bench import hw_nas_bench_records
from nas.tables.nas_bench_macro import nas_bench_macro_records
from nas.tables.nasbench301 import nasbench301_records
from nas.tables.plain_pickle import read_pickle, scalar_of_numpy
from nas.tables.table import TableError

Record = dict[str, Any]

# Output column -> (training: "less" 12 epochs or "full" 200, data set, split, seeds: None all, else the first of
# these there is).
COLUMNS_201: Mapping[str, tuple[str, str, str, tuple[int, ...] | None]] = {
    "c10_valid_12ep": ("less", "cifar10-valid", "x-valid", None),
    "c10_test_12ep": ("less", "cifar10", "ori-test", None),
    "c100_valid_12ep": ("less", "cifar100", "x-valid", None),
    "c100_test_12ep": ("less", "cifar100", "x-test", None),
    "in16_valid_12ep": ("less", "ImageNet16-120", "x-valid", None),
    "in16_test_12ep": ("less", "ImageNet16-120", "x-test", None),
    "c10_valid_200ep_1seed": ("full", "cifar10-valid", "x-valid", (777, 888, 999)),
    "c100_valid_200ep_1seed": ("full", "cifar100", "x-valid", (777, 888, 999)),
    "in16_valid_200ep_1seed": ("full", "ImageNet16-120", "x-valid", (777, 888, 999)),
    "c10_test_200ep_mean": ("full", "cifar10", "ori-test", None),
    "c100_test_200ep_mean": ("full", "cifar100", "x-test", None),
    "in16_test_200ep_mean": ("full", "ImageNet16-120", "x-test", None),
}


def convert(kind: str, source: str | Path, out: str | Path) -> int:
    """Writes the table of an official benchmark as Parquet; returns its number of rows.

    The file appears under its name only when it is complete.

    Args:
        kind: "nasbench201", "nasbench101", "nasbench301", "accel_nasbench", "hw_nas_bench" or "nas_bench_macro".
        source: ``NAS-Bench-201-v1_*.pth``, a folder ``NATS-tss-v1_0-*``, a NAS-Bench-101 ``.tfrecord``, NAS-Bench-301's
            ``nb_301_*.zip`` or the folder in it, Accel-NASBench's ``anb_dataset_jsons.tar.gz`` or the folder in it,
            ``HW-NAS-Bench-v1_0.pickle``, or ``nas-bench-macro_cifar10.json``.
        out: the ``.parquet`` file to write; it may not exist.

    Raises:
        TableError: no such source, another format, or ``out`` exists.
    """
    source, out = Path(source), Path(out)
    readers = {
        "nasbench201": nasbench201_records,
        "nasbench101": nasbench101_records,
        "nasbench301": nasbench301_records,
        "accel_nasbench": accel_nasbench_records,
        "hw_nas_bench": hw_nas_bench_records,
        "nas_bench_macro": nas_bench_macro_records,
    }
    if kind not in readers:
        raise TableError(f"Official tables of {', '.join(readers)} can be converted, not of {kind!r}.")
    if not source.exists():
        raise TableError(f"There is no {source}. docs/tables.md says where to get the official files.")
    if out.suffix != ".parquet":
        raise TableError(f"The table is written as .parquet, got the name {out}.")
    if out.exists():
        raise TableError(f"{out} exists already. Choose another --out, or remove it.")
    records = list(readers[kind](source))
    if not records:
        raise TableError(f"{source} holds no cells.")
    out.parent.mkdir(parents=True, exist_ok=True)
    half = out.with_suffix(".part")
    pa.parquet.write_table(pa.Table.from_pylist(records), half)
    half.replace(out)
    return len(records)


def nasbench201_records(source: Path) -> Iterator[Record]:
    """Rows of NAS-Bench-201 from its ``.pth`` file or from NATS-Bench's folder for the topology space."""
    if source.is_dir():
        files = sorted(path for path in source.glob("*.pickle.pbz2") if path.name[:6].isdigit())
        if not files:
            raise TableError(
                f"{source} holds no files such as 000000.pickle.pbz2; give NATS-Bench's folder NATS-tss-v1_0-*."
            )
        for path in files:
            entry = read_pickle(path)
            yield _record_201(path.name, {"less": entry.get("12"), "full": entry.get("200")})
        return
    if tarfile.is_tarfile(source):
        raise TableError(
            f"{source} is an archive that is not unpacked. Unpack it (tar -xf {source.name}) and give the folder "
            "NATS-tss-v1_0-* in it."
        )
    try:
        # weights_only: torch's own restricted unpickler.
        with torch.serialization.safe_globals([scalar_of_numpy(), np.dtype, *_dtypes()]):
            content = torch.load(source, map_location="cpu", weights_only=True)
        entries = content["arch2infos"]
    except Exception as error:  # a file that is no such table fails anywhere in torch's unpickler
        # torch's own messages advise to load such a file without restrictions, which runs whatever is in it.
        reason = "it asks for more than numbers, texts and containers" if "weights_only" in str(error) else error
        raise TableError(
            f"{source} is no NAS-Bench-201 file (NAS-Bench-201-v1_0-*.pth or v1_1): "
            f"{(str(reason) or type(error).__name__).splitlines()[0]}. It is not read."
        ) from None
    for index, entry in entries.items():
        yield _record_201(f"entry {index}", entry)


def _record_201(place: str, entry: Mapping[str, Any]) -> Record:
    full = entry.get("full")
    if not isinstance(full, Mapping) or "all_results" not in full or "arch_str" not in full:
        raise TableError(f"{place} has no 200-epoch results in the form of NAS-Bench-201.")
    record: Record = {"arch_index": int(full["arch_index"]), "arch_str": str(full["arch_str"])}
    for column, (training, data, split, seeds) in COLUMNS_201.items():
        results = (entry.get(training) or {}).get("all_results", {})
        runs = {seed: result for (name, seed), result in results.items() if name == data}
        chosen = list(runs.values()) if seeds is None else [runs[seed] for seed in seeds if seed in runs][:1]
        values = [float(run["eval_acc1es"][f"{split}@{int(run['epochs']) - 1}"]) for run in chosen]
        record[column] = float(np.mean(values)) if values else math.nan
    run = next((run for (name, _), run in full["all_results"].items() if name.startswith("cifar10")), None)
    if run is not None:
        record["params_c10"] = round(float(run["params"]) * 1e6)  # kept in millions
        record["seconds_c10"] = float(sum(run["train_times"].values())) if run["train_times"] else math.nan
    return record


def _dtypes() -> list[type]:
    return [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")]


def nasbench101_records(source: Path) -> Iterator[Record]:
    """Rows of NAS-Bench-101 from ``nasbench_full.tfrecord`` or ``nasbench_only108.tfrecord``, by module hash."""
    cells: dict[str, Record] = {}
    runs: dict[str, dict[int, list[dict[int, Any]]]] = defaultdict(lambda: defaultdict(list))
    with source.open("rb") as file:
        for number, record in enumerate(_tfrecords(file, source)):
            try:
                name, epochs, adjacency, operations, metrics = parse_json(record)
                message = _message(base64.b64decode(metrics, validate=True))
                final = _message(message[1][2])
                if name not in cells:
                    cells[name] = _cell_101(name, adjacency, operations.split(","), int(message[2][0]))
            except (ValueError, KeyError, IndexError, TypeError, binascii.Error) as error:
                raise TableError(f"Record {number} of {source} is no NAS-Bench-101 entry: {error}") from None
            runs[name][int(epochs)].append({field: values[0] for field, values in final.items()})
    for name in sorted(cells):
        row = cells[name]
        for epochs, entries in sorted(runs[name].items()):
            row[f"{epochs}ep_valid"] = entries[0][4]
            row[f"{epochs}ep_valid_mean"] = float(np.mean([entry[4] for entry in entries]))
            row[f"{epochs}ep_test_mean"] = float(np.mean([entry[5] for entry in entries]))
            row["final_training_time"] = entries[0][2]
        yield row


def _cell_101(name: str, adjacency: str, operations: list[str], params: int) -> Record:
    size = math.isqrt(len(adjacency))
    matrix = np.array([int(digit) for digit in adjacency]).reshape(size, size)
    try:
        cell = cell_from_spec(matrix, operations)
    except SpaceError as error:
        raise ValueError(str(error)) from None
    return {
        "hash": name,
        "n": cell.size,
        "adj_bits": sum(1 << (7 * i + j) for i, j in cell.edges),
        "ops": "".join(str(VOCABULARY_101.index(op)) for op in cell.ops),
        "n_edges": len(cell.edges),
        "trainable_parameters": params,
    }


def _tfrecords(file: IO[bytes], source: Path) -> Iterator[bytes]:
    """Payloads of a TFRecord file: length (8 bytes), its checksum (4), payload, its checksum (4)."""
    while header := file.read(12):
        length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else -1
        if not 0 <= length < 1 << 24:
            raise TableError(f"{source} is no TFRecord file, or is damaged at byte {file.tell() - len(header)}.")
        payload = file.read(length + 4)
        if len(payload) < length + 4:
            raise TableError(f"{source} ends within a record; download it again.")
        yield payload[:length]


def _message(data: bytes) -> dict[int, list[Any]]:
    """Fields of a protocol buffer by number: varints as integers, doubles, and bytes for everything of given length."""
    fields: dict[int, list[Any]] = {}
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        value: Any
        if kind == 0:
            value, place = _varint(data, place)
        elif kind == 1:
            value, place = struct.unpack_from("<d", data, place)[0], place + 8
        elif kind == 2:
            length, place = _varint(data, place)
            if place + length > len(data):
                raise ValueError("a protocol buffer field runs past the end")
            value, place = data[place : place + length], place + length
        elif kind == 5:
            value, place = struct.unpack_from("<f", data, place)[0], place + 4
        else:
            raise ValueError(f"a protocol buffer field of unknown kind {kind}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data):
            raise ValueError("a protocol buffer ends within a number")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
