"""What the columns of a table can't say themselves: a JSON file beside it.

``mine.table.json`` describes ``mine.csv`` (or ``mine.parquet``)::

    {"zero_ops": ["none"], "identity_ops": ["skip_connect"]}
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gemnet.errors import nearest
from gemnet.strict import ConfigError, make
from gemnet.strict_json import JsonError, parse_json
from nas.tables.table import TableError

ZERO_NAMES = ("none", "zero", "zeroize")
IDENTITY_NAMES = ("skip_connect", "skip", "skip_connection", "identity", "id")


@dataclass(frozen=True)
class Description:
    """What a table's author says about it; None where nothing is said.

    Args:
        zero_ops: operations that let nothing through.
        identity_ops: operations that change nothing.
    """

    zero_ops: tuple[str, ...] | None = None
    identity_ops: tuple[str, ...] | None = None

    def check_ops(self, place: Path, vocabulary: Collection[str]) -> None:
        """Raises `TableError` where it names an operation that no cell has, or one as zero and as identity."""
        for key, ops in (("zero_ops", self.zero_ops), ("identity_ops", self.identity_ops)):
            for op in ops or ():
                if op not in vocabulary:
                    raise TableError(f"{place}: {key} names {op!r}, which no cell has.{nearest(op, vocabulary)}")
        for op in set(self.zero_ops or ()) & set(self.identity_ops or ()):
            raise TableError(f"{place}: {op!r} is in zero_ops and in identity_ops; it can be one of them.")

    def remarks(self, place: Path, vocabulary: Collection[str]) -> tuple[str, ...]:
        """A sentence for each kind of operation that names hint at while nothing is said about it."""
        return tuple(
            f"Operation {', '.join(map(repr, found))} {'is' if len(found) == 1 else 'are'} taken to compute something. "
            f"If it {what}, predictors rank cells better where {place} says so: "
            f'{{"{key}": [{", ".join(f"{chr(34)}{op}{chr(34)}" for op in found)}]}} (or [] for none).'
            for key, said, names, what in (
                ("zero_ops", self.zero_ops, ZERO_NAMES, "lets nothing through"),
                ("identity_ops", self.identity_ops, IDENTITY_NAMES, "changes nothing"),
            )
            if said is None and (found := [op for op in vocabulary if op.lower() in names])
        )


def description_file(table: Path) -> Path:
    """Where a table is described: ``mine.table.json`` for ``mine.csv``."""
    return table.with_name(f"{table.stem}.table.json")


def read_description(table: Path) -> tuple[Description, bytes]:
    """What is said about a table, and the file's content; nothing is said where there is no file.

    Raises:
        TableError: no JSON, an unknown key, or a value of a wrong type.
    """
    place = description_file(table)
    if not place.is_file():
        return Description(), b""
    content = place.read_bytes()
    try:
        return make(Description, parse_json(content), ""), content
    except (JsonError, ConfigError) as error:
        raise TableError(f"{place}: {error} docs/tables.md says what it may hold.") from None
