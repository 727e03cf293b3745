"""The effective graph of one cell: what is drawn of it."""

from __future__ import annotations

import pytest

from gemnet.cell_graph import CellGraph
from nas.graphs.effective import effective_cell


def test_identities_become_edges_and_zeros_take_theirs_along() -> None:
    cell = CellGraph(
        ("identity", "none", "conv", "pool"), frozenset({(0, 1), (0, 2), (1, 3), (2, 3), (2, 4), (3, 5), (4, 5)})
    )
    found, shares = effective_cell(cell, {"none"}, {"identity"})
    assert found == CellGraph(("conv",), frozenset({(0, 1), (1, 2)}))
    assert shares == {(0, 1): 1.0, (1, 2): 1.0}


def test_shares_say_what_drowns_in_a_mean() -> None:
    # The output takes the mean of the input, through three identities, and of one convolution.
    cell = CellGraph(
        ("identity",) * 3 + ("conv",), frozenset({(0, k) for k in range(1, 5)} | {(k, 5) for k in range(1, 5)})
    )
    found, shares = effective_cell(cell, (), {"identity"})
    assert found == CellGraph(("conv",), frozenset({(0, 1), (0, 2), (1, 2)}))
    assert shares[1, 2] == pytest.approx(1 / 4)
    assert shares[0, 2] == pytest.approx(3 / 4)


@pytest.mark.parametrize("ops", [(), ("identity",)])
def test_cell_that_computes_nothing_is_an_edge(ops) -> None:
    cell = CellGraph(ops, frozenset({(k, k + 1) for k in range(len(ops) + 1)}))
    assert effective_cell(cell, (), {"identity"})[0] == CellGraph((), frozenset({(0, 1)}))
