"""Extremely randomised trees on structural features.

In the manner of Kadlecova et al., "Surprisingly Strong Performance Prediction with Neural Graph Features", ICML 2024
(GRAF), who put a random forest on counts, degrees and path lengths; features and forest are ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor

from nas.predictors.features import NEIGHBOURS, SKIPS, WINDOWS, FeatureTable, macro_table, skip_names, structural_table
from nas.predictors.pool import Pool
from nas.predictors.targets import normal_scores
from nas.spaces.base import SearchSpace


class StructuralForest:
    """Learns the normal scores of candidates from their structure, macro choices and costs.

    Args:
        trees: size of the forest.
        seed: of the trees.

    Attributes:
        targets_: normal scores of the observations, (n,).
    """

    def __init__(self, trees: int, seed: int) -> None:
        self._forest = ExtraTreesRegressor(trees, max_features=0.5, random_state=seed)

    def fit(self, observed: Pool, scores: NDArray[np.float64]) -> StructuralForest:
        """Learns from candidates and their scores, (n,)."""
        self.targets_ = normal_scores(scores)
        self._forest.fit(_features(observed), self.targets_)
        return self

    def predict(
        self, pool: Pool, rows: NDArray[np.intp] | slice = slice(None)
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the trees' predictions for the candidates at ``rows``, each (n,)."""
        table = _features(pool)[rows]
        each = np.stack([tree.tree_.predict(table)[:, 0] for tree in self._forest.estimators_])
        return each.mean(axis=0), each.std(axis=0)


def _features(pool: Pool) -> NDArray[np.float32]:
    space = pool.space
    tables = [
        pool.table("structure", lambda batch: structural_table(space, batch)),
        pool.table("macro", lambda batch: macro_table(space, batch)),
    ]
    table = FeatureTable.join(tables)
    # Many columns of which next to nothing is expected: a process has a prior for that, trees have none.
    seen = np.array([group not in (NEIGHBOURS, SKIPS, WINDOWS) for group in table.groups])
    if SKIPS in table.groups:
        seen[np.array(table.groups) == SKIPS] = np.isin(skip_names(space), _names_of_identities(space))
    return table.values[:, seen]


def _names_of_identities(space: SearchSpace) -> list[str]:
    """Of the features with skips as operations those that are about nothing else: how many there are, and where."""
    return [f"{what}/{op}" for what in ("count", "backward", "forward", "reads") for op in space.identity_ops]
