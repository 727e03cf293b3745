"""WL refinement, features and kernel, against GraKeL and against themselves."""

from __future__ import annotations

from collections import Counter

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


def exact_kernel(graphs: GraphBatch, iterations: int, direction: str) -> np.ndarray:
    """Colours are numbers from a dictionary of (own colour, successors' colours, predecessors' colours)."""
    items = [graphs.graph(k) for k in range(len(graphs))]
    colours: list[list] = [list(item.labels) for item in items]
    counts = [Counter() for _ in items]
    known: dict[tuple, int] = {}
    for depth in range(iterations + 1):
        for count, own in zip(counts, colours, strict=True):
            count.update((depth, colour) for colour in own)
        for item, own in zip(items, colours, strict=True):
            sides = [item.successors, item.predecessors] if direction == "both" else [item.successors]
            keys = [
                (depth, own[v], *(tuple(sorted(own[w] for w in side(v))) for side in sides)) for v in range(item.size)
            ]
            own[:] = [known.setdefault(key, len(known)) for key in keys]
    return np.array([[sum(one[c] * other[c] for c in one) for other in counts] for one in counts], dtype=float)


@pytest.mark.parametrize("direction", ["both", "out"])
@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_exact_and_hashed_colours_give_the_same_kernel(graphs: GraphBatch, iterations: int, direction) -> None:
    few = graphs.take(slice(0, 60))
    hashed = wl_kernel(few, iterations=iterations, direction=direction, normalize=False)
    np.testing.assert_array_equal(hashed, exact_kernel(few, iterations, direction))


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


def test_normalised_kernel_lies_within_0_and_1_and_every_distance_is_a_number() -> None:
    many = sample_dags(300, VOCABULARY, np.random.default_rng(3), max_nodes=30)
    twice = GraphBatch(many.vocabulary, *(np.concatenate([a, a]) for a in (many.sizes, many.ops, many.successors)))
    for kernel in (wl_kernel(twice), wl_kernel(twice, many)):
        assert kernel.min() >= 0
        assert kernel.max() <= 1
        assert np.isfinite(np.sqrt(1 - kernel)).all()
    assert (np.diag(wl_kernel(twice)) == 1).all()
    assert all(block[0, start] == 1 for start, block in wl_kernel_rows(twice, block=7))


@pytest.mark.parametrize("normalize", [True, False])
def test_rows_equal_the_kernel(graphs: GraphBatch, normalize: bool) -> None:
    kernel = wl_kernel(graphs, normalize=normalize)
    rows = np.concatenate([block for _, block in wl_kernel_rows(graphs, normalize=normalize, block=17)])
    np.testing.assert_allclose(rows, kernel, rtol=1e-6)
    assert np.linalg.eigvalsh(kernel).min() > -1e-4


def test_hashed_colours_are_the_same_in_every_process(graphs: GraphBatch) -> None:
    assert int(np.bitwise_xor.reduce(wl_colours(graphs, 3), axis=None)) == 12305670248688886624


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
        wl_features(graphs, direction="in")  # type: ignore[arg-type]  # what is refused
