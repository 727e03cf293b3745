"""NASGEM: candidates embedded by a WL-guided encoder, ranked by a score predictor, the best evaluated.

Cheng et al., "NASGEM: Neural Architecture Search via Graph Embedding Method", AAAI 2021 (arXiv 2007.04452): the predictor learns from few
evaluated cells, candidates are sampled in bulk, the best are evaluated, and so on. How a batch is chosen is not in the
paper; it is ours (`greedy_batch`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from gemnet.cell_graph import FIRST_OP_CODE
from nas.predictor import FeatureTable, ScorePredictor, macro_table, structural_table
from nas.spaces.base import CandidateBatch, SearchSpace
from nas.strategies.acquisition import greedy_batch, hypervolume_gain
from nas.strategies.model import ModelStrategy, best_first
from nas.strategies.pool import Pool

SHORTLIST = 400  # candidates whose errors' covariance is looked at when a batch is put together


@dataclass(frozen=True)
class Parts:
    """What the predictor sees of a candidate, beside macro choices and costs.

    Args:
        structure: structural features of the effective graph.
        drawn: operation counts of the graph as it is drawn.
    """

    structure: bool = True
    drawn: bool = True


class Nasgem(ModelStrategy):
    """Bootstrap search with the embedding, structural features and macro choices as what the predictor sees.

    Args:
        space, seed, options: see `ModelStrategy`.
        beta: how many standard deviations of hope a candidate is credited with.
        boosters: boosted forests beside the predictor's Gaussian process. They rank a little better and
            take most of the time.
        parts: what the predictor sees.
        spread: whether a batch is spread out by `greedy_batch`; else it is simply the best few.
        cost: a metric that evaluations measure and that is to be small while the score is large; the search is then for the
            front of both.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        *,
        beta: float = 2.0,
        boosters: int = 0,
        parts: Parts = Parts(),  # noqa: B008  frozen
        spread: bool = True,
        cost: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(space, seed, **options)
        self.beta = beta
        self.boosters = boosters
        self.parts = parts
        self.spread = spread
        self.cost = cost

    def rank(
        self,
        observed: Pool,
        scores: NDArray[np.float64],
        pool: Pool,
        free: NDArray[np.bool_],
        n: int,
        rng: np.random.Generator,
    ) -> NDArray[np.intp]:
        known, asked = features(observed, self.parts), features(pool, self.parts)
        if self.cost is not None:
            return self._rank_two(known, np.stack([scores, -self.costs(self.cost)], axis=1), asked, free, n, rng)
        predictor = ScorePredictor(boosters=self.boosters, random_state=int(rng.integers(2**31)))
        predictor.fit(known, scores, pool=asked)
        mean, deviation = predictor.predict_latent(asked)
        ranked = best_first(mean + self.beta * deviation, free, rng)
        if not self.spread or len(ranked) <= 1:
            return ranked
        short = ranked[:SHORTLIST]
        covariance = predictor.latent_covariance(asked.take(short))
        picked = greedy_batch(mean[short], covariance, predictor.noise_, self.beta, min(2 * n, len(short)))
        return np.concatenate([short[picked], np.setdiff1d(ranked, short[picked], assume_unique=True)])

    def _rank_two(
        self,
        known: FeatureTable,
        objectives: NDArray[np.float64],
        asked: FeatureTable,
        free: NDArray[np.bool_],
        n: int,
        rng: np.random.Generator,
    ) -> NDArray[np.intp]:
        """By what a hopeful prediction of both objectives would add to the area that the front dominates."""
        hopeful = np.empty((len(asked), 2))
        expected = np.empty((len(asked), 2))
        for k in range(2):
            predictor = ScorePredictor(boosters=self.boosters, random_state=int(rng.integers(2**31)))
            expected[:, k], deviation = predictor.fit(known, objectives[:, k], pool=asked).predict(asked)
            hopeful[:, k] = expected[:, k] + self.beta * deviation
        # What lies below the worst of the present front is no compromise anyone asked for.
        front = objectives[NonDominatedSorting().do(-objectives, only_non_dominated_front=True)]
        span = np.ptp(front, axis=0)
        reference = front.min(axis=0) - np.where(span > 0, 0.1 * span, 1.0)
        chosen: list[int] = []
        open_ = free.copy()
        for _ in range(min(2 * n, int(free.sum()))):
            gains = np.where(open_, hypervolume_gain(hopeful, front, reference), -1.0)
            pick = int(best_first(gains, open_, rng)[0])
            chosen.append(pick)
            open_[pick] = False
            # Taken at its expected values, so that the next one goes elsewhere on the front.
            front = np.concatenate([front, expected[[pick]]])
        rest = best_first(hypervolume_gain(hopeful, front, reference), open_, rng)
        return np.concatenate([np.array(chosen, dtype=np.intp), rest])


def features(pool: Pool, parts: Parts) -> FeatureTable:
    """What the predictor sees of a pool's candidates, n rows."""
    space = pool.space
    tables = [pool.table("macro", lambda batch: macro_table(space, batch))]
    if parts.structure:
        tables.append(pool.table("structure", lambda batch: structural_table(space, batch)))
    if parts.drawn:
        tables.append(pool.table("drawn", drawn_table))
    return FeatureTable.join(tables)


def drawn_table(batch: CandidateBatch) -> FeatureTable:
    """Nodes of each operation in the graph as it is drawn, (n, operations).

    Structural features are those of the effective graph, equal for cells that compute the same. Trained and measured, such cells
    still differ, and what a cell carries without effect says a little about how.
    """
    codes = batch.graphs.ops[:, :, None] == FIRST_OP_CODE + np.arange(len(batch.graphs.vocabulary))
    return FeatureTable(codes.sum(axis=1).astype(np.float32), ("drawn",) * codes.shape[2])
