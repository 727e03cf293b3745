"""Random search."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from nas.spaces.base import Candidate
from nas.strategies.history import HistoryStrategy


class RandomSearch(HistoryStrategy):
    """Proposes random candidates, never one twice."""

    def propose(
        self, n: int, rng: np.random.Generator, taken: set[Hashable], pending: Sequence[Candidate]
    ) -> list[Candidate]:
        return self.draw(n, rng, taken)
