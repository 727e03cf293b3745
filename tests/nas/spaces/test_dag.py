from collections.abc import Callable

import numpy as np
import pytest
import torch

from gemnet.cell import Cell
from gemnet.cell_graph import CellGraph, GraphBatch
from gemnet.genome import CellSpec
from nas.spaces.dag import add_node, change_op, edit, flip_edge, remove_node, sample_dags, without_detours

VOCABULARY = ("a", "b", "c", "d")


def assert_well_formed(graphs: GraphBatch, max_nodes: int) -> None:
    column = np.arange(graphs.width)
    inside = column < graphs.sizes[:, None]
    np.testing.assert_array_equal(graphs.live(), inside)
    assert graphs.sizes.min() >= 3
    assert graphs.sizes.max() <= max_nodes + 2
    assert not graphs.successors[~inside].any()
    for row in range(0, len(graphs), 53):
        graph = graphs.graph(row)  # CellGraph checks the order of every edge
        assert graph.dead_nodes() == ()


@pytest.fixture(scope="module")
def graphs() -> GraphBatch:
    return sample_dags(2000, VOCABULARY, np.random.default_rng(0), max_nodes=30)


def test_samples_have_no_dead_nodes_and_all_sizes(graphs: GraphBatch) -> None:
    assert_well_formed(graphs, 30)
    assert set(graphs.sizes.tolist()) == set(range(3, 33))


def test_equal_seeds_give_equal_samples(graphs: GraphBatch) -> None:
    again = sample_dags(2000, VOCABULARY, np.random.default_rng(0), max_nodes=30)
    np.testing.assert_array_equal(again.successors, graphs.successors)
    np.testing.assert_array_equal(again.ops, graphs.ops)


EDITS: dict[str, Callable[[GraphBatch, np.random.Generator], GraphBatch]] = {
    "change_op": change_op,
    "flip_edge": flip_edge,
    "add_node": lambda graphs, rng: add_node(graphs, rng, 30),
    "remove_node": remove_node,
    "edit": lambda graphs, rng: edit(graphs, rng, 30),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_keep_graphs_valid_and_change_most(name: str, graphs: GraphBatch) -> None:
    edited = EDITS[name](graphs, np.random.default_rng(1))
    assert len(edited) == len(graphs)
    assert_well_formed(edited, 30)
    same = np.mean([edited.graph(row) == graphs.graph(row) for row in range(300)])
    assert same < 0.2


def test_change_op_changes_exactly_one_label(graphs: GraphBatch) -> None:
    edited = change_op(graphs, np.random.default_rng(1))
    np.testing.assert_array_equal((edited.ops != graphs.ops).sum(axis=1), 1)


def test_add_then_remove_stay_within_one_node(graphs: GraphBatch) -> None:
    rng = np.random.default_rng(1)
    grown = add_node(graphs, rng, 30)
    np.testing.assert_array_equal(grown.sizes, np.minimum(graphs.sizes + 1, 32))
    shrunk = remove_node(graphs, rng)
    np.testing.assert_array_equal(shrunk.sizes, np.maximum(graphs.sizes - 1, 3))


def test_flip_edge_changes_one_edge_where_no_node_dies(graphs: GraphBatch) -> None:
    edited = flip_edge(graphs, np.random.default_rng(2))
    for row in range(300):
        if edited.sizes[row] == graphs.sizes[row]:
            assert len(edited.graph(row).edges ^ graphs.graph(row).edges) <= 1


def test_a_chain_of_many_edits_stays_valid(graphs: GraphBatch) -> None:
    rng = np.random.default_rng(3)
    walked = graphs.take(slice(0, 300))
    for _ in range(40):
        walked = edit(walked, rng, 12) if walked.sizes.max() <= 14 else remove_node(walked, rng)
    assert_well_formed(walked, 30)


def output_of(graph: CellGraph, expand: str | None, width: int, stride: int) -> torch.Tensor:
    """What a cell computes where all operations of one shape have equal weights: the order of nodes is no matter."""
    cell = Cell(CellSpec(graph, expand=expand, project="conv1x1_bn", inner_ratio=2.0), 8, width, stride).eval()
    with torch.no_grad():
        for parameter in cell.parameters():
            drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            parameter.copy_(0.3 * drawn)
        return cell(torch.randn(2, 8, 9, 9, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("expand", [None, "conv1x1_bn_act"])
@pytest.mark.parametrize(("width", "stride"), [(8, 1), (12, 1), (8, 2), (12, 2)])
def test_cells_without_detours_compute_the_same(expand: str | None, width: int, stride: int) -> None:
    graphs = sample_dags(400, ("dw3x3_bn_act", "conv1x1_bn_act", "identity"), np.random.default_rng(0), max_nodes=9)
    direct = without_detours(graphs, "identity")
    assert_well_formed(direct, 9)
    shorter = np.flatnonzero(direct.sizes < graphs.sizes)
    assert len(shorter) > 30
    for row in shorter[:30]:
        expected = output_of(graphs.graph(row), expand, width, stride)
        torch.testing.assert_close(output_of(direct.graph(row), expand, width, stride), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("expand", [None, "conv1x1_bn_act"])
@pytest.mark.parametrize(("width", "stride"), [(8, 1), (12, 1), (8, 2), (12, 2)])
@pytest.mark.parametrize("pool", ["avg_pool_3x3", "max_pool_3x3"])
@pytest.mark.parametrize("then", [(), ("dw3x3_bn_act",)])
def test_the_input_beside_a_pool_is_its_copy(
    then: tuple[str, ...], pool: str, width: int, stride: int, expand: str | None
) -> None:
    after = {(3, 4)} if then else set()
    copied = CellGraph(("identity", pool, *then), frozenset({(0, 1), (0, 2), (1, 3), (2, 3)} | after))
    direct = without_detours(GraphBatch.from_graphs([copied], ("identity", pool, "dw3x3_bn_act")), "identity").graph(0)
    assert direct.ops == (pool, *then)
    expected = output_of(copied, expand, width, stride)
    torch.testing.assert_close(output_of(direct, expand, width, stride), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("ops", "edges", "left"),
    [
        (("a", "identity", "identity", "a"), {(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)}, ("a", "a")),
        # A mean that one node reads is that node's own mean.
        (("a", "a", "identity", "a"), {(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (4, 5)}, ("a", "a", "a")),
        # The mean of copies of one value is that value.
        (("a", "identity", "identity", "a"), {(0, 1), (1, 2), (1, 3), (1, 4), (2, 4), (3, 4), (4, 5)}, ("a", "a")),
        (("a", "identity"), {(0, 1), (1, 2), (1, 3), (2, 3)}, ("a",)),
        # A copy of the input beside other things is the input: both come pooled where the cell strides.
        (("identity", "a"), {(0, 1), (0, 2), (1, 3), (2, 3)}, ("a",)),
        (("identity", "a", "a"), {(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)}, ("a", "a")),
        # Copies of the input stay, one where nothing else is read; several copies beside other things, and means that
        # are read beside other things.
        (("identity", "a"), {(0, 1), (1, 2), (2, 3)}, ("identity", "a")),
        (("identity", "identity", "a"), {(0, 1), (0, 2), (0, 3), (1, 3), (2, 3), (3, 4)}, ("identity", "a")),
        (("a", "a", "identity"), {(0, 1), (0, 2), (1, 3), (2, 4), (3, 4), (1, 4)}, ("a", "a", "identity")),
        (("a", "a", "identity"), {(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (2, 4)}, ("a", "a", "identity")),
    ],
)
def test_only_identities_without_effect_are_detours(
    ops: tuple[str, ...], edges: set[tuple[int, int]], left: tuple[str, ...]
) -> None:
    graphs = GraphBatch.from_graphs([CellGraph(ops, frozenset(edges))], ("a", "identity"))
    assert without_detours(graphs, "identity").graph(0).ops == left
    assert without_detours(graphs, "conv").graph(0) == graphs.graph(0)


@pytest.mark.parametrize(("width", "stride"), [(8, 1), (8, 2), (12, 2)])
def test_weights_of_means_are_written_in_one_way(width: int, stride: int) -> None:
    # Two parts of the input and one of its largest neighbours: a search of 2026-11-30 trained all four.
    cells = [
        CellGraph(ops, frozenset(edges))
        for ops, edges in (
            (("identity", "pool", "identity", "a"), {(0, 1), (0, 3), (0, 4), (1, 2), (2, 4), (3, 4), (4, 5)}),
            (("identity", "pool", "a"), {(0, 1), (0, 3), (1, 2), (1, 3), (2, 3), (3, 4)}),
            (("identity", "pool", "identity", "a"), {(0, 1), (0, 3), (1, 2), (1, 4), (2, 4), (3, 4), (4, 5)}),
            (
                ("identity", "pool", "identity", "identity", "a"),
                {(0, 1), (0, 3), (0, 4), (1, 2), (2, 5), (3, 5), (4, 5), (5, 6)},
            ),
        )
    ]
    direct = without_detours(GraphBatch.from_graphs(cells, ("a", "identity", "pool")), "identity")
    assert len({direct.graph(row).canonical_hash() for row in range(4)}) == 1
    assert direct.graph(0).ops == ("identity", "pool", "a")
    real = {"a": "dw3x3_bn_act", "pool": "max_pool_3x3", "identity": "identity"}
    expected = output_of(_named(direct.graph(0), real), None, width, stride)
    for cell in cells:
        torch.testing.assert_close(output_of(_named(cell, real), None, width, stride), expected, rtol=0, atol=1e-5)


def _named(graph: CellGraph, names: dict[str, str]) -> CellGraph:
    return CellGraph(tuple(names[op] for op in graph.ops), graph.edges)
