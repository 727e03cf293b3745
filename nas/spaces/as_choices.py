"""Candidates as named choices, for methods that know nothing of graphs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.spaces.base import Candidate, CandidateBatch, SearchSpace, SpaceError
from nas.spaces.choices import without_cells

Codes = NDArray[np.int64]
"""Of n candidates, the number of the value of each choice, (n, choices)."""


@dataclass(frozen=True, eq=False)
class AsChoices:
    """A space written as choices: its macro choices, and in a space of one wiring the operation of each node.

    Args:
        space: the space.
        ops: of each inner node the label codes that it may have, rising; none where the space has no cells.
    """

    space: SearchSpace
    ops: tuple[NDArray[np.uint8], ...]

    @classmethod
    def of(cls, space: SearchSpace, everything: CandidateBatch | None) -> AsChoices:
        """A space as choices.

        Args:
            space: the space.
            everything: all candidates, where the space can be listed.

        Raises:
            SpaceError: its cells differ in their edges, or there are too many to look at.

        Example:
            >>> from nas.spaces import make_space
            >>> space = make_space("nasbench201")
            >>> AsChoices.of(space, space.all()).sizes.tolist()
            [5, 5, 5, 5, 5, 5]
        """
        if not space.vocabulary:
            return cls(space, ())
        graphs = None if everything is None else everything.graphs
        if (
            graphs is None
            or (graphs.sizes != graphs.sizes[0]).any()
            or (graphs.successors != graphs.successors[0]).any()
        ):
            raise SpaceError(
                f"Space {space.name!r} can't be written as choices: that takes a space without cells, or one that can "
                "be listed and whose cells differ in their operations only, such as nasbench201."
            )
        return cls(space, tuple(np.unique(graphs.ops[:, node]) for node in range(1, int(graphs.sizes[0]) - 1)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the choices."""
        return (*(f"node {k + 1}" for k in range(len(self.ops))), *self.space.macro_choices)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many values each choice has, (choices,)."""
        return np.array([*map(len, self.ops), *map(len, self.space.macro_choices.values())], dtype=np.int64)

    @property
    def ordinal(self) -> NDArray[np.bool_]:
        """Which choices have their values in order, (choices,)."""
        ordinal = [self.space.is_ordinal(name) for name in self.space.macro_choices]
        return np.array([False] * len(self.ops) + ordinal, dtype=np.bool_)

    def codes(self, batch: CandidateBatch) -> Codes:
        """Candidates as numbers of values, (n, choices); values in order have rising numbers."""
        nodes = [np.searchsorted(codes, batch.graphs.ops[:, k + 1]) for k, codes in enumerate(self.ops)]
        macro = [self._places(name)[batch.macro[:, k]] for k, name in enumerate(self.space.macro_choices)]
        return np.stack([*nodes, *macro], axis=1).astype(np.int64)

    def candidate(self, codes: Codes) -> Candidate:
        """The candidate of a space without cells that has these values, (choices,)."""
        rows = [
            np.argsort(self._places(name))[code] for name, code in zip(self.space.macro_choices, codes, strict=True)
        ]
        return self.space.unpack(without_cells(np.array([rows])), 0)

    def distances(self, codes: Codes, others: Codes) -> NDArray[np.float64]:
        """How far one candidate, (choices,), is from others, (n, choices): choices that differ, or by how much."""
        away = np.abs(others - codes).astype(np.float64)
        return np.where(self.ordinal, away / np.maximum(self.sizes - 1, 1), away > 0).sum(axis=1)

    def _places(self, name: str) -> NDArray[np.intp]:
        """Of each value of a macro choice its place in their order, or in the space's list where they have none."""
        values = self.space.macro_choices[name]
        if not self.space.is_ordinal(name) or name in self.space.ordinal_choices:
            return np.arange(len(values))
        return np.argsort(np.argsort(np.array(values, dtype=np.float64)))
