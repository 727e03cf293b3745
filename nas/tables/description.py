"""What the columns of a table can't say themselves: a JSON file beside it.

``mine.table.json`` describes ``mine.csv`` (or ``mine.parquet``)::

    {"zero_ops": ["none"], "identity_ops": ["skip_connect"],
     "choices": {"layer1": "categorical", "kernel": "ordinal", "size": ["small", "medium", "large"]}}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemnet.errors import nearest
from gemnet.strict import ConfigError, make
from gemnet.strict_json import JsonError, parse_json
from nas.spaces.several_cells import operation_of
from nas.tables.table import TableError

ZERO_NAMES = ("none", "zero", "zeroize")
IDENTITY_NAMES = ("skip_connect", "skip", "skip_connection", "identity", "id")


@dataclass(frozen=True)
class Description:
    """What a table's author says about it; None where nothing is said.

    Args:
        zero_ops: operations that let nothing through.
        identity_ops: operations that change nothing.
        choices: columns that hold choices, and their kind: "ordinal" for numbers, "categorical", or the values in
            order.
    """

    zero_ops: tuple[str, ...] | None = None
    identity_ops: tuple[str, ...] | None = None
    choices: Mapping[str, str | Sequence[Any]] = field(default_factory=dict)

    def check_ops(self, place: Path, vocabulary: Collection[str]) -> None:
        """Raises `TableError` where it names an operation that no cell has, or one as zero and as identity."""
        for key, ops in (("zero_ops", self.zero_ops), ("identity_ops", self.identity_ops)):
            known = {operation_of(label) for label in vocabulary}
            for op in ops or ():
                if op not in known:
                    raise TableError(f"{place}: {key} names {op!r}, which no cell has.{nearest(op, known)}")
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
            if said is None and (found := sorted({operation_of(op) for op in vocabulary} & set(names)))
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
