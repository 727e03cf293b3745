"""Random forests on structural features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor


def tree_predictions(forest: ExtraTreesRegressor, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """What each tree of a forest predicts; (trees, n)."""
    return np.stack([tree.tree_.predict(features)[:, 0] for tree in forest.estimators_])
