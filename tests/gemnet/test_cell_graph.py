import copy
import pickle
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemnet.cell_graph import CellGraph, GraphBatch
from gemnet.errors import GraphError

VOCABULARY = ("a", "b", "c")


@st.composite
def cell_graphs(draw: st.DrawFn, max_nodes: int = 30) -> CellGraph:
    inner = draw(st.integers(0, max_nodes))
    ops = draw(st.lists(st.sampled_from(VOCABULARY), min_size=inner, max_size=inner))
    pairs = list(combinations(range(inner + 2), 2))
    return CellGraph(tuple(ops), frozenset(draw(st.lists(st.sampled_from(pairs), max_size=80))))


def relabelled(graph: CellGraph, rng: np.random.Generator) -> CellGraph:
    """The same graph with its inner nodes in another topological order."""
    remaining = {v: set(graph.predecessors(v)) - {0} for v in range(1, graph.size - 1)}
    order = [0]
    while remaining:
        free = sorted(v for v, reads in remaining.items() if not reads)
        v = int(rng.choice(free))
        del remaining[v]
        for reads in remaining.values():
            reads.discard(v)
        order.append(v)
    order.append(graph.size - 1)
    place = {v: k for k, v in enumerate(order)}
    return CellGraph(
        tuple(graph.labels[v] for v in order[1:-1]), frozenset((place[i], place[j]) for i, j in graph.edges)
    )


def bipartite_cycles(lengths: tuple[int, ...]) -> CellGraph:
    """Six nodes reading the input, six feeding the output, joined in cycles of the given lengths."""
    edges, offset = set(), 0
    for length in lengths:
        half = length // 2
        for k in range(half):
            edges |= {(1 + offset + k, 7 + offset + k), (1 + offset + k, 7 + offset + (k + 1) % half)}
        offset += half
    ends = {(0, v) for v in range(1, 7)} | {(v, 13) for v in range(7, 13)}
    return CellGraph(("a",) * 12, frozenset(edges | ends))


@given(cell_graphs(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_isomorphic_graphs_share_canonical_form_and_hash(graph: CellGraph, seed: int) -> None:
    other = relabelled(graph, np.random.default_rng(seed))
    assert other.canonical() == graph.canonical()
    assert other.canonical_hash() == graph.canonical_hash()
    assert graph.canonical().canonical() == graph.canonical()


def test_hash_agrees_with_isomorphism_on_all_pairs_of_small_graphs() -> None:
    rng = np.random.default_rng(0)
    graphs = []
    for _ in range(120):
        ops = tuple(rng.choice(["a", "b"], 3))
        graphs.append(CellGraph(ops, frozenset(e for e in combinations(range(5), 2) if rng.random() < 0.4)))
    equal = 0
    for one, two in combinations(graphs, 2):
        isomorphic = nx.is_isomorphic(
            one.to_networkx(), two.to_networkx(), node_match=lambda x, y: x["label"] == y["label"]
        )
        equal += isomorphic
        assert isomorphic == (one.canonical_hash() == two.canonical_hash())
    assert equal > 0


def test_graphs_that_colour_refinement_cannot_tell_apart_get_different_hashes() -> None:
    one, two = bipartite_cycles((12,)), bipartite_cycles((6, 6))
    colours = [nx.weisfeiler_lehman_graph_hash(g.to_networkx(), node_attr="label", iterations=12) for g in (one, two)]
    assert colours[0] == colours[1]
    assert one.canonical_hash() != two.canonical_hash()


def test_thirty_interchangeable_nodes_are_canonicalised_without_trying_all_orders() -> None:
    chains = frozenset(
        e for c in range(10) for a in [1 + 3 * c] for e in ((0, a), (a, a + 1), (a + 1, a + 2), (a + 2, 31))
    )
    graph = CellGraph(("a",) * 30, chains)
    other = relabelled(graph, np.random.default_rng(3))
    assert other != graph
    assert other.canonical_hash() == graph.canonical_hash()


@given(cell_graphs())
@settings(max_examples=100, deadline=None)
def test_json_and_networkx_round_trip(graph: CellGraph) -> None:
    assert CellGraph.from_json(graph.to_json()) == graph
    assert CellGraph.from_networkx(graph.to_networkx()).canonical_hash() == graph.canonical_hash()


@given(st.lists(cell_graphs(max_nodes=8), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_batch_agrees_with_single_graphs(graphs: list[CellGraph]) -> None:
    batch = GraphBatch.from_graphs(graphs, VOCABULARY)
    predecessors, live, pruned = batch.predecessors(), batch.live(), batch.prune()
    edges = list(zip(*(index.tolist() for index in batch.edge_list()), strict=True))
    for row, graph in enumerate(graphs):
        assert batch.graph(row) == graph
        assert {(i, j) for g, i, j in edges if g == row} == graph.edges
        for v in range(graph.size):
            assert tuple(i for i in range(graph.size) if predecessors[row, v] >> i & 1) == graph.predecessors(v)
        dead = set(graph.dead_nodes())
        assert {v for v in range(1, graph.size - 1) if not live[row, v]} == dead
        assert pruned.graph(row).ops == tuple(op for v, op in enumerate(graph.ops, start=1) if v not in dead)
        assert pruned.graph(row).dead_nodes() == ()
        assert live[row, 0] == live[row, graph.size - 1] == graph.is_connected


def test_concat_and_take_keep_graphs() -> None:
    small = GraphBatch.from_graphs([CellGraph(("a",), frozenset({(0, 1), (1, 2)}))], VOCABULARY)
    large = GraphBatch.from_graphs([CellGraph(("a",) * 9, frozenset({(0, 1), (1, 10)}))], VOCABULARY)
    both = GraphBatch.concat([small, large])
    assert both.graph(0) == small.graph(0)
    assert both.graph(1) == large.graph(0)
    assert len(both.take([])) == 0
    assert both.take(np.array([False, True])).graph(0) == large.graph(0)


@pytest.mark.parametrize(
    ("ops", "edges", "message"),
    [
        (("a",) * 31, {(0, 1)}, "at most 30 inner nodes, got 31"),
        (("a", "a"), {(0, 1), (2, 1)}, r"\(2, 1\) runs backwards"),
        (("a",), {(1, 1)}, "loop"),
        (("a",), {(0, 7)}, r"\(0, 7\) leaves the cell: nodes are 0 \(input\) to 2 \(output\)"),
        (("input",), {(0, 1)}, "other than 'input' and 'output'"),
    ],
)
def test_malformed_graphs_are_refused_by_name(ops: tuple[str, ...], edges: set[tuple[int, int]], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        CellGraph(ops, frozenset(edges))


def test_a_networkx_cycle_is_named() -> None:
    graph = CellGraph(("a", "b"), frozenset({(0, 1), (1, 2), (2, 3)})).to_networkx()
    graph.add_edge(2, 1)
    with pytest.raises(GraphError, match="cycle"):
        CellGraph.from_networkx(graph)


def test_unknown_operation_names_the_nearest() -> None:
    graph = CellGraph(("conv3x3",), frozenset({(0, 1), (1, 2)}))
    with pytest.raises(GraphError, match="Did you mean 'conv_3x3'"):
        GraphBatch.from_graphs([graph], ("conv_3x3", "pool"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "a mapping with 'ops' and 'edges'"),
        ({"ops": []}, "under 'edges'"),
        ({"ops": [], "edges": [], "edge": []}, "Unknown key 'edge'.*'edges'"),
        ({"ops": ["a"], "edges": [[0]]}, r"\[i, j\]"),
        ({"ops": ["a"], "edges": [[0, True]]}, r"\[i, j\]"),
    ],
)
def test_malformed_json_is_refused_by_key(data: object, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        CellGraph.from_json(data)


def test_a_batch_and_its_copies_read_the_same_whether_predecessors_were_asked_for() -> None:
    batch = GraphBatch.from_graphs([CellGraph(("a", "b"), frozenset({(0, 1), (1, 2), (2, 3)}))], VOCABULARY)
    before = pickle.loads(pickle.dumps(batch))
    asked = batch.predecessors()
    assert batch.predecessors() is asked
    for made in (before, pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch), batch.take([0])):
        np.testing.assert_array_equal(made.predecessors(), asked)
    assert batch == batch
    assert len({batch, before}) == 2  # batches are compared and hashed as objects
