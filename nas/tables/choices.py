"""Named choices from the columns of a table: one column ``choices`` with all of them, or a column each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemnet.errors import nearest
from gemnet.strict_json import JsonError, parse_json
from nas.spaces.base import Choice, SearchSpace
from nas.tables.table import TableError

COLUMN = "choices"
_NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Choices:
    """The choices of a table's n rows.

    Args:
        values: name -> its values, in order where they are ordinal.
        ordinal: names of those that are in order although they are no numbers.
        rows: the choices of each row, (name, value) pairs in the order of ``values``.
    """

    values: Mapping[str, tuple[Choice, ...]]
    ordinal: frozenset[str]
    rows: Sequence[tuple[tuple[str, Choice], ...]]


def read_choices(
    name: str, columns: Mapping[str, NDArray[Any]], said: Mapping[str, str | Sequence[Any]], base: SearchSpace | None
) -> tuple[Choices, set[str]]:
    """The choices of a table, none where it has none; and the columns they stand in.

    Args:
        name: the table's, for messages.
        columns: all columns, each (n,).
        said: what the table's description says of choices (`Description`).
        base: the space the rows are candidates of, whose choices these then are; or None.

    Raises:
        TableError: a column or value that is missing, or values that are not of the kind that was said.
    """
    if base is not None:
        for choice in said:
            if choice not in base.macro_choices:
                raise TableError(
                    f"Choice {choice!r} of table {name!r} is none of space {base.name!r}, whose candidates it holds."
                    + (nearest(choice, base.macro_choices) if base.macro_choices else " It has none.")
                )
        said = {choice: list(values) for choice, values in base.macro_choices.items()}
    found = _from_one_column(name, columns[COLUMN]) if COLUMN in columns else {}
    used = {COLUMN} & set(columns)
    for choice in said:
        if choice in found:
            continue
        if choice not in columns:
            raise TableError(f"Table {name!r} has no column for choice {choice!r}.{nearest(choice, columns)}")
        found[choice] = [_plain(value) for value in columns[choice].tolist()]
        used.add(choice)
    values: dict[str, tuple[Choice, ...]] = {}
    ordinal = set() if base is None else set(base.ordinal_choices)
    for choice, column in found.items():
        kind = said.get(choice, "any")
        for row, value in enumerate(column):
            if value in (None, ""):
                raise TableError(f"Row {row} of table {name!r} has no {choice!r}. {_instead(kind)}")
        if isinstance(kind, str):
            found[choice], values[choice] = _of_kind(name, choice, kind, column)
            continue
        values[choice] = tuple(kind)
        listed = {_same(value): value for value in kind}
        if min(len(listed), len(set(map(_plain, kind)))) < len(kind):  # 1, 1.0 and true are equal
            raise TableError(f"Choice {choice!r} of table {name!r} lists a value twice: {', '.join(map(str, kind))}.")
        for row, value in enumerate(column):
            if _same(value) not in listed:
                known = nearest(str(value), map(str, kind))
                raise TableError(f"Row {row} of table {name!r}: {choice!r} is {value!r}.{known}")
        found[choice] = [listed[_same(value)] for value in column]
        if base is None:
            ordinal.add(choice)
    rows = len(next(iter(columns.values())))
    pairs = [tuple((choice, found[choice][row]) for choice in values) for row in range(rows)]
    return Choices(values, frozenset(ordinal), pairs), used


def _instead(kind: str | Sequence[Any]) -> str:
    """What to write where a choice has no value."""
    if not isinstance(kind, str):
        return f"Write one of {', '.join(map(str, kind))}."
    if kind == "ordinal":
        return "Write a number, or make it \"categorical\" and write 'none'."
    return "Where there is none, write 'none'."


def _of_kind(name: str, choice: str, kind: str, column: Sequence[Choice]) -> tuple[list[Choice], tuple[Choice, ...]]:
    """A column as its kind wants it, and its values in order."""
    numbers = all(isinstance(value, int | float) for value in column)
    if kind == "ordinal" and not numbers:
        odd = next(value for value in column if not isinstance(value, int | float))
        raise TableError(
            f"Choice {choice!r} of table {name!r} is to be ordinal, but {odd!r} is no number. List its values in order "
            f'instead: "{choice}": [...].'
        )
    if kind not in ("ordinal", "categorical", "any"):
        raise TableError(
            f'Choice {choice!r} of table {name!r} is "ordinal", "categorical" or the list of its values in order, '
            f"got {kind!r}.{nearest(kind, ('ordinal', 'categorical'))}"
        )
    if not numbers or kind == "categorical":
        texts: list[Choice] = [str(value) for value in column]
        return texts, tuple(sorted(set(texts), key=str))
    return list(column), tuple(sorted(set(column), key=float))  # type: ignore[arg-type]  # all are numbers


def _from_one_column(name: str, column: NDArray[Any]) -> dict[str, list[Choice]]:
    """Choices of texts such as ``layer1=mb3_k3, kernel=5``, or of JSON objects."""
    rows = []
    for row, text in enumerate(column.tolist()):
        try:
            rows.append(_pairs(text))
        except (ValueError, JsonError) as error:
            raise TableError(
                f"Row {row} of table {name!r}, column {COLUMN!r}: expected 'name=value, name=value' or a JSON object, "
                f"{error}."
            ) from None
        missing = set(rows[0]) ^ set(rows[-1])
        if missing:
            raise TableError(
                f"Rows 0 and {row} of table {name!r} name different choices: {', '.join(sorted(missing))}. "
                "Each row names all of them."
            )
    return {choice: [row[choice] for row in rows] for choice in (rows[0] if rows else {})}


def _pairs(text: Any) -> dict[str, Choice]:
    if isinstance(text, str) and text.lstrip().startswith("{"):
        text = parse_json(text)
    if isinstance(text, dict):
        return {str(key): _plain(value) for key, value in text.items()}
    found: dict[str, Choice] = {}
    for part in re.split(r"[,;]\s*", str(text).strip()):
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise ValueError(f"got {part!r}")
        if key.strip() in found:
            raise ValueError(f"but {key.strip()!r} is there twice")
        found[key.strip()] = _number(value.strip())
    return found


def _number(text: str) -> Choice:
    if not _NUMBER.fullmatch(text):  # Python also takes 3_6 and 007, which are names
        return text
    number = float(text)
    return text if not np.isfinite(number) else int(number) if number.is_integer() else number


def _same(value: Any) -> str:
    """A text that is equal for values that are the same however they are written: 1 and 1.0, 1e3 and 1000."""
    text = str(_number(value) if isinstance(value, str) else _plain(value))
    return text.lower() if text.lower() in ("true", "false") else text


def column_of_texts(texts: Sequence[str | None]) -> NDArray[Any]:
    """A column of choices as a CSV has it: a number where it is written as one; (n,)."""
    values: NDArray[Any] = np.empty(len(texts), dtype=object)
    values[:] = [None if text is None else _number(text.strip()) for text in texts]
    return values


def _plain(value: Any) -> Choice:
    """A cell of a column as a choice's value: 3.0 is 3, and NaN is nothing."""
    if isinstance(value, float):
        return None if np.isnan(value) else int(value) if value.is_integer() else value
    return value if isinstance(value, int | str) or value is None else str(value)
