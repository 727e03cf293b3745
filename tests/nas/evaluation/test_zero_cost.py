"""Zero-cost signals: what they are of a network one can compute by hand, and that nothing upsets them."""

import math

import pytest
import torch
from torch import nn

from nas.evaluation.zero_cost import input_gradient, log_input_gradient


def test_gradient_of_a_linear_network_is_the_sum_of_its_rows():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    images = torch.randn(6, 3, 4, 4)
    rows = network[1].weight.sum(0)
    torch.testing.assert_close(input_gradient(network, images), rows.reshape(3, 4, 4).expand(6, -1, -1, -1))
    assert log_input_gradient(network, images) == pytest.approx(math.log(math.sqrt(6) * rows.norm().item()), abs=1e-3)


@pytest.mark.parametrize(("factor", "expected"), [(0.0, -30.0), (float("nan"), 30.0), (1e38, 30.0)])
def test_dead_and_exploding_networks_have_the_ends_of_the_range(factor, expected):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        network[1].weight.fill_(factor)
    assert log_input_gradient(network, torch.randn(2, 1, 2, 2)) == expected


def test_weights_images_and_gradients_stay_as_they_were():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 2))
    before = [p.clone() for p in network.parameters()]
    images = torch.randn(2, 1, 2, 2)
    log_input_gradient(network, images)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(p.grad is None for p in network.parameters())
    assert not images.requires_grad
