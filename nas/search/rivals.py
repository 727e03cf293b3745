"""What the found network is compared with."""

from __future__ import annotations

import numpy as np

from nas.spaces.base import CandidateBatch, SearchSpace


def random_candidates(space: SearchSpace, n: int, max_macs: float, seed: int) -> CandidateBatch:
    """Random candidates of a space that cost no more than a limit and at least half of it, where there are such.

    Args:
        space: where from.
        n: how many.
        max_macs: the limit.
        seed: draws them; independent of every search's own draws.
    """
    rng = np.random.default_rng([seed, 0xBA5E])
    batch = space.sample(2_000, rng)
    costs = space.macs(batch)
    if costs is None:
        return batch.take(slice(0, n))
    near = np.flatnonzero((costs <= max_macs) & (costs >= max_macs / 2))
    if len(near) < n:
        near = np.argsort(np.abs(np.log(costs / max_macs)), kind="stable")
    return batch.take(near[:n])
