"""NASGEM: candidates embedded by a WL-guided encoder, ranked by a score predictor, the best evaluated.

Cheng et al., "NASGEM: Neural Architecture Search via Graph Embedding Method", AAAI 2021 (arXiv 2007.04452): the
predictor learns from few evaluated cells, candidates are sampled in bulk, the best are evaluated, and so on. How a
batch is chosen is not in the paper; it is ours.

`Nasgem.rank` puts parts together: features (`nas.predictors.nasgem_features`), a predictor (`nas.predictors.scores`),
an acquisition function (`nas.strategies.acquisition`) and a batch rule (`nas.strategies.batch`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemnet.strict import make
from nas.encoder import EncoderConfig
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.evaluation.remembered import MemorySource, remembered
from nas.predictors.features import FeatureTable, Spread, Table
from nas.predictors.memory import Memory
from nas.predictors.nasgem_features import Parts, features, prepare_encoder, reached_table
from nas.predictors.pool import Pool
from nas.predictors.process import ProcessSettings
from nas.predictors.scores import ScorePredictor
from nas.spaces.base import Candidate, SearchSpace
from nas.strategies.base import Progress
from nas.strategies.batch import best_first, front_of, greedy_batch, hypervolume_batch
from nas.strategies.history import StrategyError, check_least
from nas.strategies.model import Lesson, ModelStrategy, Prediction
from nas.strategies.signals import Signals

FEW = 5  # real evaluations from which nothing is learnt yet where there are cheap ones
_BETA, _BETA_OF_LISTED = 0.5, 2.0
SHORTLIST = 400  # candidates whose errors' covariance is looked at when a batch is put together


See = Callable[[Pool], FeatureTable]
"""What a predictor sees of a pool's candidates, a row each."""


@dataclass(frozen=True, eq=False)
class Shortlist:
    """The most promising of a pool and what predicts them.

    Args:
        rows: their places in the pool, best first, (m,).
        table: what the predictor sees of them, m rows.
        mean: what it expects of them (m,).
        predictor: fitted.
    """

    rows: NDArray[np.intp]
    table: FeatureTable
    mean: NDArray[np.float64]
    predictor: ScorePredictor


class Nasgem(ModelStrategy):
    """Bootstrap search with the embedding, structural features and macro choices as what the predictor sees.

    Args:
        space, seed, options: see `ModelStrategy`.
        acquisition: what ranks candidates: ``ucb``, the upper confidence bound, or ``ei``, expected improvement.
        beta: deviations of the upper confidence bound. None for 2 where the space can be listed, and 0.5 elsewhere: of
            the largest of 20,000 fresh candidates' bounds most are of cells unlike any that was evaluated, and in a
            space without end they never run out (docs/method.md).
        boosters: boosted forests beside the predictor's Gaussian process. They rank a little better and
            take most of the time.
        encoder: how the encoder is trained (an `EncoderConfig`, or its values by name); None searches without
            embedding.
        structure, drawn, untrained: see `Parts`; docs/embedding.md says what two untrained networks are worth, which
            need an encoder beside them.
        spread: whether a batch is spread out by `greedy_batch`; else it is simply the best few.
        cost: a metric that evaluations measure and that is to be small while the score is large; the search is then
            for the front of both, by expected hypervolume whatever ``acquisition`` says.
        cheap_epochs: epochs of cheap evaluations that come first; None does without.
        cheap: how many of them. They are searched like the real ones; then what a predictor learnt from them expects
            of a candidate is one more thing the predictor of real scores sees.
        memory: evaluations of other tasks in this space, `MemorySource` each: another data set's table, earlier
            searches. What they let expect of a candidate is one more thing the predictor sees, and believes as far as
            the evaluations bear it out. Half of the first proposals are what the memory holds best instead of random,
            and half of each batch is chosen without it: the best may be what no other task would let expect.
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
        acquisition: str = "ucb",
        beta: float | None = None,
        boosters: int = 0,
        encoder: EncoderConfig | Mapping[str, Any] | None = EncoderConfig(),  # noqa: B008  frozen
        structure: bool = True,
        drawn: bool = True,
        untrained: int = 0,
        spread: bool = True,
        cost: str | None = None,
        cheap_epochs: int | None = None,
        cheap: int = 100,
        memory: Sequence[MemorySource] = (),
        measure: Callable[[Sequence[Candidate], Fidelity], Table] | None = None,
        signals: int = 16,
        **options: Any,
    ) -> None:
        super().__init__(space, seed, acquisition=acquisition, beta=beta, **options)
        self.signals = signals
        self._signals = None if measure is None or not signals else Signals(measure, self.fidelity)
        self._settled: dict[tuple[int, str], ProcessSettings] = {}
        self.boosters = boosters
        self.cheap = cheap
        self.untrained = untrained
        check_least(self, signals=0, boosters=0, cheap=1, untrained=0)
        if isinstance(encoder, Mapping):
            encoder = make(EncoderConfig, encoder, "strategy.encoder")
        if untrained and encoder is None:
            raise StrategyError(
                f"untrained={untrained} networks look at cells beside the encoder's embedding, and encoder is None. "
                "Set untrained=0, or leave the encoder as it is."
            )
        # Of a space without cells there is nothing to embed.
        self.parts = Parts(encoder if space.vocabulary else None, structure, drawn, untrained)
        self.spread = spread
        self.cost = cost
        tasks = remembered(memory, space, seed)
        self.memory = Memory(space, tasks, self.parts) if tasks else None

        self.low: Nasgem | None = None
        if cheap_epochs is not None:
            if cheap_epochs >= self.fidelity.epochs:
                raise StrategyError(
                    f"Cheap evaluations take fewer epochs than real ones ({self.fidelity.epochs}), "
                    f"got cheap_epochs={cheap_epochs}."
                )
            fidelity = replace(self.fidelity, epochs=cheap_epochs)
            common: dict[str, Any] = {"beta": beta, "encoder": encoder, "structure": structure, "drawn": drawn}
            common |= {"untrained": untrained, "boosters": boosters, "spread": spread}
            common |= {"acquisition": acquisition, "cost": cost, "measure": measure, "signals": signals}
            common |= {"memory": memory}
            self.low = Nasgem(space, seed, **{**options, **common, "fidelity": fidelity})

    def usual_beta(self) -> float:
        return _BETA if self.pool is None else _BETA_OF_LISTED

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

    def start(self, n: int, rng: np.random.Generator, taken: set[Hashable]) -> list[Candidate]:
        """Half of them what the memory holds best, no two alike in what is seen of them, and random ones between."""
        if self.memory is None:
            return super().start(n, rng, taken)
        pool = self._round_pool(rng, ())
        expected = self.memory.table(pool).values.mean(axis=1, dtype=np.float64)
        order = best_first(expected, self._free(pool, rng, taken, ()), rng)
        shown = self._features(pool).take(order[:SHORTLIST]).values
        distinct = order[np.sort(np.unique(shown, axis=0, return_index=True)[1])]
        found = (pool.candidate(int(row)) for row in distinct)
        best = list(islice((candidate for candidate in found if self.is_new(candidate, taken)), n - n // 2))
        return [*best, *self.draw(n - len(best), rng, taken | {self.key(candidate) for candidate in best})]

    def _features(self, pool: Pool) -> FeatureTable:
        """What the predictor sees of a pool's candidates."""
        table = features(pool, self.parts)
        return table if self.memory is None else FeatureTable.join([table, self.memory.table(pool)])

    def rank(
        self, lesson: Lesson, pool: Pool, free: NDArray[np.bool_], n: int, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        plain: See = _once(partial(features, parts=self.parts))
        if self.memory is None:
            return self._ranked(plain, lesson, pool, free, n, rng)
        seed = int(rng.integers(2**31))  # where the memory is not believed both orders are the same
        both = [
            self._ranked(see, lesson, pool, free, n, np.random.default_rng(seed))
            for see in (_once(self._features), plain)
        ]
        rows = np.stack(both, axis=1).ravel()
        return rows[np.sort(np.unique(rows, return_index=True)[1])]

    def _ranked(
        self, see: See, lesson: Lesson, pool: Pool, free: NDArray[np.bool_], n: int, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        """Rows of the pool in the order in which what is seen of candidates would have them proposed."""
        if self.low is not None and len(self.low.candidates) > 1:
            cheap = self._learnt(see, self.low.lesson(), pool, rng)
            if len(lesson.rows) < FEW:
                return best_first(cheap.predict_latent(see(pool))[0], free, rng)
            see = _once(partial(_with_expected, see, cheap))
        if self.cost is not None:
            return self._rank_two(see, lesson, pool, free, n, rng)
        predictor = self._learnt(see, lesson, pool, rng, "score")
        prediction = self._predicted(predictor, see, lesson, pool, free)
        ranked = best_first(self.acquisition(*prediction), free, rng)
        if len(ranked) <= 1:
            return ranked
        rows = ranked[:SHORTLIST]
        shortlist = Shortlist(rows, see(pool).take(rows), prediction.mean[rows], predictor)
        if self._signals is not None:
            shortlist = self._with_signals(see, lesson, pool, ranked[: max(self.signals, n)], predictor)
        first = self._batch(shortlist, n) if self.spread else shortlist.rows
        return np.concatenate([first, np.setdiff1d(ranked, first, assume_unique=True)])

    def predict(self, lesson: Lesson, pool: Pool, rng: np.random.Generator) -> Prediction:
        """What the predictor says before cheap evaluations and signals are looked at."""
        see = _once(self._features)
        return _of(self._learnt(see, lesson, pool, rng, "score"), see(pool))

    def _learnt(
        self, see: See, lesson: Lesson, pool: Pool, rng: np.random.Generator, objective: str | None = None
    ) -> ScorePredictor:
        """A predictor of an objective; one that is named has settled hyper-parameters in a long history."""
        predictor = ScorePredictor(boosters=self.boosters, random_state=int(rng.integers(2**31)))
        reference = see(self._reference(pool))
        settings = None if objective is None else self._settings(see, reference, objective)
        return predictor.fit(see(lesson.pool), lesson.scores, pool=reference, settings=settings)

    def _reference(self, pool: Pool) -> Pool:
        """The candidates by whose spread features are scaled: in a long history always the same."""
        return self._kept.reference if self.is_long and self.pool is None else pool

    def _settings(self, see: See, reference: FeatureTable | Spread, objective: str) -> ProcessSettings | None:
        """Hyper-parameters that a long history is learnt with: those of a part of its beginning."""
        if not self.is_long:
            return None
        key = self.plan.settled(len(self.candidates)), f"{objective} by {len(reference.groups)} columns"
        if key not in self._settled:
            early = self._objective(self.lesson(key[0], self.plan.hyper), objective, key[0])
            model = ScorePredictor(boosters=0).fit(see(early.pool), early.scores, pool=reference)
            self._settled = {k: v for k, v in self._settled.items() if k[0] == key[0]} | {key: model.settings_}
        return self._settled[key]

    def _objective(self, lesson: Lesson, objective: str, first: int | None = None) -> Lesson:
        """A lesson about the cost where that is the objective."""
        if self.cost is None or objective != "cost":
            return lesson
        return replace(lesson, scores=-self.costs(self.cost, first)[lesson.rows])

    def _predicted(
        self, predictor: ScorePredictor, see: See, lesson: Lesson, pool: Pool, free: NDArray[np.bool_]
    ) -> Prediction:
        """What a predictor says of the pool's candidates.

        In a long history it is asked about the most promising alone, by what a coarser one expects; deviations are
        those of the best of these, 0 elsewhere. What is left out keeps its order, below all others.
        """
        table = see(pool)
        if not self.is_long:
            return _of(predictor, table)
        some = slice(None, None, self.plan.coarse)
        coarse = ScorePredictor(boosters=0).fit(
            see(lesson.pool).take(some), lesson.scores[some], see(self._reference(pool)), predictor.settings_
        )
        expected = np.where(free, coarse.predict_mean(table), -np.inf)
        order = np.argsort(-expected, kind="stable")[: int(free.sum())]
        looked, rest = order[: self.plan.looked], order[self.plan.looked :]
        means = predictor.predict_mean(table.take(looked))
        mean, deviation = np.full(len(table), means.min() - 1 - len(table)), np.zeros(len(table))
        mean[looked] = means
        mean[rest] = means.min() - 1 - np.arange(len(rest))
        near = looked[np.argsort(-means, kind="stable")[: self.plan.near]]
        deviation[near] = predictor.predict_latent(table.take(near))[1]
        return Prediction(mean, deviation, float(predictor.targets_.max()))

    def _batch(self, shortlist: Shortlist, n: int) -> NDArray[np.intp]:
        """Rows of the pool that together are worth evaluating; twice as many as wanted, as some may be known."""
        predictor = shortlist.predictor
        picked = greedy_batch(
            shortlist.mean,
            predictor.latent_covariance(shortlist.table),
            predictor.noise_,
            lambda mean, deviation: self.acquisition(mean, deviation, float(predictor.targets_.max())),
            min(2 * n, len(shortlist.rows)),
        )
        return shortlist.rows[picked]

    def _with_signals(
        self, see: See, lesson: Lesson, pool: Pool, rows: NDArray[np.intp], before: ScorePredictor
    ) -> Shortlist:
        """Candidates ranked anew by a predictor that sees their signals, too."""
        assert self._signals is not None
        signals = self._signals
        with_signals = _once(lambda pool: FeatureTable.join([see(pool), signals.table(pool)]))
        # In a long history by the signals that its settings are learnt from, so that a resumed search has the same.
        settled = self.lesson(self.plan.settled(len(self.candidates)), self.plan.hyper) if self.is_long else lesson
        measured = signals.table(settled.pool)
        table = FeatureTable.join([see(pool).take(rows), signals.table(pool, rows)])
        # All else is scaled by its spread in the pool as before; that of signals is known among the observed.
        seen = see(self._reference(pool))
        repeated = FeatureTable(np.resize(measured.values, (len(seen), measured.values.shape[1])), measured.groups)
        reference = Spread.of(seen, repeated)
        predictor = ScorePredictor(boosters=self.boosters, random_state=before.random_state).fit(
            with_signals(lesson.pool),
            lesson.scores,
            pool=reference,
            settings=self._settings(with_signals, reference, "score with signals"),
        )
        prediction = _of(predictor, table)
        order = np.argsort(-self.acquisition(*prediction), kind="stable")
        return Shortlist(rows[order], table.take(order), prediction.mean[order], predictor)

    def _rank_two(
        self,
        see: See,
        lesson: Lesson,
        pool: Pool,
        free: NDArray[np.bool_],
        n: int,
        rng: np.random.Generator,
    ) -> NDArray[np.intp]:
        """By what is expected to be added to the area that the front dominates."""
        assert self.cost is not None
        mean, deviation = np.empty((2, len(free), 2))
        for k, (objective, seen) in enumerate((("score", see), ("cost", _once(partial(_with_read, see))))):
            predictor = self._learnt(seen, self._objective(lesson, objective), pool, rng, objective)
            mean[:, k], deviation[:, k] = predictor.predict(seen(pool), with_noise=False)
        everything = np.stack([self.scores(), -self.costs(self.cost)], axis=1)
        return hypervolume_batch(mean, deviation, front_of(everything), free, 2 * n, rng)


def _once(see: See) -> See:
    """The same, computed once for each pool."""
    return lru_cache(maxsize=None)(see)


def _of(predictor: ScorePredictor, table: FeatureTable) -> Prediction:
    return Prediction(*predictor.predict_latent(table), float(predictor.targets_.max()))


def _with_expected(see: See, cheap: ScorePredictor, pool: Pool) -> FeatureTable:
    """Beside what is seen, what cheap evaluations let expect."""
    table = see(pool)
    expected = cheap.predict_latent(table)[0].astype(np.float32)
    return FeatureTable.join([table, FeatureTable(expected[:, None], ("cheap",))])


def _with_read(see: See, pool: Pool) -> FeatureTable:
    """Beside what is seen, what a cost follows from."""
    return FeatureTable.join([see(pool), pool.table("read", partial(reached_table, pool.space.zero_ops))])
