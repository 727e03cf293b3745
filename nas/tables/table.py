"""A table of cells and what was measured on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gemnet.errors import GemnetError, nearest
from nas.spaces.base import CandidateBatch, SearchSpace
from nas.spaces.isomorphism import CandidateIndex, wl_hash


class TableError(GemnetError):
    """A table that is missing, lacks columns, or holds what it may not hold."""


@dataclass(frozen=True, eq=False)
class Table:
    """Cells and their metrics.

    Args:
        name: the space's name, or the file's where it is a user's own.
        space: the space whose candidates the rows are; ``space.all()`` is ``batch``.
        batch: the cells, n of them, no two isomorphic.
        metrics: column name -> float64 (n,); accuracies in percent.
        fingerprint: changes when the file's content does.
        texts: of each column that holds something else than numbers: where, and what.
        remarks: what its reader should be told, a sentence each.
    """

    name: str
    space: SearchSpace
    batch: CandidateBatch
    metrics: Mapping[str, NDArray[np.float64]]
    fingerprint: str
    texts: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.batch)

    def metric(self, name: str) -> NDArray[np.float64]:
        """A metric of all cells, (n,).

        Raises:
            TableError: there is no such metric, or it is not a number in some rows.
        """
        if name in self.texts:
            raise TableError(
                f"Column {name!r} of table {self.name!r} is no metric: {self.texts[name]}. Put numbers there, or leave "
                "the rows without one out."
            )
        if name not in self.metrics:
            raise TableError(f"Table {self.name!r} has no metric {name!r}.{nearest(name, self.metrics)}")
        values = self.metrics[name]
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise TableError(
                f"Metric {name!r} of table {self.name!r} is missing or not finite in {len(bad)} of {len(values)} rows "
                f"(first: row {bad[0]}). Fill these in or drop the rows."
            )
        return values

    def joined(self, other: Table) -> Table:
        """This table with the metrics of another over the same cells.

        Raises:
            TableError: a cell of this table is not in the other one.
        """
        index = CandidateIndex(other.space, other.batch)
        rows = [index.find(self.space.unpack(self.batch, k)) for k in range(len(self))]
        missing = [k for k, row in enumerate(rows) if row is None]
        if missing:
            raise TableError(
                f"{len(missing)} of the {len(self)} cells of table {self.name!r} are not in {other.name!r} "
                f"(first: row {missing[0]})."
            )
        order = np.array(rows, dtype=np.intp)
        extra = {name: values[order] for name, values in other.metrics.items() if name not in self.metrics}
        return Table(
            self.name,
            self.space,
            self.batch,
            {**self.metrics, **extra},
            self.fingerprint + other.fingerprint,
            self.texts,
            self.remarks,
        )


def check_distinct(name: str, space: SearchSpace, batch: CandidateBatch) -> None:
    """Raises `TableError`, naming two rows, where two rows hold isomorphic cells."""
    groups: dict[int, list[int]] = {}
    for row, value in enumerate(wl_hash(batch).tolist()):
        groups.setdefault(value, []).append(row)
    for rows in groups.values():
        if len(rows) == 1:
            continue
        seen: dict[object, int] = {}
        for row in rows:
            key = space.unpack(batch, row).key()
            if key in seen:
                raise TableError(
                    f"Rows {seen[key]} and {row} of table {name!r} hold the same cell (isomorphic graphs). "
                    "Keep one of them, or average their metrics."
                )
            seen[key] = row
