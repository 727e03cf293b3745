"""Genotypes and networks of the DARTS space."""

from __future__ import annotations

import pytest
import torch

from gemnet.darts import OPERATIONS, DARTSNetwork, Genotype
from gemnet.errors import GenomeError

# The cells of the paper's second order search.
DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), "
    "('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)


def test_a_genotype_is_read_and_written() -> None:
    found = Genotype.parse(DARTS_V2)
    assert found.normal[7] == ("dil_conv_3x3", 2)
    assert Genotype.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Genotype(", "no genotype"),
        ("Genotype(normal=[], reduce=[])", "eight pairs"),
        (DARTS_V2.replace("dil_conv_3x3", "dil_conf_3x3"), "Did you mean 'dil_conv_3x3'"),
        (DARTS_V2.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 5)"), r"Node 5 of normal reads \[0, 5\]"),
        (DARTS_V2.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 0)"), r"Node 5 of normal reads \[0, 0\]"),
        (DARTS_V2.replace("[2, 3, 4, 5]", "[4, 5]"), r"range\(2, 6\)"),
        (DARTS_V2.replace("normal_concat", "normal_concatt"), "no genotype"),
        ("__import__('os').getcwd()", "no genotype"),
    ],
)
def test_what_is_no_genotype_is_refused(text: str, words: str) -> None:
    with pytest.raises(GenomeError, match=words):
        Genotype.parse(text)


def test_the_paper_network_has_the_parameters_it_reports() -> None:
    with torch.device("meta"):
        network = DARTSNetwork(Genotype.parse(DARTS_V2))
    # 3.3 M in the paper, counted without the auxiliary head.
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 3.3


@pytest.mark.parametrize("op", OPERATIONS)
def test_networks_of_every_operation_learn_in_a_step(op: str) -> None:
    torch.manual_seed(0)
    pairs = tuple((op if node else "sep_conv_3x3", read) for node in range(4) for read in (0, 1))
    network = DARTSNetwork(Genotype(pairs, pairs), num_classes=4, width=4, layers=3)
    images, labels = torch.randn(8, 3, 9, 9), torch.arange(8) % 4
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05)
    losses = []
    for _ in range(2):
        loss = nn_loss(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.cells.parameters())


nn_loss = torch.nn.functional.cross_entropy
