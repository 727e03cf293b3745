"""Local search: hill climbing with restarts.

White, Nolen and Savani, "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021: start from the best of
a few random candidates, evaluate neighbours, move as soon as one is better, start anew where none is.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from nas.spaces.base import Candidate, SearchSpace
from nas.strategies.history import HistoryStrategy


class LocalSearch(HistoryStrategy):
    """Climbs from the best of the first random candidates; restarts at random in a local optimum.

    The centre of the climb follows from the evaluations in the order of their numbers alone.
    """

    def __init__(self, space: SearchSpace, seed: int, **options: Any) -> None:
        super().__init__(space, seed, **options)
        self._around: dict[int, dict[Hashable, Candidate]] = {}

    def propose(
        self, n: int, rng: np.random.Generator, taken: set[Hashable], pending: Sequence[Candidate]
    ) -> list[Candidate]:
        around = self._neighbours(self._centre())
        free = [key for key in around if key not in taken]
        chosen = rng.permutation(len(free))[:n]
        return [around[free[k]] for k in chosen]

    def _centre(self) -> int:
        """Row of the candidate whose neighbours are being tried."""
        scores = self.scores()
        keys = [self.key(candidate) for candidate in self.candidates]
        start = sum(number < self.initial for number in self.numbers)
        centre = int(np.argmax(scores[: max(start, 1)]))
        tried = set(keys[: max(start, 1)])
        open_ = set(self._neighbours(centre)) - tried
        for row in range(max(start, 1), len(keys)):
            better = scores[row] > scores[centre]
            # All around the centre was tried and this one lies elsewhere: it is where the climb began anew.
            restart = not open_ and keys[row] not in self._neighbours(centre)
            tried.add(keys[row])
            open_.discard(keys[row])
            if better or restart:
                centre = row
                open_ = set(self._neighbours(centre)) - tried
        return centre

    def _neighbours(self, row: int) -> dict[Hashable, Candidate]:
        if row not in self._around:
            batch = self.admitted(self.space.neighbours(self.candidates[row]))
            candidates = [self.space.unpack(batch, k) for k in range(len(batch))]
            self._around[row] = {self.key(c): c for c in candidates if self.is_new(c, set())}
        return self._around[row]
