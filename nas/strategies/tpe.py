"""Optuna's tree-structured Parzen estimator (TPE) behind ask and tell, in spaces that can be written as choices.

Bergstra, Bardenet, Bengio and Kegl, "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011; Akiba et al., "Optuna:
A Next-generation Hyperparameter Optimization Framework", KDD 2019.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from gemnet.runtimes.packages import require
from nas.spaces.as_choices import AsChoices, Codes
from nas.spaces.base import Candidate, SearchSpace
from nas.strategies.history import HistoryStrategy


class OptunaTPE(HistoryStrategy):
    """Optuna's TPE with its defaults, told of candidates under way as constant liars.

    What it suggests and is known already, or not in the table that is searched, is replaced by the candidate nearest to
    it that is new. A study is made of the history for each batch, so that a resumed search goes on as any other.

    Args:
        space, seed, options: see `HistoryStrategy`.
        multivariate: whether TPE models choices jointly; None leaves that to Optuna.

    Raises:
        MissingPackageError: Optuna is not installed.
        SpaceError: the space can't be written as choices.
    """

    def __init__(self, space: SearchSpace, seed: int, *, multivariate: bool | None = None, **options: Any) -> None:
        super().__init__(space, seed, **options)
        self._optuna = require("optuna")
        self.multivariate = multivariate
        self._choices = AsChoices.of(space, None if self.pool is None else self.pool.batch)
        self._all = None if self.pool is None else self._choices.codes(self.pool.batch)
        self._names = self._choices.names
        distributions = self._optuna.distributions
        self._distributions = {
            name: distributions.IntDistribution(0, size - 1)
            if ordinal
            else distributions.CategoricalDistribution(range(size))
            for name, size, ordinal in zip(
                self._names, self._choices.sizes.tolist(), self._choices.ordinal.tolist(), strict=True
            )
        }

    def propose(
        self, n: int, rng: np.random.Generator, taken: set[Hashable], pending: Sequence[Candidate]
    ) -> list[Candidate]:
        study = self._study(rng, pending)
        known = set(taken)
        found: list[Candidate] = []
        for _ in range(n):
            values = study.ask(self._distributions).params
            candidate = self._new(np.array([values[name] for name in self._names]), known, rng)
            if candidate is None:
                break
            known.add(self.key(candidate))
            found.append(candidate)
        return found

    def _study(self, rng: np.random.Generator, pending: Sequence[Candidate]) -> Any:
        optuna = self._optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it writes a line a study
        sampler = optuna.samplers.TPESampler(
            seed=int(rng.integers(2**31)),
            n_startup_trials=0,  # the history has the random start already
            multivariate=self.multivariate,
            constant_liar=True,
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        states = optuna.trial.TrialState
        told = [(candidate, score) for candidate, score in zip(self.candidates, self.scores().tolist(), strict=True)]
        for candidate, score in [*told, *((candidate, None) for candidate in pending)]:
            codes = self._choices.codes(self.space.pack([candidate]))[0].tolist()
            study.add_trial(
                optuna.trial.create_trial(
                    state=states.RUNNING if score is None else states.COMPLETE,
                    value=score,
                    params=dict(zip(self._names, codes, strict=True)),
                    distributions=self._distributions,
                )
            )
        return study

    def _new(self, codes: Codes, known: set[Hashable], rng: np.random.Generator) -> Candidate | None:
        """The candidate that has these values, or of those that may be proposed one that is nearest to it."""
        if self.pool is None or self._all is None:
            candidate = self._choices.candidate(codes)
            if self.is_new(candidate, known):
                return candidate
            batch = self.admitted(self.space.neighbours(candidate))
            near = [self.space.unpack(batch, int(row)) for row in rng.permutation(len(batch))]
            return next((each for each in near if self.is_new(each, known)), None)
        distances = self._choices.distances(codes, self._all) + 1e-6 * rng.random(len(self._all))
        distances[[key for key in known if isinstance(key, int)]] = np.inf
        nearest = int(np.argmin(distances))
        return self.pool.candidate(nearest) if np.isfinite(distances[nearest]) else None
