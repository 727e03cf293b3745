"""Spaces written as choices."""

from __future__ import annotations

import numpy as np
import pytest

from nas.spaces import make_space
from nas.spaces.as_choices import AsChoices
from nas.spaces.base import SpaceError


def test_a_space_of_choices_is_its_own_and_candidates_come_back() -> None:
    space = make_space(
        "choices", choices={"kernel": [7, 3, 5], "op": ["mb", "identity"], "size": ["s", "m", "l"]}, ordinal=["size"]
    )
    written = AsChoices.of(space, space.all())
    assert written.names == ("kernel", "op", "size")
    assert written.sizes.tolist() == [3, 2, 3]
    assert written.ordinal.tolist() == [True, False, True]
    codes = written.codes(space.all())
    kernels = [dict(space.unpack(space.all(), row).macro)["kernel"] for row in np.argsort(codes[:, 0], kind="stable")]
    assert kernels == sorted(kernels)  # numbers of values in order rise with them
    assert [written.candidate(row) for row in codes] == [space.unpack(space.all(), row) for row in range(len(codes))]


def test_cells_of_one_wiring_are_the_operations_of_their_nodes() -> None:
    space = make_space("nasbench201")
    everything = space.all()
    written = AsChoices.of(space, everything)
    codes = written.codes(everything)
    assert len(np.unique(codes, axis=0)) == len(everything) == np.prod(written.sizes)
    near = written.distances(codes[100], codes)
    assert near[100] == 0
    assert (near == 1).sum() == 6 * 4


def test_values_in_order_are_as_far_apart_as_their_places() -> None:
    space = make_space("choices", choices={"depth": [1, 2, 4], "op": ["a", "b", "c"]})
    codes = np.array([[0, 0], [1, 0], [2, 0], [0, 2]])
    assert AsChoices.of(space, space.all()).distances(codes[0], codes).tolist() == [0, 0.5, 1, 1]


@pytest.mark.parametrize("name", ["gemnet", "darts", "nasbench101"])
def test_other_cells_are_refused(name: str) -> None:
    space = make_space(name)
    with pytest.raises(SpaceError, match="choices"):
        AsChoices.of(space, None)
    with pytest.raises(SpaceError, match="choices"):
        AsChoices.of(make_space("nasbench101"), make_space("nasbench101").sample(50, np.random.default_rng(0)))
