"""A CSV that is only ever added to: how long computations keep what is done."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar, get_type_hints

from filelock import FileLock

from gemnet.errors import GemnetError

R = TypeVar("R")


class CsvLogError(GemnetError):
    """A file that is not what is written here."""


class CsvLog:
    """Rows of text in a file, each on the disk before the next is made.

    A last line that a killed process left unfinished is dropped when the next row is added. Several processes may add
    to one file: rows of others stay, and come after those that were there.

    Args:
        path: the file; made with its folder when the first row is added.
        columns: its columns.

    Attributes:
        rows: what the file holds, as text by column.

    Raises:
        CsvLogError: the file has other columns, or a line with too few or too many values.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)
        self.rows: list[dict[str, str]] = []
        self._end = 0  # of the last complete line, in bytes
        self._read()

    def add(self, row: Mapping[str, object]) -> dict[str, str]:
        """Adds a row, and returns it as text when it is on the disk."""
        values = {name: str(row[name]) for name in self.columns}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            self._read()  # what others have added since
            text = io.StringIO()
            writer = csv.DictWriter(text, self.columns, lineterminator="\n")
            if not self._end:
                writer.writeheader()
            writer.writerow(values)
            with self.path.open("ab") as file:
                file.truncate(self._end)
                file.write(text.getvalue().encode())
                file.flush()
                os.fsync(file.fileno())
                self._end = file.tell()
        self.rows.append(values)
        return values

    def _read(self) -> None:
        """Reads what the file holds beyond what is known of it."""
        if not self.path.is_file():
            self._end = 0  # taken away: begun anew
            return
        with self.path.open("rb") as file:
            header = file.readline() if self._end else b""
            if self._end > file.seek(0, os.SEEK_END):
                raise CsvLogError(
                    f"{self.path} is shorter than it was: something else writes to it. The row is not added."
                )
            file.seek(self._end)
            content = file.read()
        complete = content[: content.rfind(b"\n") + 1]
        self._end += len(complete)
        if complete:
            self._take((header + complete).decode(errors="replace"))  # what is no text is no table

    def _take(self, complete: str) -> None:
        reader = csv.DictReader(io.StringIO(complete, newline=""))
        if tuple(reader.fieldnames or ()) != self.columns:
            raise CsvLogError(
                f"{self.path} has the columns {', '.join(reader.fieldnames or ())}, but what is written here has "
                f"{', '.join(self.columns)}. Write to another file or folder, or move this file away."
            )
        for row in reader:
            if None in row or None in row.values():
                raise CsvLogError(
                    f"{self.path}, line {reader.line_num}: {len(self.columns)} values are expected. Mend or delete the "
                    "line."
                )
            self.rows.append(row)


def columns_of(kind: type) -> list[str]:
    """Columns of a log that holds a dataclass of numbers and texts."""
    return [item.name for item in fields(kind)]


def records(log: CsvLog, kind: type[R]) -> list[R]:
    """A log's rows as that dataclass.

    Raises:
        CsvLogError: a value that is no number where one is expected.
    """
    kinds = get_type_hints(kind)
    found = []
    for number, row in enumerate(log.rows, 1):
        try:
            found.append(kind(**{name: kinds[name](row[name]) for name in columns_of(kind)}))
        except ValueError as error:
            raise CsvLogError(f"{log.path}, row {number}: {error}. Mend or delete the row.") from None
    return found
