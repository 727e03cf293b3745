"""Accel-NASBench's space."""

from __future__ import annotations

import numpy as np

from nas.spaces import make_space
from nas.spaces.accel_nasbench import CHOICES
from nas.spaces.choices import EMPTY_CELL, Candidate

PUBLISHED = {
    "e": (6, 4, 6, 6, 6, 1, 1),
    "k": (3, 5, 3, 5, 5, 3, 3),
    "l": (1, 2, 3, 3, 2, 2, 2),
    "se": (0, 0, 0, 0, 0, 0, 0),
}  # the first network of the benchmark: 2,501,160 parameters


def test_parameters_are_the_published_ones() -> None:
    space = make_space("accel_nasbench")
    macro = tuple((name, PUBLISHED[name.split("_")[1]][int(name[5])]) for name in CHOICES)
    network = space.pack([Candidate(EMPTY_CELL, macro)])
    assert space.params(network).tolist() == [2_501_160]
    assert 375e6 < space.macs(network)[0] < 376e6


def test_more_of_anything_costs_more() -> None:
    space = make_space("accel_nasbench")
    first = space.unpack(space.sample(1, np.random.default_rng(0)), 0)
    near = space.neighbours(first)
    own = space.pack([first])
    more = (near.macro > own.macro).any(axis=1)
    assert ((space.params(near) > space.params(own)) | (near.macro != own.macro)[:, 1::4].any(axis=1))[more].all()
    assert (space.macs(near)[more] > space.macs(own)).all()
    assert (space.macs(near)[~more] < space.macs(own)).all()
