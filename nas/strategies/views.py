"""What models see of a pool's candidates, computed once for each pool."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.spaces.base import CandidateBatch
from nas.strategies.pool import Pool
from nas.structure import structural_features

Features = NDArray[np.float32]


def structure_view(pool: Pool) -> Features:
    """Structural features of the cells, (n, f)."""
    space = pool.space
    return np.asarray(
        pool.view("structure", lambda batch: structural_features(batch.graphs, space.zero_ops, space.identity_ops))
    )


def macro_view(pool: Pool) -> Features:
    """Macro choices, (n, f): a column with the rank of the value where values are numbers, else a column for each value."""

    def compute(batch: CandidateBatch) -> Features:
        columns = []
        for k, values in enumerate(pool.space.macro_choices.values()):
            if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
                columns.append(batch.macro[:, [k]].astype(np.float32))
            else:
                columns.append(np.eye(len(values), dtype=np.float32)[batch.macro[:, k]])
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(batch), 0), dtype=np.float32)

    return np.asarray(pool.view("macro", compute))


def cost_view(pool: Pool) -> Features:
    """Logarithms of MACs and parameters, (n, 0 to 2): what the space knows of them."""

    def compute(batch: CandidateBatch) -> Features:
        known = [values for values in (pool.space.macs(batch), pool.space.params(batch)) if values is not None]
        columns = [np.log(np.maximum(values, 1.0)).astype(np.float32) for values in known]
        return np.stack(columns, axis=1) if columns else np.zeros((len(batch), 0), dtype=np.float32)

    return np.asarray(pool.view("cost", compute))
