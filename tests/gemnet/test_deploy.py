"""Deployed networks compute what the trained ones do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_genomes import random_genome
from torch import nn

import gemnet
from gemnet.classics import chain
from gemnet.genome import CellSpec, Genome, LayerSpec, StageSpec
from gemnet.network import GEMNet


def with_random_norms(model: nn.Module, seed: int) -> nn.Module:
    """The model in eval mode, every norm with statistics, factors and offsets of its own."""
    rng = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=rng)
            module.running_var.uniform_(0.5, 2, generator=rng)
            module.weight.data.uniform_(-0.5, 1.5, generator=rng)
            module.bias.data.normal_(0, 0.5, generator=rng)
        elif isinstance(module, nn.ParameterDict):
            for weight in module.values():
                weight.data.normal_(0, 1, generator=rng)
    return model.eval()


def error(model: nn.Module, deployed: nn.Module, images: torch.Tensor) -> float:
    """Largest difference, as a fraction of the largest result."""
    with torch.no_grad():
        expected, found = model(images), deployed(images)
    pairs = zip(expected, found, strict=True) if isinstance(expected, list | tuple) else [(expected, found)]
    return max(float((one - other).abs().max() / one.abs().max().clamp_min(1e-6)) for one, other in pairs)


@pytest.mark.parametrize("seed", range(50))
def test_random_genomes_compute_the_same_when_deployed(seed: int) -> None:
    genome = random_genome(np.random.default_rng(seed))
    model = with_random_norms(GEMNet(genome), seed)
    deployed = gemnet.deploy(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())
    images = torch.randn(2, 3, genome.input_size, genome.input_size + 5, generator=torch.Generator().manual_seed(seed))
    assert error(model, deployed, images) < 1e-4


@pytest.mark.parametrize("size", [32, 35])
def test_patches_and_groups_compute_the_same_when_deployed_without_a_pad_of_their_own(size: int) -> None:
    block = CellSpec(chain("conv2x2_bn", "conv3x3w8_bn_act", "conv2x2_bn"), residual="pool_conv1x1_bn")
    genome = Genome((LayerSpec("conv4x4_bn_act", 16, 4),), {"block": block}, (StageSpec("block", 32, 2, 2),))
    model = with_random_norms(GEMNet(genome, num_classes=5), 0)
    deployed = gemnet.deploy(model)
    assert not any(isinstance(module, nn.ZeroPad2d) for module in deployed.modules())
    assert error(model, deployed, torch.randn(2, 3, size, size + 3)) < 1e-4
