"""Hand-made blocks and random cells at no more than a network's MACs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gemnet.fitting import RIVAL_BLOCKS, WIDTH_STEP, BaselineError, block_genome, fit_width
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


@pytest.mark.parametrize("block", RIVAL_BLOCKS)
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


@pytest.mark.parametrize("in_chans", [1, 3, 8])
def test_network_at_the_limit_fits_as_it_is(frame, in_chans) -> None:
    exact = fit_width(block_genome("resnet", frame), 12e6)
    limit = macs(exact, in_chans=in_chans)
    assert fit_width(exact, limit, in_chans) == exact
    narrower = fit_width(exact, limit - 1, in_chans)
    assert macs(narrower, in_chans=in_chans) < limit


@pytest.mark.parametrize(
    ("start", "limit", "widths"),
    [
        ([16, 16, 16], 60, [20, 20, 20]),
        ([16, 16, 16], 63.9, [20, 20, 20]),
        ([16, 16, 16], 64, [20, 20, 24]),  # the last stage first
        ([16, 16, 16], 68, [20, 24, 24]),
        ([16, 16, 16], 12, [4, 4, 4]),
        ([4, 4, 4], 480, [160, 160, 160]),  # forty times as wide
        ([8, 16, 32], 350, [48, 100, 200]),
    ],
)
def test_what_is_limited_is_the_cost_that_is_given(frame, start, limit, widths) -> None:
    fitted = fit_width(_at_widths(frame, start), limit, cost=_summed)
    assert [stage.width for stage in fitted.stages] == widths


def test_no_stage_is_widened_more_than_a_step_beyond_what_all_would_be_next(frame) -> None:
    def cost(genome) -> float:
        return 1000 * genome.stages[0].width + _summed(genome)

    fitted = fit_width(_at_widths(frame, [16, 16, 16]), 20_999, cost=cost)  # the first stage's 24 would be too much
    assert [stage.width for stage in fitted.stages] == [20, 28, 28]


def _summed(genome) -> float:
    return float(sum(stage.width for stage in genome.stages))


def _at_widths(genome, widths):
    stages = tuple(replace(stage, width=width) for stage, width in zip(genome.stages, widths, strict=True))
    return genome.replace(stages=stages)
