"""Similarities that guide the encoder."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.stats import spearmanr

from gemnet.cell_graph import CellGraph, GraphBatch
from nas.encoder.guide import _GRAKEL, GuideError, guide_names, make_guide
from nas.graphs.wl import wl_kernel
from nas.spaces.dag import edit, sample_dags

VOCABULARY = ("a", "b", "c", "d")


def similarity(name: str, graphs: GraphBatch, iterations: int = 3) -> np.ndarray:
    guide = make_guide(name, iterations)
    return guide.gram(guide.features(graphs))


@pytest.fixture(scope="module")
def graphs() -> GraphBatch:
    return sample_dags(40, VOCABULARY, np.random.default_rng(0), max_nodes=10)


@pytest.mark.parametrize("name", guide_names())
def test_a_guide_is_a_normalised_similarity(name: str, graphs: GraphBatch) -> None:
    gram = similarity(name, graphs)
    assert gram.shape == (40, 40)
    assert gram.dtype == np.float32
    np.testing.assert_allclose(gram, gram.T, atol=1e-5)
    np.testing.assert_allclose(np.diag(gram), 1, atol=1e-5)
    assert gram.max() < 1 + 1e-5
    assert gram.std() > 1e-3  # it tells graphs apart


def test_plain_wl_is_the_wl_kernel(graphs: GraphBatch) -> None:
    np.testing.assert_allclose(similarity("wl", graphs, 2), wl_kernel(graphs, iterations=2), atol=1e-5)


def test_graded_wl_by_nodes_compares_histograms_at_depth_zero(graphs: GraphBatch) -> None:
    np.testing.assert_allclose(similarity("graded_wl_by_nodes", graphs, 0), wl_kernel(graphs, iterations=0), atol=1e-5)


def test_graded_wl_does_not_depend_on_the_numbering() -> None:
    first = CellGraph(("a", "b", "c"), frozenset({(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)}))
    second = CellGraph(("b", "a", "c"), frozenset({(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)}))
    gram = similarity("graded_wl", GraphBatch.from_graphs([first, second], VOCABULARY))
    assert gram[0, 1] == pytest.approx(1, abs=1e-5)


def test_graded_wl_tells_direction() -> None:
    before = CellGraph(("a", "b", "c"), frozenset({(0, 1), (1, 2), (2, 3), (3, 4)}))
    after = CellGraph(("b", "a", "c"), frozenset({(0, 1), (1, 2), (2, 3), (3, 4)}))
    assert similarity("graded_wl", GraphBatch.from_graphs([before, after], VOCABULARY))[0, 1] < 0.95


def test_graded_wl_falls_with_every_edit_where_the_plain_kernel_has_nothing_left() -> None:
    rng = np.random.default_rng(3)
    drawn = sample_dags(1500, VOCABULARY, rng, max_nodes=30)
    start = drawn.take(np.flatnonzero(drawn.sizes >= 26)[:60])
    chain = [start]
    for _ in range(10):
        chain.append(edit(chain[-1], rng, 30))
    graded = make_guide("graded_wl")
    first = graded.features(start)
    fall = np.stack([(first * graded.features(graphs)).sum(axis=1) for graphs in chain])
    assert np.median([spearmanr(range(11), -fall[:, k])[0] for k in range(60)]) > 0.9
    assert (np.diff(fall.mean(axis=1)) < 0).all()
    # Pairs of unrelated graphs: what varies beyond the histogram of operations.
    other = rng.permutation(60)
    pairs = np.arange(60)[other != np.arange(60)], other[other != np.arange(60)]
    deeper = 4 * similarity("graded_wl", start)[pairs] - similarity("graded_wl", start, 0)[pairs]
    assert deeper.std() > 0.1


def test_features_of_a_chunk_do_not_depend_on_the_batch() -> None:
    graphs = sample_dags(600, VOCABULARY, np.random.default_rng(5), max_nodes=8)
    guide = make_guide("graded_wl", 2)
    np.testing.assert_allclose(guide.features(graphs)[550:], guide.features(graphs.take(slice(550, 600))), atol=1e-6)


def test_graded_wl_looks_through_identities_and_their_order() -> None:
    through = CellGraph(("a", "i"), frozenset({(0, 1), (0, 2), (2, 3), (1, 3)}))
    around = CellGraph(("a",), frozenset({(0, 1), (0, 2), (1, 2)}))
    graphs = GraphBatch.from_graphs([through, around], (*VOCABULARY, "i"))
    for identity_ops, same in (({"i"}, True), ((), False)):
        guide = make_guide("graded_wl", identity_ops=identity_ops)
        assert (guide.gram(guide.features(graphs))[0, 1] > 1 - 1e-5) == same


def test_graded_wl_weighs_what_feeds_the_output_more_than_what_drowns_in_a_sum() -> None:
    def cell(last: str, early: str) -> CellGraph:
        # Four branches to one sum, then a node on its own.
        edges = {(0, k) for k in range(1, 5)} | {(k, 5) for k in range(1, 5)} | {(5, 6)}
        return CellGraph((early, "a", "a", "a", last), frozenset(edges))

    for name, holds in (("graded_wl", True), ("graded_wl_by_nodes", False)):
        gram = similarity(name, GraphBatch.from_graphs([cell("b", "b"), cell("b", "c"), cell("c", "b")], VOCABULARY), 0)
        assert (gram[0, 1] > gram[0, 2] + 0.05) == holds


def test_an_unknown_guide_is_named_with_the_nearest() -> None:
    with pytest.raises(GuideError, match="'graded_wl'"):
        make_guide("graded_lw")


def test_without_grakel_its_guides_are_refused_by_name_and_the_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grakel", None)
    for name in guide_names():
        if name in _GRAKEL:
            with pytest.raises(GuideError, match=f"{name!r} is a kernel of GraKeL, which is not installed"):
                make_guide(name)
        else:
            make_guide(name)
