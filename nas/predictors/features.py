"""Features of candidates in groups: structure, macro choices and costs, embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gemnet.errors import GemnetError
from nas.graphs.structure import feature_names, structural_features
from nas.spaces.base import CandidateBatch, Choice, SearchSpace

Floats = NDArray[np.float64]


Table = NDArray[np.float32]


EMBEDDING = "embedding"
UNTRAINED = "untrained"
"""Groups of this name and a number: what one untrained network makes of cells (`nas.encoder.model`)."""
_BLOCK = 1024  # rows whose squares are summed together: they fit into the cache


SKIPS, NEIGHBOURS, WINDOWS = "skips", "neighbours", "windows"
_MOST_VALUES = 8  # of a choice whose pairs with its neighbour are columns: a column for each pair of values
_WIDTHS = (2, 3, 4)  # of windows


REMEMBERED = "remembered"
"""Groups of this name, or that begin with it and a space: what another task lets expect of a candidate, one column."""


def is_remembered(group: str) -> bool:
    """Whether a group is what is remembered of another task (`nas.predictors.memory`)."""
    return group.partition(" ")[0] == REMEMBERED


def is_untrained(group: str) -> bool:
    """Whether a group is what an untrained network makes of cells."""
    return group.partition(" ")[0] == UNTRAINED


class PredictorError(GemnetError):
    """Observations or features that nothing can be learnt from."""


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """What a predictor may know of n candidates.

    Args:
        values: float32 (n, f).
        groups: name of the group each column belongs to, f of them. Columns of a group share a length scale.

    Raises:
        PredictorError: shapes that don't fit, or values that are not finite.
    """

    values: Table
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.groups):
            raise PredictorError(
                f"A feature table has one group name a column; got values of shape {self.values.shape} "
                f"and {len(self.groups)} names."
            )
        if not np.isfinite(self.values).all():
            raise PredictorError("Features hold NaN or infinite values; mend or drop those columns.")

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def moments(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of each column, (f,) each; computed once."""
        mean = self.values.mean(axis=0, dtype=np.float64)
        squares = np.zeros(len(mean))
        for start in range(0, len(self), _BLOCK):
            away = self.values[start : start + _BLOCK] - mean
            squares += np.einsum("ij,ij->j", away, away)
        return mean, np.sqrt(squares / max(len(self), 1))

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_] | Sequence[int] | slice) -> FeatureTable:
        """The rows at ``index``."""
        return FeatureTable(self.values[index], self.groups)

    @staticmethod
    def stack(tables: Sequence[FeatureTable]) -> FeatureTable:
        """Tables of the same columns one below another."""
        return FeatureTable(np.concatenate([table.values for table in tables]), tables[0].groups)

    @staticmethod
    def join(tables: Sequence[FeatureTable]) -> FeatureTable:
        """Tables of the same candidates side by side."""
        return FeatureTable(
            np.concatenate([table.values for table in tables], axis=1),
            tuple(group for table in tables for group in table.groups),
        )


class Spread(NamedTuple):
    """By what columns of candidates spread, where the candidates themselves do not matter.

    Args:
        mean, deviation: of each column, (f,).
        groups: as of `FeatureTable`.
    """

    mean: Floats
    deviation: Floats
    groups: tuple[str, ...]

    @classmethod
    def of(cls, *tables: FeatureTable) -> Spread:
        """Of the columns of tables, side by side; these need not be of the same candidates."""
        mean, deviation = (np.concatenate(each) for each in zip(*(table.moments for table in tables), strict=True))
        return cls(mean, deviation, tuple(group for table in tables for group in table.groups))


def structural_table(space: SearchSpace, batch: CandidateBatch) -> FeatureTable:
    """Structural features of the cells, by the space's notion of zero and identity operations.

    Where a space has identities, the features of the cells with these as operations like any other are one more group,
    ``skips``: a cell's time, or a network around it that is not the sum of its paths, may tell a skip from an edge.
    """
    names = feature_names(space.vocabulary, space.zero_ops, space.identity_ops)
    values = structural_features(batch.graphs, space.zero_ops, space.identity_ops)
    table = FeatureTable(values, tuple(name.partition("/")[0] for name in names))
    if not space.identity_ops:
        return table
    with_skips = structural_features(batch.graphs, space.zero_ops)
    return FeatureTable.join([table, FeatureTable(with_skips, (SKIPS,) * with_skips.shape[1])])


def skip_names(space: SearchSpace) -> tuple[str, ...]:
    """Names of the columns of group ``skips`` in `structural_table`, as `feature_names` gives them."""
    return feature_names(space.vocabulary, space.zero_ops)


def choice_table(space: SearchSpace, batch: CandidateBatch) -> FeatureTable:
    """Macro choices, each a group: ``choice`` and its name, so that no name is taken for a group of another kind.

    A choice whose values are in order is its place among them, from 0 to 1; any other is one column for each value.
    """
    columns: list[Table] = [np.zeros((len(batch), 0), np.float32)]
    groups: list[str] = []
    for place, (name, values) in enumerate(space.macro_choices.items()):
        chosen = batch.macro[:, place].astype(np.int64)
        if space.is_ordinal(name):
            named = name in space.ordinal_choices
            order = np.arange(len(values)) if named else np.argsort(np.argsort(np.array(values, dtype=np.float64)))
            columns.append((order[chosen] / max(len(values) - 1, 1)).astype(np.float32)[:, None])
        else:
            columns.append(np.eye(len(values), dtype=np.float32)[chosen])
        groups += [f"choice {name}"] * columns[-1].shape[1]
    return FeatureTable(np.concatenate(columns, axis=1), tuple(groups))


def alike_table(space: SearchSpace, batch: CandidateBatch) -> FeatureTable:
    """Of macro choices that take the same values, such as the operations of eight layers, how many have each value."""
    columns: list[Table] = [np.zeros((len(batch), 0), np.float32)]
    groups: list[str] = []
    for values, places in _alike(space):
        chosen = batch.macro[:, places, None] == np.arange(len(values))
        columns.append(chosen.sum(axis=1).astype(np.float32))
        groups += [f"how many of {', '.join(map(str, values))}"] * len(values)
    return FeatureTable(np.concatenate(columns, axis=1), tuple(groups))


def neighbour_table(space: SearchSpace, batch: CandidateBatch) -> FeatureTable:
    """Of macro choices that take the same values, which pair each has with the next one; one group.

    What a layer is worth may depend on the one before it, which a process on choices alone learns from many candidates.
    """
    columns: list[Table] = [np.zeros((len(batch), 0), np.float32)]
    for values, places in _alike(space):
        if len(values) <= _MOST_VALUES:
            pairs = batch.macro[:, places[:-1]].astype(np.intp) * len(values) + batch.macro[:, places[1:]]
            chosen = pairs[:, :, None] == np.arange(len(values) ** 2)
            columns.append(chosen.reshape(len(batch), -1).astype(np.float32))
    together = np.concatenate(columns, axis=1)
    return FeatureTable(together, (NEIGHBOURS,) * together.shape[1])


def window_table(space: SearchSpace, batch: CandidateBatch) -> FeatureTable:
    """Of macro choices that take the same values, how many in a row of two, three and four have each value; one group.

    Layers close to each other work at one resolution: it may matter little which of them is left out, and much that
    all are.
    """
    columns: list[Table] = [np.zeros((len(batch), 0), np.float32)]
    for values, places in _alike(space):
        chosen = batch.macro[:, places, None] == np.arange(len(values))
        for width in _WIDTHS:
            if width < len(places):
                windows = np.lib.stride_tricks.sliding_window_view(chosen, width, axis=1)
                columns.append(windows.sum(axis=-1).reshape(len(batch), -1).astype(np.float32))
    together = np.concatenate(columns, axis=1)
    return FeatureTable(together, (WINDOWS,) * together.shape[1])


def _alike(space: SearchSpace) -> list[tuple[tuple[Choice, ...], list[int]]]:
    """Values that several macro choices take, and the places of these, in order."""
    alike: dict[tuple[Choice, ...], list[int]] = {}
    for place, values in enumerate(space.macro_choices.values()):
        alike.setdefault(values, []).append(place)
    return [(values, places) for values, places in alike.items() if len(places) > 1 and len(values) > 1]


def macro_table(space: SearchSpace, batch: CandidateBatch) -> FeatureTable:
    """`choice_table`, `alike_table`, `neighbour_table`, `window_table`, and logarithms of MACs and parameters where the
    space knows them (group ``cost``).

    What zero operations cut off costs nothing here: it says nothing about what the cell computes.
    """
    columns = [np.log(np.where(cost > 0, cost, 1)).astype(np.float32)[:, None] for cost in space.live_costs(batch)]
    tables = [FeatureTable(column, ("cost",)) for column in columns]
    choices = [make(space, batch) for make in (choice_table, alike_table, neighbour_table, window_table)]
    return FeatureTable.join([*choices, *tables])


def embedding_table(vectors: NDArray[np.floating]) -> FeatureTable:
    """An encoder's vectors (n, d) as one group."""
    return FeatureTable(np.asarray(vectors, dtype=np.float32), (EMBEDDING,) * vectors.shape[1])


def untrained_table(found: NDArray[np.floating], networks: int) -> FeatureTable:
    """What untrained networks make of cells, (n, networks * d), each network's as a group."""
    groups = np.repeat([f"{UNTRAINED} {k}" for k in range(networks)], found.shape[1] // networks).tolist()
    return FeatureTable(np.asarray(found, dtype=np.float32), tuple(groups))
