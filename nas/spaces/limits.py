"""Which candidates are within hard limits, and whether any can be: asked before a search spends time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemnet.errors import GemnetError
from nas.spaces.base import CandidateBatch, SearchSpace


class LimitsError(GemnetError):
    """Limits that can't be met, or contradict each other."""


@dataclass(frozen=True)
class Limits:
    """Hard limits: what exceeds one is never proposed.

    Args:
        max_macs: most multiply-adds, or None.
        max_params: most parameters, or None.
        max_latency: most milliseconds per image, or None; the config's ``latency`` names the device.

    Raises:
        LimitsError: a limit that is not positive.
    """

    max_macs: float | None = None
    max_params: float | None = None
    max_latency: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_macs", "max_params", "max_latency"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise LimitsError(f"{name} is a positive number, got {value}.")


SAMPLES, KEPT, ROUNDS = 4_000, 400, 12
"""Where a space can't be listed: candidates drawn, cheapest ones mutated, and how often."""

_SHOWN = {
    "max_macs": ("{:,.0f}", "{:,.0f} MACs"),
    "max_params": ("{:,.0f}", "{:,.0f} parameters"),
    "max_latency": ("{:g} ms", "an estimated latency of {:.3g} ms"),
}
"""How a limit and a figure are shown."""


def figures(space: SearchSpace, limits: Limits, batch: CandidateBatch) -> dict[str, NDArray[np.float64]]:
    """What is limited of each candidate, by the limit's name; each (n,).

    Raises:
        LimitsError: a limit on a figure the space doesn't have.
    """
    found = {}
    for name in _SHOWN:
        limit = getattr(limits, name)
        if limit is None:
            continue
        values = space.cost(name.removeprefix("max_"), batch)
        if values is None:
            raise LimitsError(
                f"{name}={limit:g} is set, but search space {space.name!r} knows no {name[4:]}. Remove the limit."
            )
        found[name] = values
    return found


def admits(space: SearchSpace, limits: Limits, batch: CandidateBatch) -> NDArray[np.bool_]:
    """Which candidates of a batch are within the limits; bool (n,).

    Raises:
        LimitsError: a limit on a figure the space doesn't have.
    """
    inside = np.ones(len(batch), dtype=np.bool_)
    for name, values in figures(space, limits, batch).items():
        inside &= values <= getattr(limits, name)
    return inside


def describe(found: dict[str, NDArray[np.float64]], row: int = 0) -> str:
    """What is limited of one candidate, for people: ``5,738,688 MACs and 194,178 parameters``."""
    return " and ".join(_SHOWN[name][1].format(values[row]) for name, values in found.items())


def check_limits(space: SearchSpace, limits: Limits) -> None:
    """Raises `LimitsError`, with the cheapest candidate found, where no candidate meets the limits."""
    if limits == Limits():
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
    if not len(excess):
        raise LimitsError(f"Space {space.name!r} is empty.")
    found = figures(space, limits, batch)
    wanted = " and ".join(f"{name} = {_SHOWN[name][0].format(getattr(limits, name))}" for name in found)
    broken = " and ".join(name for name, values in found.items() if values[0] > getattr(limits, name))
    raise LimitsError(
        f"No cell of space {space.name!r} meets {wanted}: the one that comes nearest has {describe(found)}. "
        f"Raise {broken}"
        + (
            ", or choose a smaller space (for 'gemnet': size, stage_widths, choices.width; form='imagenet' for images "
            "of 96 pixels and more)."
            if everything is None
            else "."
        )
    )


def _cheapest(space: SearchSpace, limits: Limits, batch: CandidateBatch) -> tuple[CandidateBatch, NDArray[np.float64]]:
    """The candidates nearest to the limits, nearest first, and by what factor each exceeds them."""
    excess: NDArray[np.float64] = np.zeros(len(batch))
    for name, values in figures(space, limits, batch).items():
        excess = np.maximum(excess, values / getattr(limits, name))
    order = np.argsort(excess, kind="stable")[:KEPT]
    return batch.take(order), excess[order]
