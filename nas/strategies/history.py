"""What all strategies share: the evaluations told so far, what is taken, and the numbering of proposals."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gemnet.errors import GemnetError, nearest
from gemnet.strict import at_least
from nas.evaluation.costs import completed
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.evaluation.score import EfficiencyScore
from nas.predictors.pool import Pool, enumerated_pool
from nas.spaces.base import Candidate, CandidateBatch, SearchSpace
from nas.spaces.limits import Limits, LimitsError, admits
from nas.strategies.base import Strategy

DRAWS_PER_ROUND = 64  # candidates drawn at once when looking for one that is new and within the limits
DRAW_ROUNDS = 200  # then the space is taken to be exhausted, or the limits to admit nothing


class StrategyError(GemnetError):
    """A strategy that does not exist, an option it doesn't have, or a number out of range."""


def check_least(options: object, **least: float) -> None:
    """Raises `StrategyError` where an attribute lies below the least value it can have; None may mean anything."""
    at_least("", options, StrategyError, **least)


class HistoryStrategy(Strategy):
    """Keeps the history and asks `propose` for candidates.

    The first ``initial`` proposals are random and the same for every strategy with the same seed, so that runs can be
    compared in pairs.

    Args:
        space: where to search.
        seed: with the number of a proposal, the key of all randomness.
        fidelity: how thoroughly proposals are to be evaluated; evaluations at another fidelity are not learnt from,
            and their candidates may be proposed again.
        score: what is maximised.
        limits: hard limits; what exceeds them is never proposed.
        initial: number of random proposals at the start.

    Raises:
        LimitsError: the space can be listed and no candidate is within the limits.
        StrategyError: ``initial`` below 1.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        *,
        fidelity: Fidelity,
        score: EfficiencyScore | None = None,
        limits: Limits | None = None,
        initial: int = 10,
    ) -> None:
        self.space = space
        self.seed = seed
        self.fidelity = fidelity
        self.score = score or EfficiencyScore()
        self.limits = limits or Limits()
        self.initial = initial
        check_least(self, initial=1)
        self.pool: Pool | None = enumerated_pool(space, self.limits)
        if self.pool is not None and not len(self.pool):
            raise LimitsError(f"No candidate of space {space.name!r} is within the limits {self.limits}. Raise them.")
        self.told = 0
        self.drawn = 0  # random candidates in place of what `propose` did not give
        self.candidates: list[Candidate] = []
        self.numbers: list[int] = []
        self._scores: list[list[float]] = []
        self._means: list[float] = []
        self._metrics: list[Mapping[str, float]] = []
        self._rows: dict[Hashable, int] = {}
        self._taken: set[Hashable] = set()

    def ask(self, n: int, pending: Sequence[Proposal] = ()) -> list[Proposal]:
        first = self.told + len(pending)
        rng = np.random.default_rng([self.seed, first])
        taken = self._taken | {self.key(p.candidate) for p in pending if p.fidelity == self.fidelity}
        if self.is_start(first):
            chosen = self.start(n, rng, taken)
        else:
            chosen = self.propose(n, rng, taken, [proposal.candidate for proposal in pending])
            # A strategy may run out of its own ideas (a pool without anything new); the search goes on at random.
            if len(chosen) < n:
                others = self.draw(n - len(chosen), rng, taken | {self.key(candidate) for candidate in chosen})
                self.drawn += len(others)
                chosen += others
        return [Proposal(first + k, candidate, self.fidelity) for k, candidate in enumerate(chosen)]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        for evaluation in sorted(evaluations, key=lambda e: e.proposal.number):
            self.told += 1
            self._learn(evaluation)

    def is_start(self, number: int) -> bool:
        """Whether proposals from this number on are still of the start."""
        return number < self.initial or not self.candidates

    def start(self, n: int, rng: np.random.Generator, taken: set[Hashable]) -> list[Candidate]:
        """At most ``n`` candidates to begin with: random ones."""
        return self.draw(n, rng, taken)

    @abstractmethod
    def propose(
        self, n: int, rng: np.random.Generator, taken: set[Hashable], pending: Sequence[Candidate]
    ) -> list[Candidate]:
        """At most ``n`` candidates within the limits whose keys are not in ``taken``."""

    def key(self, candidate: Candidate) -> Hashable:
        """Equal for candidates that are the same network."""
        if self.pool is not None:
            index = self.pool.index(candidate)
            if index is not None:
                return index
        return candidate.key()

    def is_new(self, candidate: Candidate, taken: set[Hashable]) -> bool:
        """Whether a candidate may be proposed: not taken, within the limits, in the pool where there is one."""
        if self.pool is not None:
            index = self.pool.index(candidate)
            return index is not None and index not in taken
        return candidate.key() not in taken and self.keeps_limits(candidate)

    def keeps_limits(self, candidate: Candidate) -> bool:
        """Whether a candidate is within the limits by itself: a latency is estimated roughly among thousands."""
        if self.limits.max_latency is None or not self.space.is_closer_alone:
            return True
        return bool(admits(self.space, self.limits, self.space.pack([candidate]))[0])

    def admitted(self, batch: CandidateBatch) -> CandidateBatch:
        """The candidates of a batch that are within the limits."""
        return batch.take(np.flatnonzero(admits(self.space, self.limits, batch)))

    def draw(self, n: int, rng: np.random.Generator, taken: set[Hashable]) -> list[Candidate]:
        """Random candidates, none of them taken and no two the same; fewer than ``n`` where there are no more."""
        if self.pool is not None:
            free = np.setdiff1d(np.arange(len(self.pool)), [k for k in taken if isinstance(k, int)])
            index = rng.choice(free, min(n, len(free)), replace=False)
            return [self.pool.candidate(int(i)) for i in index]
        found: list[Candidate] = []
        seen = set(taken)
        for _ in range(DRAW_ROUNDS if n else 0):
            batch = self.admitted(self.space.sample(max(DRAWS_PER_ROUND, n), rng))
            for row in range(len(batch)):
                candidate = self.space.unpack(batch, row)
                if candidate.key() not in seen and self.keeps_limits(candidate):
                    seen.add(candidate.key())
                    found.append(candidate)
                    if len(found) == n:
                        return found
        if n and not found and not self.candidates and not taken:
            raise LimitsError(
                f"None of {DRAW_ROUNDS * max(DRAWS_PER_ROUND, n)} random candidates of space {self.space.name!r} is "
                f"within the limits {self.limits}. Raise them."
            )
        return found

    def scores(self, first: int | None = None) -> NDArray[np.float64]:
        """Score of each of ``candidates``: the mean of its evaluations, or the worst seen where all failed.

        A failed training says that the candidate is bad, not how bad; the worst score keeps models finite.

        Args:
            first: of the first so many alone, so that what follows from them stays as it was; None for all.
        """
        values = np.array(self._means[:first])
        worst = np.nanmin(values) if np.isfinite(values).any() else 0.0
        return np.where(np.isfinite(values), values, worst)

    def costs(self, metric: str, first: int | None = None) -> NDArray[np.float64]:
        """A measured metric of each of ``candidates``, less is better; the worst seen where there is none.

        Args:
            metric: its name.
            first: of the first so many alone, as in `scores`.

        Raises:
            StrategyError: no evaluation has that metric.
        """
        values = np.array([metrics.get(metric, np.nan) for metrics in self._metrics[:first]])
        if np.isnan(values).all() and not self.failed().all():
            known = sorted({name for metrics in self._metrics for name in metrics})
            raise StrategyError(
                f"cost={metric!r} is to be minimised, but the evaluator measures no such thing.{nearest(metric, known)}"
            )
        return np.where(np.isnan(values), np.nanmax(values) if np.isfinite(values).any() else 0.0, values)

    def failed(self) -> NDArray[np.bool_]:
        """Which of ``candidates`` have no score because every evaluation failed."""
        return np.isnan(np.array(self._means, dtype=np.float64))

    def _learn(self, evaluation: Evaluation) -> None:
        if evaluation.proposal.fidelity != self.fidelity:
            return
        candidate = evaluation.proposal.candidate
        key = self.key(candidate)
        self._taken.add(key)
        if key not in self._rows:
            self._rows[key] = len(self.candidates)
            self.candidates.append(candidate)
            self.numbers.append(evaluation.proposal.number)
            self._scores.append([])
            self._means.append(np.nan)
            self._metrics.append({})
        if evaluation.status == "ok" and evaluation.accuracy is not None and np.isfinite(evaluation.accuracy):
            row = self._rows[key]
            self._scores[row].append(self.score_of(evaluation))
            self._means[row] = float(np.mean(self._scores[row]))
            self._metrics[row] = evaluation.metrics

    def score_of(self, evaluation: Evaluation) -> float:
        """The efficiency score of a finished evaluation."""
        known = not self.score.weight or evaluation.cost(self.score.cost) is not None
        return self.score.of(evaluation if known else completed(evaluation, self.space))
