"""Reading tables from Parquet or CSV.

Four forms of the graph are understood, by the columns that hold it:

- ``arch_str``: a NAS-Bench-201 architecture string;
- ``n``, ``adj_bits``, ``ops``: a NAS-Bench-101 cell of n vertices; bit ``7 i + j`` of ``adj_bits`` is the edge i ->
  j, ``ops`` has one digit for each inner vertex (0 = conv3x3, 1 = conv1x1, 2 = maxpool3x3);
- ``genotype``: two cells of the DARTS space, ``Genotype(normal=[...], reduce=[...], ...)``;
- ``graph``: JSON ``{"ops": [...], "edges": [[i, j], ...]}`` as `CellGraph.to_json` writes it, or with operations on
  edges ``{"edges": [[i, j, op], ...]}``, for a table of one's own; or several cells by name, ``{"normal": {...},
  "reduction": {...}}``.

Columns ``block0_e`` to ``block6_se`` are Accel-NASBench's choices (`nas.spaces.accel_nasbench`). Other named choices
stand beside a ``graph`` or alone: in a column ``choices`` (``layer1=mb3_k3, kernel=5``), or in a column each. Which
columns these are, and what operations mean, says a file beside the table (`nas.tables.description`).
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from gemnet.cell_graph import GraphBatch
from gemnet.data.image_set import data_root
from gemnet.errors import nearest
from nas.spaces.accel_nasbench import CHOICES, AccelNASBench
from nas.spaces.base import CandidateBatch, SearchSpace
from nas.spaces.choices import EMPTY_CELL, MOST_CHOICES, ChoiceSpace
from nas.spaces.darts import DARTS
from nas.spaces.nasbench101 import NASBench101
from nas.spaces.nasbench201 import NASBench201
from nas.tables.cells import from_adjacency_bits, from_arch_strings, from_genotypes, from_graphs
from nas.tables.choices import COLUMN, Choices, column_of_texts, read_choices
from nas.tables.description import description_file, read_description
from nas.tables.space import TableSpace
from nas.tables.table import Table, TableError, check_distinct

HW_FILE = "nb201_hwnasbench.parquet"
FILES = {
    "nasbench201": "nb201.parquet",
    "nasbench101": "nb101_valid_30001.parquet",
    "accel_nasbench": "accel_nasbench.parquet",
    "hw_nas_bench": HW_FILE,
}
MOST_VALUES = 500_000_000
"""Rows times columns of a file that is unpacked: equal values take next to no room in one, and all of it in memory."""
BENCHMARKS: Mapping[str, type[SearchSpace]] = {
    "nasbench201": NASBench201,
    "nasbench101": NASBench101,
    "darts": DARTS,
}
GRAPH_COLUMNS = {
    "nasbench201": ("arch_str",),
    "nasbench101": ("n", "adj_bits", "ops"),
    "darts": ("genotype",),
    "own": ("graph",),
}


def find_table(space: str, path: str | Path | None = None) -> Path:
    """The file of a space's table.

    Args:
        space: a key of `FILES`; without a meaning where ``path`` is given.
        path: the file, where it is not in its usual place ``<data root>/nasbench/``. A part of a table is looked for
            there, too, by its number of rows: ``accel_nasbench_4000.parquet``; of several the largest.

    Raises:
        TableError: no such file (the message says which command makes it), or no such benchmark.
    """
    if path is not None:
        place = Path(path).expanduser()
        if not place.is_file():
            raise TableError(f"There is no table at {place}. docs/tables.md says how tables are made.")
        return place
    if space not in FILES:
        raise TableError(f"There is no benchmark {space!r}.{nearest(space, FILES)}")
    place = data_root() / "nasbench" / FILES[space]
    if not place.is_file() and (parts := _parts(place)):
        return parts[-1]
    if not place.is_file():
        raise TableError(
            f"There is no table at {place}. Make it from the official file with 'python tools/benchmark.py convert "
            f"{space} OFFICIAL_FILE --out {place}' (docs/tables.md says where to get that), or set GEMNET_DATA to the "
            "folder that holds nasbench/."
        )
    return place


def _parts(place: Path) -> list[Path]:
    """Files beside a table that hold a part of it, named by their numbers of rows, the smallest first."""
    name = re.compile(re.escape(re.sub(r"_\d+$", "", place.stem)) + rf"_(\d+){re.escape(place.suffix)}")
    found = [(int(match[1]), file) for file in place.parent.glob("*") if (match := name.fullmatch(file.name))]
    return [file for _, file in sorted(found) if file.is_file()]


def read_table(path: str | Path, name: str | None = None, base: SearchSpace | None = None) -> Table:
    """Reads and checks a table.

    Args:
        path: a ``.parquet`` or ``.csv`` file with graphs or choices in one of the forms of the module's docstring, and
            at least one column of numbers.
        name: what messages call it; None takes the file's name.
        base: the space that the rows are candidates of, where there is one: it knows the meaning of their operations
            and choices, and costs. Columns ``macs`` and ``params`` go before its own figures.

    Raises:
        TableError: no such file, another format, no graph or no metric column, an invalid cell (with its row), a cell
            twice.
    """
    path = Path(path).expanduser()
    name = name or path.stem
    described, content = read_description(path)
    columns = _read_columns(path, described.choices if base is None else base.macro_choices)
    beside = description_file(path)
    if not columns or not len(next(iter(columns.values()))):
        raise TableError(f"Table {path} has no rows.")
    kind = _kind(columns)
    benchmark = None if kind in (None, "own") else BENCHMARKS[kind]()
    base = benchmark or base
    if kind is None and base is None and not described.choices and set(CHOICES) <= set(columns):
        base = AccelNASBench()
    choices, used = read_choices(name, columns, described.choices, base)
    if kind is None and not choices.values:
        forms = "; or ".join(", ".join(needed) for needed in GRAPH_COLUMNS.values())
        raise TableError(
            f"Table {path} has no column that holds a graph, and no choices. Expected {forms}; or a column 'choices' "
            f'(layer1=mb3_k3, ...); or columns of choices that {beside.name} beside it names: {{"choices": {{"layer1": '
            f'"categorical"}}}}. It has: {", ".join(columns)}.'
        )
    for choice, taken in choices.values.items():
        if len(taken) > MOST_CHOICES:
            raise TableError(
                f"Choice {choice!r} of table {name!r} has {len(taken):,} values; at most {MOST_CHOICES:,} are told "
                "apart. Is it a metric? Name it otherwise, or round it."
            )
    if benchmark is not None and choices.values:
        raise TableError(
            f"Table {path} has choices beside cells of {benchmark.name!r}. Choices go with a column 'graph'."
        )
    if base is not None and (described.zero_ops is not None or described.identity_ops is not None):
        raise TableError(
            f"{beside} says what operations mean, but space {base.name!r} knows it. Remove zero_ops and identity_ops."
        )
    others = {key: column for key, column in columns.items() if key not in {*GRAPH_COLUMNS.get(kind or "", ()), *used}}
    metrics = _metrics(others)
    texts = {key: _first_text(column) for key, column in others.items() if key not in metrics}
    for key in {"macs", "params"} & set(texts):
        raise TableError(
            f"Column {key!r} of table {name!r} is what limits and predictors go by, but {texts[key]}. Put a positive "
            "number into each row, or give the column another name."
        )
    if not metrics:
        found = "; ".join(f"{key}: {what}" for key, what in texts.items())
        raise TableError(
            f"Table {path} has no column of numbers beside its graphs; a metric to search by is needed."
            f"{f' Other columns: {found}.' if found else ''}"
        )
    if kind == "nasbench101":
        # The official table keeps accuracies as shares of one; ours are percent everywhere.
        metrics = {
            key: values * 100 if re.search("ep_(valid|test)", key) and np.nanmax(values) <= 1 else values
            for key, values in metrics.items()
        }
    base = base or (ChoiceSpace(choices.values, sorted(choices.ordinal)) if kind is None else None)
    batch = _candidates(name, kind, columns, choices, base)
    digest = hashlib.sha256(path.read_bytes() + content).hexdigest()[:16]
    remarks: tuple[str, ...] = ()
    if base is None:
        described.check_ops(beside, batch.graphs.vocabulary)
        remarks = described.remarks(beside, batch.graphs.vocabulary)
    if benchmark is None:
        remarks += _shares(metrics)
    check_distinct(name, TableSpace(name, batch, base, choices=choices.values), batch)
    if kind == "nasbench201" and len(batch) == len(NASBench201().all()):
        batch, metrics = _ordered_201(batch, metrics)
    recorded = {key: metrics[key] for key in ("macs", "params") if key in metrics}
    for key, values in recorded.items():
        _check_cost(name, key, values)
    space: SearchSpace = TableSpace(
        name,
        batch,
        base,
        **recorded,
        zero_ops=described.zero_ops or (),
        identity_ops=described.identity_ops or (),
        choices=choices.values,
        ordinal_choices=choices.ordinal,
    )
    if kind == "nasbench201" and len(batch) == len(NASBench201().all()) and not recorded:
        space = NASBench201()
    return Table(name, space, batch, metrics, digest, texts, remarks)


def _kind(columns: Collection[str]) -> str | None:
    """The form of a table's cells, a key of `GRAPH_COLUMNS`; None where no columns hold any."""
    return next((kind for kind, needed in GRAPH_COLUMNS.items() if all(c in columns for c in needed)), None)


def _read_columns(path: Path, choices: Iterable[str]) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise TableError(f"There is no table at {path}.")
    try:
        if path.suffix == ".parquet":
            holds = pa.parquet.read_metadata(path)
            _check_names(path, holds.schema.to_arrow_schema().names)
            if holds.num_rows * holds.num_columns > MOST_VALUES:
                raise TableError(
                    f"{path} has {holds.num_rows:,} rows of {holds.num_columns} columns; at most {MOST_VALUES:,} "
                    "values are read. Leave out rows or columns."
                )
            table = pa.parquet.read_table(path)
        elif path.suffix == ".csv":
            # Digit strings such as NB101's ops "02001", or a choice's name 007, must not turn into numbers.
            cells = set(GRAPH_COLUMNS.get(_kind(_header(path)) or "", ())) - {"n", "adj_bits"}
            options = pa.csv.ConvertOptions(column_types=dict.fromkeys((*cells, COLUMN, *choices), pa.string()))
            table = pa.csv.read_csv(path, convert_options=options)
        else:
            raise TableError(f"A table is a .parquet or .csv file, got {path}.")
    except pa.ArrowInvalid as error:
        raise TableError(f"{path} can't be read as {path.suffix[1:]}: {error}") from None
    _check_names(path, table.column_names)
    columns = {key: table[key].to_numpy() for key in table.column_names}
    if path.suffix == ".csv":
        columns |= {key: column_of_texts(columns[key]) for key in choices if key in columns}
    return columns


def _header(path: Path) -> list[str]:
    """Names of a CSV file's columns; that all of it is text is seen to here."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
            while file.read(1 << 20):
                pass
    except csv.Error as error:
        raise TableError(f"{path} can't be read as csv: {error}.") from None
    except UnicodeDecodeError as error:
        raise TableError(
            f"{path} is no text in UTF-8 ({error.reason} {error.object[error.start]:#04x}). Save it as UTF-8: "
            "spreadsheets call it 'CSV UTF-8'."
        ) from None
    return names


def _check_names(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise TableError(f"{path} has two columns {twice[0]!r}. Remove one, or give it another name.")


def _metrics(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    return {key: column.astype(np.float64) for key, column in columns.items() if column.dtype.kind in "iuf"}


def _shares(metrics: Mapping[str, NDArray[np.float64]]) -> tuple[str, ...]:
    """What to say of accuracies that look like shares of one."""
    found = [
        repr(key)
        for key, values in metrics.items()
        if re.search("acc|top.?[15]|valid|test", key.lower()) and 0 <= np.nanmin(values) < np.nanmax(values) <= 1
    ]
    if not found:
        return ()
    names = ", ".join(found[:4]) + ", ..." * (len(found) > 4)
    return (
        f"{names}: all values lie between 0 and 1. Accuracies are taken for percent; if these are shares of one, "
        "multiply them by 100.",
    )


def _first_text(column: NDArray[Any]) -> str:
    """Where a column holds no number, and what; the first such row."""
    for row, value in enumerate(column.tolist()):
        try:
            float(value)
        except (TypeError, ValueError):
            return f"row {row} holds {_shown(value)}"
    return f"its values are of type {column.dtype}"


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value if len(str(value)) <= 40 else f"{str(value)[:37]}...")


def _candidates(
    name: str, kind: str | None, columns: Mapping[str, NDArray[Any]], choices: Choices, base: SearchSpace | None
) -> CandidateBatch:
    """The rows as candidates; ``kind`` is the form of their cells, a key of `GRAPH_COLUMNS`, or None for no cells."""
    if kind == "nasbench201":
        return from_arch_strings(name, columns["arch_str"])
    if kind == "nasbench101":
        return from_adjacency_bits(name, columns["n"], columns["adj_bits"], columns["ops"])
    if kind == "darts":
        return from_genotypes(name, columns["genotype"])
    cells = [EMPTY_CELL] * len(choices.rows)
    if kind is not None:
        cells = from_graphs(name, columns["graph"], choices.rows, base)
    vocabulary = base.vocabulary if base is not None else sorted({op for cell in cells for op in cell.ops})
    codes = [[choices.values[choice].index(value) for choice, value in row] for row in choices.rows]
    macro = np.array(codes, dtype=np.int16).reshape(len(cells), len(choices.values))
    return CandidateBatch(GraphBatch.from_graphs(cells, vocabulary), macro)


def _check_cost(name: str, key: str, values: NDArray[np.float64]) -> None:
    bad = np.flatnonzero(~(values > 0) | ~np.isfinite(values))
    if len(bad):
        raise TableError(
            f"Column {key!r} of table {name!r} is what limits and predictors go by, but row {bad[0]} holds "
            f"{values[bad[0]]:g}. Put a positive number into each row, or give the column another name."
        )


def _ordered_201(
    batch: CandidateBatch, metrics: dict[str, NDArray[np.float64]]
) -> tuple[CandidateBatch, dict[str, NDArray[np.float64]]]:
    """A complete table in the order of the space's own list."""
    everything = NASBench201().all()
    row_of = {ops.tobytes(): row for row, ops in enumerate(batch.graphs.ops)}
    order = np.array([row_of[ops.tobytes()] for ops in everything.graphs.ops], dtype=np.intp)
    return everything, {key: values[order] for key, values in metrics.items()}
