"""Regularized evolution, and NSGA-II where there are two objectives.

Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019: the
population is the latest evaluations, the best of a random few of them has a mutated child, the oldest dies. With two
objectives: Deb, Pratap, Agarwal and Meyarivan, "A Fast
and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002, its sorting and crowding from pymoo.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from nas.spaces.base import Candidate, SearchSpace
from nas.strategies.history import HistoryStrategy, check_least

TRIES = 20  # children of one parent that are all known before another parent is picked
PARENTS = 50


class RegularizedEvolution(HistoryStrategy):
    """Evolution with ageing.

    Args:
        space, seed, options: see `HistoryStrategy`.
        population: how many of the latest evaluations may have children.
        tournament: how many of them, drawn at random, compete to be parent.
        cost: a metric that evaluations measure and that is to be small while the score is large; then the population is
            NSGA-II's: the best fronts of everything evaluated, and two compete to be parent.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        *,
        population: int = 20,
        tournament: int = 5,
        cost: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(space, seed, **options)
        self.population = population
        self.tournament = tournament if cost is None else 2
        self.cost = cost
        check_least(self, population=1, tournament=1)

    def propose(
        self, n: int, rng: np.random.Generator, taken: set[Hashable], pending: Sequence[Candidate]
    ) -> list[Candidate]:
        alive, scores = self._population()
        if not alive:
            return []
        known = set(taken)
        children: list[Candidate] = []
        while len(children) < n:
            child = self._child(alive, scores, known, rng)
            if child is None:
                break
            known.add(self.key(child))
            children.append(child)
        return children

    def _population(self) -> tuple[list[int], NDArray[np.float64]]:
        """Rows that may have children, and what decides a tournament, for each row."""
        scores = self.scores()
        alive = np.flatnonzero(~self.failed())
        alive = alive[np.argsort(np.array(self.numbers)[alive], kind="stable")]  # whatever the order they were told in
        if self.cost is None or not len(alive):
            return alive[-self.population :].tolist(), scores
        objectives = np.stack([-scores, self.costs(self.cost)], axis=1)[alive]
        fitness = np.full(len(scores), -np.inf)
        survivors: list[int] = []
        for rank, front in enumerate(NonDominatedSorting().do(objectives)):
            crowding = calc_crowding_distance(objectives[front])
            order = np.argsort(-crowding, kind="stable")[: self.population - len(survivors)]
            # Fronts first; within one, the lonelier wins.
            fitness[alive[front]] = -rank + 1 - 1 / (1 + np.minimum(crowding, 1e6))
            survivors += alive[front][order].tolist()
            if len(survivors) >= self.population:
                break
        return survivors, fitness

    def _child(
        self, alive: list[int], scores: NDArray[np.float64], known: set[Hashable], rng: np.random.Generator
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
