"""Can hard limits be met at all? Asked before a search spends time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.score import Budget, BudgetError
from nas.spaces.base import CandidateBatch, SearchSpace

SAMPLES, KEPT, ROUNDS = 4_000, 400, 12
"""Where a space can't be listed: candidates drawn, cheapest ones mutated, and how often."""


def check_limits(space: SearchSpace, limits: Budget) -> None:
    """Raises `BudgetError`, with the cheapest candidate found, where no candidate meets the limits."""
    names = [name for name in ("max_macs", "max_params") if getattr(limits, name) is not None]
    if not names:
        return
    everything = space.all()
    if everything is not None:
        batch, excess = _cheapest(space, limits, everything)
    else:
        rng = np.random.default_rng(0)
        batch, excess = _cheapest(space, limits, space.sample(SAMPLES, rng))
        for _ in range(ROUNDS):
            if excess[0] <= 1:
                return
            children = space.mutate(batch, rng)
            batch, excess = _cheapest(space, limits, CandidateBatch.concat([batch, children]))
    if len(excess) and excess[0] <= 1:
        return
    wanted = " and ".join(f"{name} = {getattr(limits, name):,.0f}" for name in names)
    if not len(excess):
        raise BudgetError(f"Space {space.name!r} is empty.")
    found = {"max_macs": ("MACs", space.macs(batch)), "max_params": ("parameters", space.params(batch))}
    cost = " and ".join(f"{values[0]:,.0f} {unit}" for unit, values in found.values() if values is not None)
    broken = []
    for name in names:
        values = found[name][1]
        if values is not None and values[0] > getattr(limits, name):
            broken.append(name)
    raise BudgetError(
        f"No cell of space {space.name!r} meets {wanted}: the one that comes nearest has {cost}. "
        f"Raise {' and '.join(broken)}, or choose a smaller space (for 'gemnet': size, stage_widths, choices.width)."
    )


def _cheapest(space: SearchSpace, limits: Budget, batch: CandidateBatch) -> tuple[CandidateBatch, NDArray[np.float64]]:
    """The candidates nearest to the limits, nearest first, and by what factor each exceeds them."""
    excess: NDArray[np.float64] = np.zeros(len(batch))
    for limit, values in (
        (limits.max_macs, space.macs(batch) if limits.max_macs is not None else None),
        (limits.max_params, space.params(batch) if limits.max_params is not None else None),
    ):
        if limit is not None and values is not None:
            excess = np.maximum(excess, values / limit)
    if limits.max_macs is not None or limits.max_params is not None:
        limits.admits(space.macs(batch), space.params(batch))  # says so where the space knows no such figure
    order = np.argsort(excess, kind="stable")[:KEPT]
    return batch.take(order), excess[order]
