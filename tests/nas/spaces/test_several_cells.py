"""Several cells as one graph."""

from __future__ import annotations

import pytest
from split_cells import split_cells

from gemnet.cell_graph import CellGraph
from gemnet.errors import GraphError
from nas.spaces.several_cells import join_cells, operation_of

CHAIN = CellGraph(("a", "b"), frozenset({(0, 1), (1, 2), (2, 3)}))
BRANCH = CellGraph(("a", "c"), frozenset({(0, 1), (0, 2), (1, 3), (2, 3)}))


def test_joined_cells_come_apart_again() -> None:
    joined = join_cells({"normal": CHAIN, "reduction": BRANCH})
    assert split_cells(joined) == {"normal": CHAIN, "reduction": BRANCH}
    assert not joined.dead_nodes()
    assert operation_of("normal/a") == operation_of("a") == "a"


def test_which_cell_is_whose_makes_a_difference_and_their_order_none() -> None:
    one = join_cells({"normal": CHAIN, "reduction": BRANCH})
    assert one == join_cells({"reduction": BRANCH, "normal": CHAIN})
    assert one.canonical_hash() != join_cells({"normal": BRANCH, "reduction": CHAIN}).canonical_hash()


@pytest.mark.parametrize("cells", [{}, {"a/b": CHAIN}, {str(k): CHAIN for k in range(16)}])
def test_what_can_not_be_joined_is_refused(cells: dict[str, CellGraph]) -> None:
    with pytest.raises(GraphError):
        join_cells(cells)


def test_an_edge_past_all_operations_is_the_cells_own() -> None:
    past = CellGraph(("a",), frozenset({(0, 1), (0, 2), (1, 2)}))
    plain = CellGraph(("a",), frozenset({(0, 1), (1, 2)}))
    pairs = [{"normal": n, "reduction": r} for n in (past, plain) for r in (past, plain)]
    assert len({join_cells(pair).canonical_hash() for pair in pairs}) == 4
    joined = join_cells(pairs[1])
    assert joined.ops == ("normal/a", "normal/identity", "reduction/a")
    assert split_cells(joined)["normal"].edges == {(0, 1), (1, 3), (0, 2), (2, 3)}
    assert split_cells(joined)["reduction"] == plain
