"""Zero-cost signals of candidates as features for a predictor."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from nas.evaluation.records import Fidelity
from nas.predictors.features import FeatureTable, Table
from nas.predictors.pool import Pool
from nas.spaces.base import Candidate


class Signals:
    """Measures each candidate once.

    Args:
        measure: gives the signals of candidates, (n, k), for evaluations at a fidelity.
        fidelity: theirs.
    """

    def __init__(self, measure: Callable[[Sequence[Candidate], Fidelity], Table], fidelity: Fidelity) -> None:
        self._measure = measure
        self._fidelity = fidelity
        self._known: dict[Hashable, Table] = {}

    def table(self, pool: Pool, rows: NDArray[np.intp] | None = None) -> FeatureTable:
        """Signals of a pool's candidates, or of those at ``rows``, each a group, (n, k)."""
        candidates = [pool.candidate(int(row)) for row in (range(len(pool)) if rows is None else rows)]
        keys = [candidate.key() for candidate in candidates]
        new = {key: candidate for key, candidate in zip(keys, candidates, strict=True) if key not in self._known}
        self._known.update(zip(new, self._measure(list(new.values()), self._fidelity), strict=True))
        values = np.stack([self._known[key] for key in keys])
        return FeatureTable(values, tuple(f"signal {column}" for column in range(values.shape[1])))
