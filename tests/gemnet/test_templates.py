"""Templates: what surrounds a searched cell."""

from __future__ import annotations

import pytest
import torch

from gemnet.classics import chain
from gemnet.errors import GenomeError
from gemnet.genome import LayerSpec
from gemnet.macs import cost
from gemnet.network import GEMNet
from gemnet.templates import BLOCKS, Template, template


def around(**changes: object) -> Template:
    values = {
        "form": "imagenet",
        "size": "a",
        "stem_width": 8,
        "widths": (8, 16, 24),
        "depths": (1, 2, 2),
        "strides": (2, 2, 2),
        "head_width": 0,
        "input_size": 32,
        "num_classes": 5,
    }
    return Template(**(values | changes))


@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_every_block_can_take_an_early_stage_and_begin_a_late_one(block: str) -> None:
    made = around(cells=(block, "cell", "cell"), reductions=(None, None, block))
    genome = made.genome(chain("dw3x3_bn_act"), inner_ratio=2)
    assert [(stage.cell, stage.downsample, stage.depth) for stage in genome.stages] == [
        (block, None, 1),
        ("cell", None, 2),
        ("cell", block, 1),
    ]
    network = GEMNet(genome)
    assert network(torch.randn(2, 3, 33, 32)).shape == (2, 5)
    assert cost(genome).params == sum(parameter.numel() for parameter in network.parameters())


def test_a_stem_of_patches_replaces_the_convolution() -> None:
    made = around(stem=(LayerSpec("conv4x4_bn", 8, 4),), strides=(1, 2, 2))
    genome = made.genome(chain("dw3x3_bn_act"), expand=None, inner_ratio=1)
    assert [level.reduction for level in genome.levels] == [4, 8, 16]
    assert genome.head == ()
    assert GEMNet(genome)(torch.randn(1, 3, 35, 32)).shape == (1, 5)


def test_the_searched_cell_must_be_somewhere() -> None:
    with pytest.raises(GenomeError, match="'cell', which is searched"):
        around(cells=("basic",) * 3)
    with pytest.raises(GenomeError, match="Did you mean 'basic'"):
        around(cells=("basik", "cell", "cell"))
    with pytest.raises(GenomeError, match="3 stages"):
        around(cells=("cell", "cell"))


def test_what_is_not_said_keeps_the_form_that_ledgers_know_a_network_by() -> None:
    assert set(template().to_dict()) == {
        "form",
        "size",
        "stem_width",
        "widths",
        "depths",
        "strides",
        "head_width",
        "input_size",
        "num_classes",
        "width_step",
    }
