"""Structural features against enumeration of paths, and what they must not depend on."""

from __future__ import annotations

import time
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest

from gemnet.cell_graph import CellGraph, GraphBatch
from gemnet.errors import GraphError
from nas.graphs.structure import feature_names, structural_features
from nas.spaces.dag import sample_dags
from nas.spaces.nasbench201 import NASBench201, cell_from_arch

VOCABULARY = ("conv", "pool", "skip", "zero")
ZERO, IDENTITY = {"zero"}, {"skip"}
NAMES = feature_names(VOCABULARY, ZERO, IDENTITY)


def features(graphs: list[CellGraph] | GraphBatch) -> np.ndarray:
    batch = graphs if isinstance(graphs, GraphBatch) else GraphBatch.from_graphs(graphs, VOCABULARY)
    return structural_features(batch, ZERO, IDENTITY)


def one(graph: CellGraph) -> dict[str, float]:
    return dict(zip(NAMES, features([graph])[0].tolist(), strict=True))


def effective_paths(graph: CellGraph) -> list[list[int]]:
    """Every input-output path of the drawn graph as its nodes without skips; paths over a zero node don't count."""
    labels = graph.labels
    paths = nx.all_simple_paths(graph.to_networkx(), 0, graph.size - 1)
    return [[v for v in path if labels[v] != "skip"] for path in paths if all(labels[v] != "zero" for v in path)]


@pytest.fixture(scope="module")
def small() -> list[CellGraph]:
    batch = sample_dags(120, VOCABULARY, np.random.default_rng(0), max_nodes=7)
    return [batch.graph(k) for k in range(len(batch))]


def test_every_column_has_its_own_name() -> None:
    assert len(set(NAMES)) == len(NAMES) == features([CellGraph((), frozenset({(0, 1)}))]).shape[1]
    large = feature_names([f"op{k}" for k in range(12)])
    assert len(set(large)) == len(large)


def test_path_features_agree_with_enumeration(small: list[CellGraph]) -> None:
    for graph in small:
        paths, found, labels = effective_paths(graph), one(graph), graph.labels
        assert found["cut/cut"] == (not paths)
        for subset in ("conv", "pool", "conv+pool"):
            member = [sum(labels[v] in subset.split("+") for v in path) for path in paths]
            only = [path for path, inside in zip(paths, member, strict=True) if inside == len(path) - 2]
            assert found[f"longest/{subset}"] == max(member, default=-1)
            assert found[f"shortest/{subset}"] == min(member, default=-1)
            assert found[f"paths/{subset}"] == pytest.approx(np.log1p(len(only)), abs=1e-5)
        assert found["paths/(none)"] == pytest.approx(np.log1p(sum(len(path) == 2 for path in paths)), abs=1e-5)


def test_walks_and_edges_agree_with_enumeration(small: list[CellGraph]) -> None:
    for graph in small:
        paths, found, labels = effective_paths(graph), one(graph), graph.labels
        # Multiplicity of an effective edge: drawn paths between its ends that meet nothing but skips.
        drawn = graph.to_networkx()
        live = {v for path in paths for v in path}
        edges = {}
        for a in live:
            for b in live:
                ways = nx.all_simple_paths(drawn, a, b) if a < b else []
                number = sum(all(labels[v] == "skip" for v in way[1:-1]) for way in ways)
                if number:
                    edges[a, b] = number
        into = {b: sum(number for (_, end), number in edges.items() if end == b) for b in live}
        out = {a: sum(number for (start, _), number in edges.items() if start == a) for a in live}
        distinct = {tuple(path) for path in paths}
        for op in ("conv", "pool"):
            backward = forward = 0.0
            for path in distinct:
                here = sum(labels[v] == op for v in path)
                backward += here * float(np.prod([edges[a, b] / into[b] for a, b in pairwise(path)]))
                forward += here * float(np.prod([edges[a, b] / out[a] for a, b in pairwise(path)]))
            assert found[f"backward/{op}"] == pytest.approx(backward, abs=1e-4)
            assert found[f"forward/{op}"] == pytest.approx(forward, abs=1e-4)
            assert found[f"count/{op}"] == sum(labels[v] == op for v in live)
            assert found[f"reads/{op}"] == sum(number for (_, b), number in edges.items() if labels[b] == op)
            assert found[f"edge/{op}>output"] == sum(
                n for (a, b), n in edges.items() if (labels[a], labels[b]) == (op, "output")
            )
        assert found["ends/all"] == sum(edges.values())
        assert found["ends/all once"] == len(edges)
        assert found["ends/input>output"] == edges.get((0, graph.size - 1), 0)
        steps = sum(value for name, value in found.items() if name.startswith("step/") and name.endswith(">output"))
        assert steps == pytest.approx(1.0 if paths else 0.0, abs=1e-5)


def test_isomorphic_graphs_have_equal_features(small: list[CellGraph]) -> None:
    np.testing.assert_allclose(features(small), features([graph.canonical() for graph in small]), atol=1e-5)


def test_features_of_a_graph_do_not_depend_on_its_company() -> None:
    batch = sample_dags(1500, VOCABULARY, np.random.default_rng(1), max_nodes=30)
    together = features(batch)
    for rows in ([3], [1400, 7], list(range(600, 700))):
        np.testing.assert_allclose(features(batch.take(rows)), together[rows], rtol=1e-5, atol=1e-5)


def test_a_skip_equals_an_edge_and_a_zero_equals_nothing() -> None:
    plain = CellGraph(("conv", "pool"), frozenset({(0, 1), (1, 2), (0, 2), (2, 3)}))
    skip = CellGraph(("conv", "skip", "pool"), frozenset({(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)}))
    zero = CellGraph(
        ("conv", "pool", "zero", "conv"), frozenset({(0, 1), (1, 2), (0, 2), (2, 5), (0, 3), (3, 5), (3, 4), (4, 5)})
    )
    a, b, c = features([plain, skip, zero])
    np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(a, c, atol=1e-6)


def test_parallel_skips_count_twice() -> None:
    graph = CellGraph(("skip", "skip"), frozenset({(0, 1), (0, 2), (1, 3), (2, 3)}))
    assert one(graph)["ends/input>output"] == 2
    assert one(graph)["paths/(none)"] == pytest.approx(np.log(3))


def test_cells_of_nasbench201_fall_into_few_classes() -> None:
    space = NASBench201()
    batch = space.all()
    values = structural_features(batch.graphs, space.zero_ops, space.identity_ops)
    distinct = len(np.unique(values.round(4), axis=0))
    assert distinct == 5_425  # a little fewer than the official 6,466, which keep the place of what is cut


def test_functionally_equal_cells_have_equal_features() -> None:
    space = NASBench201()
    archs = [  # a residual block drawn in three ways, and another
        "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|",
        "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
        "|none~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|",
        "|none~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_1x1~2|",
    ]
    batch = GraphBatch.from_graphs([cell_from_arch(arch) for arch in archs], space.vocabulary)
    a, b, c, other = structural_features(batch, space.zero_ops, space.identity_ops)
    np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(a, c, atol=1e-6)
    assert np.abs(a - other).max() >= 1


def test_the_complete_dag_of_thirty_skips_stays_finite() -> None:
    everything = frozenset((i, j) for i in range(32) for j in range(i + 1, 32))
    values = features([CellGraph(("skip",) * 30, everything), CellGraph(("conv",) * 30, everything)])
    assert np.isfinite(values).all()
    table = dict(zip(NAMES, values[1].tolist(), strict=True))
    assert table["longest/conv"] == 30
    assert table["paths/conv"] == pytest.approx(30 * np.log(2), rel=1e-5)


def test_an_operation_cannot_be_zero_and_identity() -> None:
    with pytest.raises(GraphError, match="'skip'"):
        feature_names(VOCABULARY, {"skip"}, {"skip"})


@pytest.mark.slow
def test_twenty_thousand_large_graphs_a_second() -> None:
    batch = sample_dags(40_000, tuple(f"op{k}" for k in range(8)), np.random.default_rng(2), max_nodes=30)
    batch = batch.take(np.flatnonzero(batch.sizes >= 28)[:2048])
    seconds = []
    for _ in range(5):
        start = time.process_time()
        structural_features(batch)
        seconds.append(time.process_time() - start)
    assert len(batch) / min(seconds) > 10_000  # 20,000 on an idle core
