"""The front of costs and values."""

from __future__ import annotations

import numpy as np

from gemnet.pareto import pareto_front


def test_pareto_front_is_what_no_other_point_beats() -> None:
    rng = np.random.default_rng(0)
    costs, values = rng.integers(0, 20, 60).astype(float), rng.integers(0, 20, 60).astype(float)
    front = pareto_front(costs, values)
    assert (np.diff(costs[front]) > 0).all()
    assert (np.diff(values[front]) > 0).all()
    on_front = {(costs[k], values[k]) for k in front}
    for cost, value in zip(costs, values, strict=True):
        beaten = any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in zip(costs, values, strict=True))
        assert beaten == ((cost, value) not in on_front)
