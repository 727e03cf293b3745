"""Hand-made blocks and random cells at no more than a network's MACs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gemnet.fitting import BLOCKS, WIDTH_STEP, BaselineError, block_genome, fit_width
from gemnet.macs import macs
from nas.search.rivals import random_candidates
from nas.spaces.gemnet import GEMNetSpace


@pytest.fixture(scope="module")
def space() -> GEMNetSpace:
    return GEMNetSpace(form="cifar", size="a")


@pytest.fixture(scope="module")
def frame(space):
    """A network of the space."""
    return space.genome(space.unpack(space.sample(1, np.random.default_rng(3)), 0))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("limit", [3e6, 10e6, 60e6])
def test_fitted_block_is_as_wide_as_the_limit_allows(frame, block, limit) -> None:
    fitted = fit_width(block_genome(block, frame), limit)
    assert macs(fitted) <= limit
    assert macs(fitted) > 0.9 * limit
    assert fitted.stem == frame.stem
    assert fitted.head == frame.head
    assert [stage.depth for stage in fitted.stages] == [stage.depth for stage in frame.stages]
    assert all(stage.width % WIDTH_STEP == 0 for stage in fitted.stages)


def test_proportions_of_the_stages_stay_as_they_are(frame) -> None:
    fitted = fit_width(block_genome("mobilenetv2", frame), 20e6)
    ratios = [new.width / old.width for new, old in zip(fitted.stages, frame.stages, strict=True)]
    assert max(ratios) < 1.3 * min(ratios)


def test_network_that_fits_at_no_width_is_an_error(frame) -> None:
    with pytest.raises(BaselineError, match="at the least, more than the 1,000"):
        fit_width(block_genome("resnet", frame), 1000)
    with pytest.raises(BaselineError, match="Did you mean 'resnet'"):
        block_genome("resnett", frame)


def test_random_candidates_are_near_the_limit_and_the_same_again(space) -> None:
    first, second = (random_candidates(space, 8, 10e6, seed=1) for _ in range(2))
    costs = space.macs(first)
    assert len(first) == 8
    assert (costs <= 10e6).all()
    assert (costs >= 5e6).all()
    assert [space.unpack(first, k) for k in range(8)] == [space.unpack(second, k) for k in range(8)]
    other = random_candidates(space, 8, 10e6, seed=2)
    assert space.unpack(first, 0) != space.unpack(other, 0)


@pytest.mark.parametrize("in_chans", [1, 3])
def test_no_network_is_fitted_over_the_limit_and_none_could_be_a_step_wider(space, in_chans) -> None:
    rng = np.random.default_rng(7)
    batch = space.sample(12, rng)
    for row in range(12):
        genome = space.genome(space.unpack(batch, row))
        least = macs(_at_widths(genome, [WIDTH_STEP] * len(genome.stages)), in_chans=in_chans)
        limit = least * float(rng.uniform(1.0, 20.0))
        fitted = fit_width(genome, limit, in_chans)
        assert macs(fitted, in_chans=in_chans) <= limit
        assert fitted.stem == genome.stem
        # All stages a step wider would be too much, or the proportions would forbid it for none.
        wider = _at_widths(fitted, [stage.width + WIDTH_STEP for stage in fitted.stages])
        assert macs(wider, in_chans=in_chans) > limit


def test_network_at_the_limit_fits_as_it_is(frame) -> None:
    exact = fit_width(block_genome("resnet", frame), 12e6)
    assert fit_width(exact, macs(exact)) == exact
    narrower = fit_width(exact, macs(exact) - 1)
    assert macs(narrower) < macs(exact)


def _at_widths(genome, widths):
    stages = tuple(replace(stage, width=width) for stage, width in zip(genome.stages, widths, strict=True))
    return genome.replace(stages=stages)
