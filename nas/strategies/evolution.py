"""Regularized evolution.

Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019: the
population is the latest evaluations, the best of a random few of them has a mutated child, the oldest dies.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from nas.spaces.base import Candidate, SearchSpace
from nas.strategies.history import HistoryStrategy

TRIES = 20  # children of one parent that are all known before another parent is picked
PARENTS = 50


class RegularizedEvolution(HistoryStrategy):
    """Evolution with ageing.

    Args:
        space, seed, options: see `HistoryStrategy`.
        population: how many of the latest evaluations may have children.
        tournament: how many of them, drawn at random, compete to be parent.
    """

    def __init__(
        self, space: SearchSpace, seed: int, *, population: int = 20, tournament: int = 5, **options: Any
    ) -> None:
        super().__init__(space, seed, **options)
        self.population = population
        self.tournament = tournament

    def propose(
        self, n: int, rng: np.random.Generator, taken: set[Hashable], pending: Sequence[Candidate]
    ) -> list[Candidate]:
        scores, failed = self.scores(), self.failed()
        alive = [row for row in range(len(scores)) if not failed[row]][-self.population :]
        if not alive:
            return []
        known, children = set(taken), []
        while len(children) < n:
            child = self._child(alive, scores, known, rng)
            if child is None:
                break
            known.add(self.key(child))
            children.append(child)
        return children

    def _child(
        self, alive: list[int], scores: np.ndarray, known: set[Hashable], rng: np.random.Generator
    ) -> Candidate | None:
        for attempt in range(PARENTS):
            rivals = rng.choice(alive, min(self.tournament, len(alive)), replace=False)
            parent = self.space.pack([self.candidates[max(rivals, key=lambda row: scores[row])]])
            # Where all children one edit away are known, two edits are the nearest new ones.
            edits = 1 + attempt // 10
            batch = self.admitted(self.space.mutate(parent.take([0] * TRIES), rng, edits=edits))
            for row in range(len(batch)):
                child = self.space.unpack(batch, row)
                if self.is_new(child, known):
                    return child
        return None
