"""Reading tables from Parquet or CSV.

Three forms of the graph are understood, by the columns that hold it:

- ``arch_str``: a NAS-Bench-201 architecture string;
- ``n``, ``adj_bits``, ``ops``: a NAS-Bench-101 cell of n vertices; bit ``7 i + j`` of ``adj_bits`` is the edge i ->
  j, ``ops`` has one digit for each inner vertex (0 = conv3x3, 1 = conv1x1, 2 = maxpool3x3);
- ``graph``: JSON ``{"ops": [...], "edges": [[i, j], ...]}`` as `CellGraph.to_json` writes it, for a table of one's own.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from gemnet.cell_graph import FIRST_OP_CODE, INPUT_CODE, OUTPUT_CODE, CellGraph, GraphBatch
from gemnet.errors import GraphError, nearest
from gemnet.strict_json import JsonError, parse_json
from nas.spaces.base import Candidate, CandidateBatch, SearchSpace, SpaceError
from nas.spaces.nasbench101 import MAX_EDGES, MAX_VERTICES, NASBench101
from nas.spaces.nasbench101 import VOCABULARY as VOCABULARY_101
from nas.spaces.nasbench201 import NASBench201, cell_from_arch
from nas.tables.space import TableSpace
from nas.tables.table import Table, TableError, check_distinct

FILES = {"nasbench201": "nb201.parquet", "nasbench101": "nb101_valid_30001.parquet"}
HW_FILE = "nb201_hwnasbench.parquet"
GRAPH_COLUMNS = {"nasbench201": ("arch_str",), "nasbench101": ("n", "adj_bits", "ops"), "own": ("graph",)}


def data_root() -> Path:
    """The folder of data sets: ``GEMNET_DATA``, else ``data``."""
    return Path(os.environ.get("GEMNET_DATA", "data"))


def find_table(space: str, path: str | Path | None = None) -> Path:
    """The file of a space's table.

    Args:
        space: "nasbench201" or "nasbench101"; without a meaning where ``path`` is given.
        path: the file, where it is not in its usual place ``<data root>/nasbench/``.

    Raises:
        TableError: no such file (the message says which command makes it), or no such benchmark.
    """
    if path is not None:
        place = Path(path)
        if not place.is_file():
            raise TableError(f"There is no table at {place}. docs/tables.md says how tables are made.")
        return place
    if space not in FILES:
        raise TableError(f"There is no benchmark {space!r}.{nearest(space, FILES)}")
    place = data_root() / "nasbench" / FILES[space]
    if not place.is_file():
        raise TableError(
            f"There is no table at {place}. Make it from the official file with 'python tools/benchmark.py convert "
            f"{space} OFFICIAL_FILE --out {place}' (docs/tables.md says where to get that), or set GEMNET_DATA to the "
            "folder that holds nasbench/."
        )
    return place


def read_table(path: str | Path, name: str | None = None, base: SearchSpace | None = None) -> Table:
    """Reads and checks a table.

    Args:
        path: a ``.parquet`` or ``.csv`` file with a graph in one of the three forms (module docstring) and at least
            one column of numbers.
        name: what messages call it; None takes the file's name.
        base: the space that cells in column ``graph`` come from, where there is one: it knows their operations' meaning
            and costs.

    Raises:
        TableError: no such file, another format, no graph or no metric column, an invalid cell (with its row), a cell
            twice.
    """
    path = Path(path)
    columns = _read_columns(path)
    name = name or path.stem
    kind = next((kind for kind, needed in GRAPH_COLUMNS.items() if all(c in columns for c in needed)), None)
    if kind is None:
        forms = "; or ".join(", ".join(needed) for needed in GRAPH_COLUMNS.values())
        raise TableError(
            f"Table {path} has no column that holds a graph. Expected {forms}. It has: {', '.join(columns)}."
        )
    if not len(next(iter(columns.values()))):
        raise TableError(f"Table {path} has no rows.")
    others = {key: column for key, column in columns.items() if key not in GRAPH_COLUMNS[kind]}
    metrics = _metrics(others)
    texts = {key: _first_text(column) for key, column in others.items() if key not in metrics}
    if not metrics:
        found = "; ".join(f"{key}: {what}" for key, what in texts.items())
        raise TableError(
            f"Table {path} has no column of numbers beside its graphs; a metric to search by is needed."
            f"{f' Other columns: {found}.' if found else ''}"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    space: SearchSpace
    if kind == "nasbench201":
        batch = _nasbench201(name, columns["arch_str"])
        check_distinct(name, NASBench201(), batch)
        space, batch, metrics = _ordered_201(name, batch, metrics)
    elif kind == "nasbench101":
        batch = _nasbench101(name, columns["n"], columns["adj_bits"], columns["ops"])
        check_distinct(name, NASBench101(), batch)
        space = TableSpace(name, batch, base=NASBench101())
        # The official table keeps accuracies as shares of one; ours are percent everywhere.
        metrics = {
            key: values * 100 if re.search("ep_(valid|test)", key) and np.nanmax(values) <= 1 else values
            for key, values in metrics.items()
        }
    else:
        batch = _own(name, columns["graph"], base)
        space = TableSpace(name, batch, base, macs=metrics.get("macs"), params=metrics.get("params"))
        check_distinct(name, space, batch)
    return Table(name, space, batch, metrics, digest, texts)


def _read_columns(path: Path) -> dict[str, NDArray]:
    if not path.is_file():
        raise TableError(f"There is no table at {path}.")
    try:
        if path.suffix == ".parquet":
            table = pa.parquet.read_table(path)
        elif path.suffix == ".csv":
            # Digit strings such as NB101's ops "02001" must not turn into numbers.
            options = pa.csv.ConvertOptions(
                column_types={"ops": pa.string(), "graph": pa.string(), "arch_str": pa.string()}
            )
            table = pa.csv.read_csv(path, convert_options=options)
        else:
            raise TableError(f"A table is a .parquet or .csv file, got {path}.")
    except pa.ArrowInvalid as error:
        raise TableError(f"{path} can't be read as {path.suffix[1:]}: {error}") from None
    return {key: table[key].to_numpy() for key in table.column_names}


def _metrics(columns: Mapping[str, NDArray]) -> dict[str, NDArray[np.float64]]:
    return {key: column.astype(np.float64) for key, column in columns.items() if column.dtype.kind in "iuf"}


def _first_text(column: NDArray) -> str:
    """Where a column holds no number, and what; the first such row."""
    for row, value in enumerate(column.tolist()):
        try:
            float(value)
        except (TypeError, ValueError):
            return f"row {row} holds {_shown(value)}"
    return f"its values are of type {column.dtype}"


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value if len(str(value)) <= 40 else f"{str(value)[:37]}...")


def _nasbench201(name: str, strings: NDArray) -> CandidateBatch:
    cells = []
    for row, text in enumerate(strings):
        try:
            cells.append(cell_from_arch(str(text)))
        except SpaceError as error:
            raise TableError(f"Row {row} of table {name!r}: {error}") from None
    space = NASBench201()
    return CandidateBatch(GraphBatch.from_graphs(cells, space.vocabulary), np.zeros((len(cells), 0), dtype=np.int16))


def _ordered_201(
    name: str, batch: CandidateBatch, metrics: dict[str, NDArray[np.float64]]
) -> tuple[SearchSpace, CandidateBatch, dict[str, NDArray[np.float64]]]:
    """A complete table in the order of the space's own list; a partial one as a space of its own."""
    space = NASBench201()
    everything = space.all()
    if len(batch) < len(everything):
        return TableSpace(name, batch, base=space), batch, metrics
    row_of = {ops.tobytes(): row for row, ops in enumerate(batch.graphs.ops)}
    order = np.array([row_of[ops.tobytes()] for ops in everything.graphs.ops], dtype=np.intp)
    return space, everything, {key: values[order] for key, values in metrics.items()}


def _nasbench101(name: str, sizes: NDArray, bits: NDArray, ops: NDArray) -> CandidateBatch:
    for row, (size, digits) in enumerate(zip(sizes.tolist(), ops.tolist(), strict=True)):
        if not 2 <= size <= MAX_VERTICES or len(digits) != size - 2 or set(digits) - set("012"):
            raise TableError(
                f"Row {row} of table {name!r}: a NAS-Bench-101 cell has 2 to {MAX_VERTICES} vertices and a digit 0, 1 "
                f"or 2 for each inner one, got n = {size} and ops = {digits!r}."
            )
    n = len(sizes)
    codes = np.zeros((n, MAX_VERTICES), dtype=np.uint8)
    codes[:, 0] = INPUT_CODE
    for row, digits in enumerate(ops.tolist()):
        codes[row, 1 : len(digits) + 1] = [FIRST_OP_CODE + int(d) for d in digits]
        codes[row, len(digits) + 1] = OUTPUT_CODE
    shifts = np.arange(MAX_VERTICES, dtype=np.int64) * MAX_VERTICES
    successors = ((bits.astype(np.int64)[:, None] >> shifts) & (2**MAX_VERTICES - 1)).astype(np.uint32)
    graphs = GraphBatch(VOCABULARY_101, sizes.astype(np.uint8), codes, successors)
    places = np.arange(MAX_VERTICES)
    inside = places < sizes[:, None]
    allowed = np.where(inside, (2 ** sizes[:, None].astype(np.int64) - 1) & ~(2 ** (places + 1) - 1), 0)
    rules = {
        "an edge is a loop, runs backwards or leaves the cell": (successors & ~allowed.astype(np.uint32)).any(axis=1),
        "a vertex lies on no path from input to output": (graphs.live() != inside).any(axis=1),
        f"it has more than {MAX_EDGES} edges": np.bitwise_count(successors).sum(axis=1) > MAX_EDGES,
    }
    for reason, broken in rules.items():
        if broken.any():
            raise TableError(f"Row {int(np.argmax(broken))} of table {name!r} is no NAS-Bench-101 cell: {reason}.")
    return CandidateBatch(graphs, np.zeros((n, 0), dtype=np.int16))


def _own(name: str, texts: NDArray, base: SearchSpace | None) -> CandidateBatch:
    cells = []
    for row, text in enumerate(texts):
        try:
            cells.append(CellGraph.from_json(parse_json(text) if isinstance(text, str | bytes) else text))
            if base is not None:
                base.check(Candidate(cells[-1]))
        except (GraphError, SpaceError, JsonError) as error:
            raise TableError(f"Row {row} of table {name!r}, column 'graph': {error}") from None
    vocabulary = base.vocabulary if base is not None else sorted({op for cell in cells for op in cell.ops})
    return CandidateBatch(GraphBatch.from_graphs(cells, vocabulary), np.zeros((len(cells), 0), dtype=np.int16))
