"""SMAC3's random forest and expected improvement, in spaces that can be written as choices.

Hutter, Hoos and Leyton-Brown, "Sequential Model-Based Optimization for General Algorithm Configuration", LION 2011;
Lindauer et al., "SMAC3: A Versatile Bayesian Optimization Package for Hyperparameter Optimization", JMLR 2022.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemnet.runtimes.packages import require
from nas.predictors.pool import Pool
from nas.spaces.as_choices import AsChoices
from nas.spaces.base import SearchSpace
from nas.strategies.batch import best_first
from nas.strategies.model import Lesson, ModelStrategy, Prediction


class SMAC(ModelStrategy):
    """What SMAC3's `HyperparameterOptimizationFacade` learns and ranks by, with its defaults, fitted for each batch.

    These are a random forest on the logarithm of scaled costs and expected improvement over the least predicted cost.
    The facade looks for its largest value by local search from few points, which in small spaces of names ends in the
    same one or two, and fills up with random ones; here all of the pool are ranked.

    Args:
        space, seed, options: see `ModelStrategy`; ``acquisition`` and ``beta`` have no effect.

    Raises:
        MissingPackageError: SMAC3 is not installed.
        SpaceError: the space can't be written as choices.
    """

    def __init__(self, space: SearchSpace, seed: int, **options: Any) -> None:
        super().__init__(space, seed, **options)
        self._smac = require("smac")
        spaces = require("ConfigSpace")
        self._choices = AsChoices.of(space, None if self.pool is None else self.pool.batch)
        described = zip(self._choices.names, self._choices.sizes.tolist(), self._choices.ordinal.tolist(), strict=True)
        self._listed: list[Any] = []
        self._written = spaces.ConfigurationSpace(
            {
                name: spaces.UniformIntegerHyperparameter(name, 0, size - 1)
                if ordinal and size > 1
                else spaces.CategoricalHyperparameter(name, range(size))
                for name, size, ordinal in described
            }
        )

    def rank(
        self, lesson: Lesson, pool: Pool, free: NDArray[np.bool_], n: int, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        facade, scenario = self._facade(rng)
        model, told = self._fitted(lesson, facade, scenario)
        gain = facade.get_acquisition_function(scenario)
        gain.update(model=model, eta=float(model.predict_marginalized(told)[0].min()))
        return best_first(gain(self._configs(pool))[:, 0], free, rng)

    def predict(self, lesson: Lesson, pool: Pool, rng: np.random.Generator) -> Prediction:
        model, told = self._fitted(lesson, *self._facade(rng))
        table = np.stack([config.get_array() for config in self._configs(pool)])
        mean, variance = (part[:, 0] for part in model.predict_marginalized(table))
        return Prediction(-mean, np.sqrt(variance), -float(model.predict_marginalized(told)[0].min()))

    def _facade(self, rng: np.random.Generator) -> tuple[Any, Any]:
        scenario = self._smac.Scenario(self._written, deterministic=True, seed=int(rng.integers(2**31)))
        return self._smac.HyperparameterOptimizationFacade, scenario

    def _fitted(self, lesson: Lesson, facade: Any, scenario: Any) -> tuple[Any, NDArray[np.float64]]:
        """The forest, and what it learnt from as an array (n, choices)."""
        history = require("smac.runhistory").RunHistory()
        for config, score in zip(self._configs(lesson.pool), lesson.scores.tolist(), strict=True):
            history.add(config, cost=-score, seed=0)
        encoder = facade.get_runhistory_encoder(scenario)
        encoder.runhistory = history
        told, costs = encoder.transform()
        model = facade.get_model(scenario)
        model.train(told, costs)
        return model, told

    def _configs(self, pool: Pool) -> list[Any]:
        """The pool's candidates as SMAC3 writes them; those of a space that can be listed are kept."""
        if pool is self.pool and self._listed:
            return self._listed
        config, names = require("ConfigSpace").Configuration, self._choices.names
        codes = pool.view("choices", self._choices.codes).tolist()
        found = [config(self._written, values=dict(zip(names, row, strict=True))) for row in codes]
        if pool is self.pool:
            self._listed = found
        return found
