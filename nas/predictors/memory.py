"""What evaluations of another task let expect of candidates: those of another data set, table, device or fidelity.

The other task is learnt by a predictor of its own; what that expects of a candidate, the remembered mean, is one more
column of features. How much it is worth for the task at hand, the process finds out (`nas.predictors.process`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import count

import numpy as np
from numpy.typing import NDArray

from nas.predictors.features import REMEMBERED, FeatureTable
from nas.predictors.nasgem_features import Parts, features
from nas.predictors.pool import Pool
from nas.predictors.scores import ScorePredictor
from nas.spaces.base import CandidateBatch, SearchSpace

MOST = 2000
"""Evaluations of a task that are learnt from: half of them the best, the others drawn from the rest."""


@dataclass(frozen=True, eq=False)
class Remembered:
    """Evaluations of another task.

    Args:
        batch: the candidates, n of them, in the space of the task at hand.
        scores: theirs, (n,), in any unit; more is better.
    """

    batch: CandidateBatch
    scores: NDArray[np.float64]


def rows_to_learn(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Rows of a task's evaluations that are learnt from, rising: all, or `MOST` of them; scores are (n,)."""
    if len(scores) <= MOST:
        return np.arange(len(scores))
    order = np.argsort(-scores, kind="stable")
    others = np.random.default_rng(0).choice(order[MOST // 2 :], MOST - MOST // 2, replace=False)
    return np.sort(np.concatenate([order[: MOST // 2], others]))


class Memory:
    """Predictors of remembered tasks.

    Args:
        space: the space of the task at hand.
        tasks: at least one.
        parts: what of a candidate its predictors see.

    Example:
        >>> from nas.spaces import make_space
        >>> space = make_space("choices", choices={"depth": [1, 2, 3], "width": [8, 16, 32]})
        >>> batch = space.sample(30, np.random.default_rng(0))
        >>> other = Remembered(batch, batch.macro.sum(axis=1).astype(float))
        >>> Memory(space, [other], Parts(encoder=None)).table(Pool(space, space.all())).values.shape
        (9, 1)
    """

    def __init__(self, space: SearchSpace, tasks: Sequence[Remembered], parts: Parts) -> None:
        self.space = space
        self.tasks = tuple(tasks)
        self.parts = parts

    @cached_property
    def _predictors(self) -> list[tuple[int, ScorePredictor]]:
        # When they are first needed: what they see may take an encoder that is trained by then.
        return [_learnt(self.space, task, self.parts) for task in self.tasks]

    def table(self, pool: Pool) -> FeatureTable:
        """What each task lets expect of a pool's candidates, in deviations of its scores; (n, tasks)."""
        found = [
            pool.following(f"{REMEMBERED} {number}", partial(self._expected, predictor))
            for number, predictor in self._predictors
        ]
        groups = tuple(f"{REMEMBERED} {k}" for k in range(len(found)))
        return FeatureTable(np.concatenate([each.values for each in found], axis=1), groups)

    def _expected(self, predictor: ScorePredictor, pool: Pool) -> FeatureTable:
        expected = predictor.predict_mean(features(pool, self.parts))
        return FeatureTable(expected.astype(np.float32)[:, None], (REMEMBERED,))


_NUMBERS = count()


@lru_cache(maxsize=16)
def _learnt(space: SearchSpace, task: Remembered, parts: Parts) -> tuple[int, ScorePredictor]:
    """A number of its own, and a task's predictor. It is learnt once, however many searches remember it."""
    rows = rows_to_learn(task.scores)
    seen = features(Pool(space, task.batch.take(rows)), parts)
    return next(_NUMBERS), ScorePredictor(boosters=0).fit(seen, task.scores[rows])
