"""A space of named choices, with no cell: `layer1` is one of `identity`, `mb3_k3`, `mb6_k5`, and so on.

NAS-Bench-Macro, Accel-NASBench's blocks and the like are such spaces. A candidate's cell is the empty one, in which the
output reads the input; all that is searched are its macro choices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from gemnet.cell_graph import INPUT_CODE, OUTPUT_CODE, CellGraph, GraphBatch
from gemnet.errors import nearest
from nas.spaces.base import Candidate, CandidateBatch, Choice, SearchSpace, SpaceError

EMPTY_CELL = CellGraph((), frozenset({(0, 1)}))
LISTED = 50_000  # candidates of a space that is searched as a list; of a larger one, fresh samples each round

MOST_CHOICES = 32_767
"""Values of one choice: their numbers are kept in 16 bits."""


class ChoiceSpace(SearchSpace):
    """All combinations of some named choices.

    Args:
        choices: name -> the values it may take, at least one. Numbers are in order, names are not.
        ordinal: choices among names whose order is the listed one, such as ``small``, ``medium``, ``large``.

    Raises:
        SpaceError: no choices, a choice without values or with one twice, or an unknown name in ``ordinal``.

    Example:
        >>> space = ChoiceSpace({"layer1": ["identity", "mb3_k3"], "kernel": [3, 5, 7]})
        >>> len(space.all()), dict(space.unpack(space.all(), 0).macro)
        (6, {'layer1': 'identity', 'kernel': 3})
    """

    name = "choices"
    vocabulary = ()

    def __init__(self, choices: Mapping[str, Sequence[Choice]], ordinal: Sequence[str] = ()) -> None:
        if not choices:
            raise SpaceError("A space of choices has at least one: choices=dict(layer1=['identity', 'mb3_k3'], ...).")
        for name, values in choices.items():
            if isinstance(values, str) or not values or not all(isinstance(each, str | int | float) for each in values):
                raise SpaceError(f"Choice {name!r} is a list of different names or numbers, got {values!r}.")
            if len(values) > MOST_CHOICES:
                raise SpaceError(
                    f"Choice {name!r} has {len(values):,} values; at most {MOST_CHOICES:,} are told apart."
                )
            # 1, 1.0 and True are equal, '1' and 1 are written alike: either way one could not be told from the other.
            if len(set(values)) < len(values) or len(set(map(str, values))) < len(values):
                raise SpaceError(f"Choice {name!r} is a list of different values, got {values!r}.")
        for name in ordinal:
            if name not in choices:
                raise SpaceError(f"ordinal names {name!r}, which is no choice.{nearest(name, choices)}")
        self.macro_choices = {name: tuple(values) for name, values in choices.items()}
        self.ordinal_choices = frozenset(ordinal)
        self._sizes = np.array([len(values) for values in self.macro_choices.values()])

    def sample(self, n: int, rng: np.random.Generator) -> CandidateBatch:
        """``n`` candidates, each choice drawn uniformly."""
        return without_cells(rng.integers(0, self._sizes, size=(n, len(self._sizes))))

    def mutate(self, parents: CandidateBatch, rng: np.random.Generator, edits: int = 1) -> CandidateBatch:
        """One child for each parent, with another value for ``edits`` different choices."""
        codes, rows = parents.macro.astype(np.int64), np.arange(len(parents))
        free = np.flatnonzero(self._sizes > 1)
        order = rng.permuted(np.tile(free, (len(parents), 1)), axis=1)
        for column in order.T[:edits]:
            sizes = self._sizes[column]
            codes[rows, column] = (codes[rows, column] + rng.integers(1, sizes)) % sizes
        return without_cells(codes)

    def neighbours(self, candidate: Candidate) -> CandidateBatch:
        """All candidates with one other value, by choice, then by value."""
        own = self.pack([candidate]).macro[0]
        found = []
        for place, size in enumerate(self._sizes.tolist()):
            for value in range(size):
                if value != own[place]:
                    found.append([*own[:place], value, *own[place + 1 :]])
        return without_cells(np.array(found, dtype=np.int64).reshape(-1, len(self._sizes)))

    def check(self, candidate: Candidate) -> None:
        """Raises `SpaceError` where a choice is missing, unknown or has another value, or where there is a cell."""
        if candidate.cell != EMPTY_CELL:
            raise SpaceError(f"Space {self.name!r} has choices only, got the cell {candidate.cell.to_json()}.")
        self.pack([candidate])

    def all(self) -> CandidateBatch | None:
        """Every combination, the last choice varying fastest; None where there are more than 50,000."""
        if prod(self._sizes.tolist()) > LISTED:
            return None
        return without_cells(np.array(list(product(*map(range, self._sizes.tolist())))))


def without_cells(codes: NDArray[np.integer]) -> CandidateBatch:
    """Candidates that are nothing but choices, from the numbers of their values, (n, choices)."""
    n = len(codes)
    ops = np.tile(np.array([INPUT_CODE, OUTPUT_CODE], dtype=np.uint8), (n, 1))
    successors = np.tile(np.array([2, 0], dtype=np.uint32), (n, 1))
    graphs = GraphBatch((), np.full(n, 2, dtype=np.uint8), ops, successors)
    return CandidateBatch(graphs, codes.astype(np.int16))
