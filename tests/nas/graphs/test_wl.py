"""WL refinement, features and kernel, against GraKeL and against themselves."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from renumbering import renumbered

from gemnet.cell_graph import CellGraph, GraphBatch
from nas.graphs.wl import (
    WLError,
    WLVocabulary,
    wl_colours,
    wl_features,
    wl_kernel,
    wl_kernel_operator,
    wl_kernel_rows,
)
from nas.spaces.dag import sample_dags

VOCABULARY = ("a", "b", "c")


@pytest.fixture(scope="module")
def graphs() -> GraphBatch:
    return sample_dags(120, VOCABULARY, np.random.default_rng(0), max_nodes=30)


def for_grakel(graphs: GraphBatch) -> list:
    from grakel import Graph

    items = [graphs.graph(k) for k in range(len(graphs))]
    return [Graph({v: list(g.successors(v)) for v in range(g.size)}, dict(enumerate(g.labels))) for g in items]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("iterations", [1, 2, 3, 4, 5])
def test_kernel_equals_grakels(graphs: GraphBatch, iterations: int, normalize: bool) -> None:
    from grakel import WeisfeilerLehman

    theirs = WeisfeilerLehman(n_iter=iterations, normalize=normalize).fit_transform(for_grakel(graphs))
    ours = wl_kernel(graphs, iterations=iterations, normalize=normalize, direction="out")
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_depth_zero_equals_grakels_vertex_histogram(graphs: GraphBatch) -> None:
    from grakel import VertexHistogram

    theirs = VertexHistogram(normalize=True).fit_transform(for_grakel(graphs))
    np.testing.assert_allclose(wl_kernel(graphs, iterations=0, direction="out"), theirs, atol=1e-6)


def test_kernel_between_two_sets_equals_grakels(graphs: GraphBatch) -> None:
    from grakel import WeisfeilerLehman

    kernel = WeisfeilerLehman(n_iter=3, normalize=True).fit(for_grakel(graphs.take(slice(0, 70))))
    theirs = kernel.transform(for_grakel(graphs.take(slice(70, 120))))
    ours = wl_kernel(graphs.take(slice(70, 120)), graphs.take(slice(0, 70)), direction="out")
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("direction", ["both", "out"])
@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_exact_and_hashed_colours_give_the_same_kernel(graphs: GraphBatch, iterations: int, direction) -> None:
    hashed = wl_kernel(graphs, iterations=iterations, direction=direction, normalize=False)
    exact = wl_kernel(graphs, iterations=iterations, direction=direction, normalize=False, exact=True)
    np.testing.assert_array_equal(hashed, exact)


def test_exact_colours_stay_when_more_graphs_come(graphs: GraphBatch) -> None:
    vocabulary = WLVocabulary(3, exact=True).fit(graphs.take(slice(0, 80)))
    later = vocabulary.transform(graphs).toarray()
    np.testing.assert_array_equal(
        later[:80], WLVocabulary(3, exact=True).fit_transform(graphs.take(slice(0, 80))).toarray()
    )


def test_isomorphic_graphs_have_equal_features(graphs: GraphBatch) -> None:
    rng = np.random.default_rng(1)
    others = [renumbered(graphs.graph(k), rng) for k in range(len(graphs))]
    assert any(other != graphs.graph(k) for k, other in enumerate(others))
    vocabulary = WLVocabulary(4).fit(graphs)
    difference = vocabulary.transform(graphs) - vocabulary.transform(others)
    assert abs(difference).max() == 0


def test_both_directions_see_what_successors_alone_do_not() -> None:
    # Two nodes with equal futures and different pasts.
    first = CellGraph(("a", "b", "c", "c"), frozenset({(0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 5), (1, 5)}))
    second = CellGraph(("a", "b", "c", "c"), frozenset({(0, 1), (0, 2), (1, 3), (1, 4), (3, 5), (4, 5), (2, 5)}))
    pair = [first, second]
    for direction in ("both", "out"):
        assert wl_kernel(pair, direction=direction)[0, 1] < 1 - 1e-6
    chain_ends = [
        CellGraph(("a", "b", "c"), frozenset({(0, 1), (1, 3), (0, 2), (2, 3), (3, 4)})),
        CellGraph(("a", "b", "c"), frozenset({(0, 1), (1, 2), (2, 3), (3, 4)})),
    ]
    own_colour = [wl_colours(chain_ends, 1, direction)[:, 1, 3] for direction in ("both", "out")]
    assert own_colour[0][0] != own_colour[0][1]
    assert own_colour[1][0] == own_colour[1][1]


def test_graphs_that_refinement_cannot_tell_apart_have_kernel_one() -> None:
    # Two-layer DAGs from one 12-cycle and from two 6-cycles.
    def two_layers(cycle: list[tuple[int, int]]) -> CellGraph:
        edges = {(1 + i, 7 + j) for i, j in cycle} | {(0, 1 + i) for i in range(6)} | {(7 + j, 13) for j in range(6)}
        return CellGraph(("a",) * 6 + ("b",) * 6, frozenset(edges))

    one = two_layers([(i, i) for i in range(6)] + [(i, (i + 1) % 6) for i in range(6)])
    two = two_layers([(i, i) for i in range(6)] + [(i, i // 3 * 3 + (i + 1) % 3) for i in range(6)])
    assert one.canonical_hash() != two.canonical_hash()
    assert wl_kernel([one, two], iterations=5)[0, 1] == pytest.approx(1, abs=1e-6)


def test_every_depth_counts_every_node_once(graphs: GraphBatch) -> None:
    vocabulary = WLVocabulary(3)
    features = vocabulary.fit_transform(graphs)
    for depth in range(4):
        total = features[:, np.flatnonzero(vocabulary.depth == depth)].sum(axis=1)
        np.testing.assert_array_equal(total, graphs.sizes)
    assert features.shape[1] == len(vocabulary) == len(vocabulary.colours)


def test_new_graphs_are_counted_in_the_old_columns(graphs: GraphBatch) -> None:
    old, new = graphs.take(slice(0, 60)), graphs.take(slice(60, 120))
    vocabulary = WLVocabulary(2)
    features = vocabulary.fit_transform(old)
    kernel = (vocabulary.transform(new) @ features.T).toarray()
    np.testing.assert_array_equal(kernel, wl_kernel(new, old, iterations=2, normalize=False))
    assert vocabulary.transform(new).sum() < WLVocabulary(2).fit_transform(new).sum()  # some colours are new


def test_vocabulary_and_padding_of_a_batch_do_not_matter(graphs: GraphBatch) -> None:
    items = [graphs.graph(k) for k in range(40)]
    other = GraphBatch.from_graphs(items, ("z", "c", "b", "a", "y"))
    np.testing.assert_array_equal(wl_kernel(items, other), wl_kernel(graphs.take(slice(0, 40))))


def test_large_batches_are_chunked_without_a_trace() -> None:
    many = sample_dags(5000, VOCABULARY, np.random.default_rng(2), max_nodes=12)
    whole = wl_colours(many, 2)
    np.testing.assert_array_equal(whole[4000:4100], wl_colours(many.take(slice(4000, 4100)), 2)[:, :, : many.width])
    vocabulary = WLVocabulary(2).fit(many)
    part = vocabulary.transform(many.take(slice(2000, 2300)))
    assert abs(vocabulary.transform(many)[2000:2300] - part).max() == 0


@pytest.mark.parametrize("exact", [False, True])
def test_normalised_kernel_lies_within_0_and_1_and_every_distance_is_a_number(exact: bool) -> None:
    many = sample_dags(300, VOCABULARY, np.random.default_rng(3), max_nodes=30)
    twice = GraphBatch(many.vocabulary, *(np.concatenate([a, a]) for a in (many.sizes, many.ops, many.successors)))
    for kernel in (wl_kernel(twice, exact=exact), wl_kernel(twice, many, exact=exact)):
        assert kernel.min() >= 0
        assert kernel.max() <= 1
        assert np.isfinite(np.sqrt(1 - kernel)).all()
    assert (np.diag(wl_kernel(twice, exact=exact)) == 1).all()
    assert all(block[0, start] == 1 for start, block in wl_kernel_rows(twice, block=7))


@pytest.mark.parametrize("normalize", [True, False])
def test_rows_and_operator_equal_the_kernel(graphs: GraphBatch, normalize: bool) -> None:
    kernel = wl_kernel(graphs, normalize=normalize)
    rows = np.concatenate([block for _, block in wl_kernel_rows(graphs, normalize=normalize, block=17)])
    np.testing.assert_allclose(rows, kernel, rtol=1e-6)
    vectors = np.random.default_rng(0).standard_normal((120, 3))
    operator = wl_kernel_operator(graphs, normalize=normalize)
    np.testing.assert_allclose(operator @ vectors, kernel @ vectors, rtol=1e-4, atol=1e-4)
    assert np.linalg.eigvalsh(kernel).min() > -1e-4


def test_hashed_colours_are_the_same_in_every_process(graphs: GraphBatch) -> None:
    script = (
        "import numpy as np\n"
        "from nas.spaces.dag import sample_dags\n"
        "from nas.graphs.wl import wl_colours\n"
        f"graphs = sample_dags(120, {VOCABULARY!r}, np.random.default_rng(0), max_nodes=30)\n"
        "print(int(np.bitwise_xor.reduce(wl_colours(graphs, 3), axis=None)))\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    printed = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert int(printed) == int(np.bitwise_xor.reduce(wl_colours(graphs, 3), axis=None))


def test_no_graphs_give_an_empty_kernel(graphs: GraphBatch) -> None:
    none = graphs.take([])
    assert wl_kernel(none).shape == (0, 0)
    assert wl_kernel(none, graphs).shape == (0, 120)
    assert wl_kernel(graphs, none).shape == (120, 0)
    assert wl_features([]).shape[0] == 0


@pytest.mark.parametrize("iterations", [-1, 32, 1.5, True])
def test_a_senseless_number_of_iterations_is_named(graphs: GraphBatch, iterations) -> None:
    with pytest.raises(WLError, match="iterations"):
        wl_kernel(graphs, iterations=iterations)


def test_an_unknown_direction_is_named(graphs: GraphBatch) -> None:
    with pytest.raises(WLError, match="'in'"):
        wl_features(graphs, direction="in")  # type: ignore[arg-type]
