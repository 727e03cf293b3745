"""What a search's page says, as numbers: nothing here knows of HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.decomposition import PCA

from nas.evaluation.records import Evaluation
from nas.evaluation.score import EfficiencyScore
from nas.predictors.features import FeatureTable
from nas.predictors.scores import ScorePredictor
from nas.search.report.result import Chosen, Row
from nas.spaces.base import CandidateBatch, SearchSpace
from nas.spaces.limits import Limits

Floats = NDArray[np.float64]
FeaturesOf = Callable[[CandidateBatch], FeatureTable]
LEAST_TO_LEARN = 5
"""Evaluations below which a prediction means nothing."""


@dataclass(frozen=True)
class Round:
    """What the predictor expected of a batch before it was evaluated.

    Args:
        first: number of the batch's first proposal.
        numbers: the proposals that succeeded.
        predicted, deviation: expected score and its standard deviation, (n,).
        measured: the score that came out, (n,).
    """

    first: int
    numbers: tuple[int, ...]
    predicted: Floats
    deviation: Floats
    measured: Floats

    @property
    def tau(self) -> float:
        """Kendall's tau between expected and measured; nan for fewer than two, or where one of them is constant."""
        if len(self.numbers) < 2:
            return float("nan")
        return float(kendalltau(self.predicted, self.measured).statistic)


@dataclass(frozen=True)
class Report:
    """A search as its page shows it.

    Args:
        name: heading.
        state: "running", "finished" or "stopped".
        planned: evaluations the search is to make.
        evaluations: those it has made, by number.
        score: what is maximised.
        limits: the hard limits.
        initial: how many evaluations were drawn at random at the start.
        chosen: the candidate it ended with; None while it runs.
        rows: the comparison, the found network first; empty until it is trained.
        device: what the rows' milliseconds are of.
        positions: map of the candidates, (n, 2), a row for each evaluation; None without an embedding.
        rounds: what was predicted.
        seconds: part of the search -> wall-clock time.
        setting: (name, value) pairs: images, space, strategy, fidelity, ...
        command: what was typed.
        versions: package -> version.
        next: (what for, command) pairs.
        rebuild: the command that writes a candidate's genome, with ``{number}`` for its number; "" without one.
        vocabulary: the space's operations.
    """

    name: str
    state: str
    planned: int
    evaluations: tuple[Evaluation, ...]
    score: EfficiencyScore
    limits: Limits = field(default_factory=Limits)
    initial: int = 0
    chosen: Chosen | None = None
    rows: tuple[Row, ...] = ()
    device: str = ""
    positions: Floats | None = None
    rounds: tuple[Round, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    setting: tuple[tuple[str, str], ...] = ()
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    next: tuple[tuple[str, str], ...] = ()
    rebuild: str = ""
    vocabulary: tuple[str, ...] = ()

    def scores(self) -> Floats:
        """Efficiency score of each evaluation, (n,); nan where it failed."""
        return scores_of(self.evaluations, self.score)


def scores_of(evaluations: Sequence[Evaluation], score: EfficiencyScore) -> Floats:
    """Efficiency score of each evaluation, (n,); nan where it failed."""
    return np.array([score.of(each) for each in evaluations], dtype=np.float64)


def best_so_far(scores: Floats) -> Floats:
    """Running maximum, (n,), over what succeeded; nan before the first success."""
    return np.fmax.accumulate(scores) if len(scores) else scores


def expected_best(random: Floats, counts: Sequence[int]) -> Floats:
    """Mean best score of ``n`` random candidates, for each n, as far as those evaluated show.

    With k random scores sorted, the best of n drawn without replacement is the i-th smallest with probability
    C(i - 1, n - 1) / C(k, n). From more than k on nothing is known but that it is at least the best of k.

    Args:
        random: scores of candidates drawn at random, (k,); failed ones are nan and count as the worst.
        counts: numbers n of draws.

    Returns:
        The means, (len(counts),); nan where n is larger than k.
    """
    known = random[np.isfinite(random)]
    if not len(known):
        return np.full(len(counts), np.nan)
    ordered = np.sort(np.concatenate([known, np.full(len(random) - len(known), known.min())]))
    k = len(ordered)
    means = []
    for n in counts:
        if n > k or n < 1:
            means.append(np.nan)
            continue
        weights = np.zeros(k)
        weights[-1] = n / k
        for i in range(k - 2, n - 2, -1):  # C(i, n - 1) from C(i + 1, n - 1)
            weights[i] = weights[i + 1] * (i + 2 - n) / (i + 1)
        means.append(float(weights @ ordered))
    return np.array(means)


def map_of(vectors: NDArray[np.floating]) -> Floats:
    """The first two principal components of embeddings (n, d), as (n, 2)."""
    width = min(2, *vectors.shape)
    flat = PCA(n_components=width, svd_solver="full").fit_transform(vectors.astype(np.float64))
    return np.pad(flat, ((0, 0), (0, 2 - width)))


def failures_of(evaluations: Sequence[Evaluation]) -> list[tuple[str, list[int]]]:
    """(reason, numbers) of what failed, the most frequent reason first."""
    reasons: dict[str, list[int]] = {}
    for each in evaluations:
        if each.status == "failed":
            reasons.setdefault(each.reason or "no reason given", []).append(each.proposal.number)
    return sorted(reasons.items(), key=lambda item: (-len(item[1]), item[1]))


class Hindsight:
    """Asks the predictor, batch by batch, what it would have said before each batch was evaluated.

    It is fitted on the evaluations with smaller numbers only, and each batch is asked for once.

    Args:
        space: the candidates' space.
        features: what the predictor sees of candidates.
        batch: proposals of a batch.
    """

    def __init__(self, space: SearchSpace, features: FeaturesOf, batch: int) -> None:
        self.space, self.features, self.batch = space, features, batch
        self._rounds: dict[int, Round] = {}

    def rounds(self, evaluations: Sequence[Evaluation], score: EfficiencyScore, initial: int) -> tuple[Round, ...]:
        """The whole batches among ``evaluations`` that follow the ``initial`` random ones."""
        begin = -(-max(initial, 1) // self.batch) * self.batch
        starts = list(range(begin, len(evaluations) - self.batch + 1, self.batch))
        missing = [first for first in starts if first not in self._rounds]
        if missing:
            scores = scores_of(evaluations, score)
            table = self.features(self.space.pack([each.proposal.candidate for each in evaluations]))
            for first in missing:
                self._rounds[first] = self._round(table, scores, first)
        return tuple(self._rounds[first] for first in starts if len(self._rounds[first].numbers))

    def _round(self, table: FeatureTable, scores: Floats, first: int) -> Round:
        known = np.flatnonzero(np.isfinite(scores[:first]))
        asked = first + np.flatnonzero(np.isfinite(scores[first : first + self.batch]))
        if len(known) < LEAST_TO_LEARN or not len(asked):
            return Round(first, (), np.zeros(0), np.zeros(0), np.zeros(0))
        predictor = ScorePredictor(random_state=0).fit(table.take(known), scores[known], pool=table)
        mean, deviation = predictor.predict(table.take(asked))
        return Round(first, tuple(asked.tolist()), mean, deviation, scores[asked])
