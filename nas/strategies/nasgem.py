"""NASGEM: candidates embedded by a WL-guided encoder, ranked by a score predictor, the best evaluated.

Cheng et al., "NASGEM: Neural Architecture Search via Graph Embedding Method", AAAI 2021 (arXiv 2007.04452): the
predictor learns from few evaluated cells, candidates are sampled in bulk, the best are evaluated, and so on. How a
batch is chosen is not in the paper; it is ours (`greedy_batch`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from gemnet.strict import make
from nas.encoder import EncoderConfig
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.predictors.features import FeatureTable, Table
from nas.predictors.nasgem_features import Parts, features, prepare_encoder, read_table
from nas.predictors.pool import Pool
from nas.predictors.scores import ScorePredictor
from nas.spaces.base import Candidate, SearchSpace
from nas.strategies.acquisition import expected_hypervolume_gain, greedy_batch
from nas.strategies.base import Progress
from nas.strategies.history import StrategyError, check_least
from nas.strategies.model import ModelStrategy, best_first

FEW = 5  # real evaluations from which nothing is learnt yet where there are cheap ones
_BETA, _BETA_OF_LISTED = 0.5, 2.0
SHORTLIST = 400  # candidates whose errors' covariance is looked at when a batch is put together


class Nasgem(ModelStrategy):
    """Bootstrap search with the embedding, structural features and macro choices as what the predictor sees.

    Args:
        space, seed, options: see `ModelStrategy`.
        beta: deviations of the upper confidence bound that ranks candidates. None for 2 where the space can be
            listed, and 0.5 elsewhere: of the largest of 20,000 fresh candidates' bounds most are of cells unlike any
            that was evaluated, and in a space without end they never run out (docs/method.md).
        boosters: boosted forests beside the predictor's Gaussian process. They rank a little better and
            take most of the time.
        encoder: how the encoder is trained (an `EncoderConfig`, or its values by name); None searches without
            embedding.
        structure, drawn: see `Parts`.
        spread: whether a batch is spread out by `greedy_batch`; else it is simply the best few.
        cost: a metric that evaluations measure and that is to be small while the score is large; the search is then
            for the front of both.
        cheap_epochs: epochs of cheap evaluations that come first; None does without.
        cheap: how many of them. They are searched like the real ones; then what a predictor learnt from them expects
            of a candidate is one more thing the predictor of real scores sees.
        measure: gives zero-cost signals of candidates, (n, k), for evaluations at a fidelity; None where there are
            none.
        signals: how many of a round's best have their signals measured. The predictor is fitted again with the
            signals beside the other features, and ranks these anew. Not with ``cost``.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        *,
        beta: float | None = None,
        boosters: int = 0,
        encoder: EncoderConfig | Mapping[str, Any] | None = EncoderConfig(),  # noqa: B008  frozen
        structure: bool = True,
        drawn: bool = True,
        spread: bool = True,
        cost: str | None = None,
        cheap_epochs: int | None = None,
        cheap: int = 100,
        measure: Callable[[Sequence[Candidate], Fidelity], Table] | None = None,
        signals: int = 64,
        **options: Any,
    ) -> None:
        super().__init__(space, seed, **options)
        self.measure, self.signals = measure, signals
        self._measured: dict[Hashable, Table] = {}
        self.beta = beta if beta is not None else _BETA if self.pool is None else _BETA_OF_LISTED
        self.boosters = boosters
        self.cheap = cheap
        check_least(self, signals=0, boosters=0, cheap=1)
        if isinstance(encoder, Mapping):
            encoder = make(EncoderConfig, encoder, "strategy.encoder")
        self.parts = Parts(encoder, structure, drawn)
        self.spread = spread
        self.cost = cost

        self.low: Nasgem | None = None
        if cheap_epochs is not None:
            if cheap_epochs >= self.fidelity.epochs:
                raise StrategyError(
                    f"Cheap evaluations take fewer epochs than real ones ({self.fidelity.epochs}), "
                    f"got cheap_epochs={cheap_epochs}."
                )
            fidelity = replace(self.fidelity, epochs=cheap_epochs)
            common: dict[str, Any] = {"beta": beta, "encoder": encoder, "structure": structure, "drawn": drawn}
            common |= {"cost": cost, "measure": measure, "signals": signals}
            self.low = Nasgem(space, seed, **{**options, **common, "fidelity": fidelity})

    def prepare(self, progress: Progress | None = None) -> None:
        """Trains the encoder, or reads it from the cache."""
        if self.parts.encoder is not None:
            prepare_encoder(self.space, self.parts.encoder, progress)

    def ask(self, n: int, pending: Sequence[Proposal] = ()) -> list[Proposal]:
        first = self.told + len(pending)
        if self.low is not None and first < self.cheap:
            cheap = self.low.ask(min(n, self.cheap - first), pending)
            # Fewer than n would mean that the space has no more.
            return cheap if len(cheap) == n else [*cheap, *super().ask(n - len(cheap), [*pending, *cheap])]
        return super().ask(n, pending)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        super().tell(evaluations)
        if self.low is not None:
            self.low.tell(evaluations)

    def is_start(self, number: int) -> bool:
        # What cheap evaluations found is a better start than chance.
        return super().is_start(number) if self.low is None or len(self.low.candidates) < 2 else False

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
        if self.low is not None and len(self.low.candidates) > 1:
            cheap = ScorePredictor(boosters=self.boosters, random_state=int(rng.integers(2**31)))
            cheap.fit(features(self.low.observed(), self.parts), self.low.scores(), pool=asked)
            if len(known) < FEW:
                return best_first(cheap.predict_latent(asked)[0], free, rng)
            known, asked = (_beside(table, cheap.predict_latent(table)[0]) for table in (known, asked))
        if self.cost is not None:
            of_cost = [
                FeatureTable.join([table, cells.table("read", partial(read_table, self.space.zero_ops))])
                for table, cells in ((known, observed), (asked, pool))
            ]
            objectives = np.stack([scores, -self.costs(self.cost)], axis=1)
            return self._rank_two([(known, asked), (of_cost[0], of_cost[1])], objectives, free, n, rng)
        predictor = ScorePredictor(boosters=self.boosters, random_state=int(rng.integers(2**31)))
        mean, deviation = predictor.fit(known, scores, pool=asked).predict_latent(asked)
        ranked = best_first(mean + self.beta * deviation, free, rng)
        short, near = ranked[:SHORTLIST], asked.take(ranked[:SHORTLIST])
        if self.measure is not None and self.signals and len(ranked) > 1:
            short = ranked[: max(self.signals, n)]
            signals = self._signals(self.candidates)
            known = FeatureTable.join([known, signals])
            near = FeatureTable.join([asked.take(short), self._signals([pool.candidate(int(row)) for row in short])])
            # All else is scaled by its spread in the pool as before; that of signals is known among the observed.
            spread = FeatureTable(np.resize(signals.values, (len(asked), signals.values.shape[1])), signals.groups)
            predictor.fit(known, scores, pool=FeatureTable.join([asked, spread]))
            mean_near, deviation_near = predictor.predict_latent(near)
            order = np.argsort(-(mean_near + self.beta * deviation_near), kind="stable")
            short, near, mean_near = short[order], near.take(order), mean_near[order]
            ranked = np.concatenate([short, ranked[len(short) :]])
        else:
            mean_near = mean[short]
        if not self.spread or len(ranked) <= 1:
            return ranked
        covariance = predictor.latent_covariance(near)
        picked = greedy_batch(mean_near, covariance, predictor.noise_, self.beta, min(2 * n, len(short)))
        return np.concatenate([short[picked], np.setdiff1d(ranked, short[picked], assume_unique=True)])

    def _signals(self, candidates: Sequence[Candidate]) -> FeatureTable:
        """Zero-cost signals as features; each candidate is measured once."""
        assert self.measure is not None
        keys = [candidate.key() for candidate in candidates]
        new = {key: candidate for key, candidate in zip(keys, candidates, strict=True) if key not in self._measured}
        self._measured.update(zip(new, self.measure(list(new.values()), self.fidelity), strict=True))
        values = np.stack([self._measured[key] for key in keys])
        return FeatureTable(values, tuple(f"signal {column}" for column in range(values.shape[1])))

    def _rank_two(
        self,
        tables: Sequence[tuple[FeatureTable, FeatureTable]],
        objectives: NDArray[np.float64],
        free: NDArray[np.bool_],
        n: int,
        rng: np.random.Generator,
    ) -> NDArray[np.intp]:
        """By what is expected to be added to the area that the front dominates."""
        mean, deviation = np.empty((2, len(free), 2))
        for k, (known, asked) in enumerate(tables):
            predictor = ScorePredictor(boosters=self.boosters, random_state=int(rng.integers(2**31)))
            mean[:, k], deviation[:, k] = predictor.fit(known, objectives[:, k], pool=asked).predict(
                asked, with_noise=False
            )
        # What lies below the worst of the present front is no compromise anyone asked for.
        front = objectives[NonDominatedSorting().do(-objectives, only_non_dominated_front=True)]
        span = np.ptp(front, axis=0)
        reference = front.min(axis=0) - np.where(span > 0, 0.1 * span, 1.0)
        chosen: list[int] = []
        open_ = free.copy()
        for _ in range(min(2 * n, int(free.sum()))):
            gains = np.where(open_, expected_hypervolume_gain(mean, deviation, front, reference), -1.0)
            pick = int(best_first(gains, open_, rng)[0])
            chosen.append(pick)
            open_[pick] = False
            # Taken at its expected values, so that the next one goes elsewhere on the front.
            front = np.concatenate([front, mean[[pick]]])
        rest = best_first(expected_hypervolume_gain(mean, deviation, front, reference), open_, rng)
        return np.concatenate([np.array(chosen, dtype=np.intp), rest])


def _beside(table: FeatureTable, expected: NDArray[np.float64]) -> FeatureTable:
    return FeatureTable.join([table, FeatureTable(expected.astype(np.float32)[:, None], ("cheap",))])
