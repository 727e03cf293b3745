"""The official rules of NAS-Bench-101 and NAS-Bench-201, against published figures and, where at hand, the tables."""

from __future__ import annotations

import os
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_nasbench101 import module_hash, spec_from_cell

from gemnet.cell_graph import CellGraph
from nas.graphs.structure import feature_names, structural_features
from nas.spaces.base import Candidate, CandidateBatch, SpaceError
from nas.spaces.nasbench101 import VOCABULARY as OPS_101
from nas.spaces.nasbench101 import NASBench101, cell_from_spec
from nas.spaces.nasbench201 import NASBench201, arch_from_cell, cell_from_arch, functional_class
from nas.tables.cells import from_adjacency_bits

TABLES = Path(os.environ.get("GEMNET_DATA", "data")) / "nasbench"
RESIDUAL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def table(name: str):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install pyarrow")
    path = TABLES / name
    if not path.exists():
        benchmark = "nasbench101" if name.startswith("nb101") else "nasbench201"
        pytest.skip(f"no {path}: python tools/benchmark.py convert {benchmark} OFFICIAL_FILE --out this")
    return parquet.read_table(path).to_pydict()


@pytest.fixture(scope="module")
def all_201() -> CandidateBatch:
    return NASBench201().all()


def test_nasbench201_has_15625_distinct_cells(all_201: CandidateBatch) -> None:
    assert len(all_201) == 15_625
    assert len(np.unique(all_201.graphs.ops, axis=0)) == 15_625


def test_nasbench201_classes_are_the_published_6466(all_201: CandidateBatch) -> None:
    assert len({functional_class(all_201.graphs.graph(k)) for k in range(len(all_201))}) == 6_466


def test_341_cells_of_nasbench201_have_no_live_path(all_201: CandidateBatch) -> None:
    space = NASBench201()
    cut = feature_names(space.vocabulary, space.zero_ops, space.identity_ops).index("cut/cut")
    assert structural_features(all_201.graphs, space.zero_ops, space.identity_ops)[:, cut].sum() == 341


def test_arch_strings_survive_the_round_trip() -> None:
    space = NASBench201()
    batch = space.sample(50, np.random.default_rng(0))
    for k in range(len(batch)):
        cell = batch.graphs.graph(k)
        assert cell_from_arch(arch_from_cell(cell)) == cell
    assert arch_from_cell(cell_from_arch(RESIDUAL)) == RESIDUAL


@pytest.mark.parametrize(
    ("arch", "culprit"),
    [
        ("|nor_conv_3x3~0|", "form"),
        (RESIDUAL.replace("~2|", "~1|"), "form"),
        (RESIDUAL.replace("skip_connect", "nor_conv_5x5"), "nor_conv_5x5"),
    ],
)
def test_bad_arch_strings_are_refused_with_the_culprit_named(arch: str, culprit: str) -> None:
    with pytest.raises(SpaceError, match=culprit):
        cell_from_arch(arch)


def test_nasbench201_mutation_changes_exactly_as_many_edges_as_asked() -> None:
    space, rng = NASBench201(), np.random.default_rng(1)
    parents = space.sample(500, rng)
    for edits in (1, 2, 6):
        children = space.mutate(parents, rng, edits)
        assert ((children.graphs.ops != parents.graphs.ops).sum(axis=1) == edits).all()


def test_nasbench201_neighbours_are_the_24_cells_one_operation_away() -> None:
    space = NASBench201()
    near = space.neighbours(Candidate(cell_from_arch(RESIDUAL)))
    own = space.pack([Candidate(cell_from_arch(RESIDUAL))]).graphs.ops
    assert len(np.unique(near.graphs.ops, axis=0)) == len(near) == 24
    assert ((near.graphs.ops != own).sum(axis=1) == 1).all()


def test_nasbench201_parameters_and_macs_of_the_empty_network() -> None:
    cell = cell_from_arch(RESIDUAL)
    empty = CellGraph(("none",) * 6, cell.edges)
    batch = NASBench201().pack([Candidate(empty), Candidate(cell)])
    assert NASBench201().params(batch).tolist() == [73_306, 73_306 + 5 * 243_040]
    assert NASBench201().macs(batch).tolist() == [7_783_040, 7_783_040 + 5 * 15 * 9 * 262_144]


def test_nasbench201_parameters_equal_the_table() -> None:
    columns = table("nb201.parquet")
    batch = NASBench201().pack([Candidate(cell_from_arch(arch)) for arch in columns["arch_str"][:3000]])
    assert np.array_equal(NASBench201().params(batch), columns["params_c10"][:3000])


def test_nasbench201_check_refuses_other_graphs_and_macro_choices() -> None:
    space = NASBench201()
    cell = cell_from_arch(RESIDUAL)
    with pytest.raises(SpaceError, match="same edges"):
        space.check(Candidate(CellGraph(cell.ops, cell.edges - {(0, 1)})))
    with pytest.raises(SpaceError, match="macro"):
        space.check(Candidate(cell, (("width", 1.0),)))


# The inception-like cell of the NAS-Bench-101 readme.
SPEC_MATRIX = [
    [0, 1, 1, 1, 0, 1, 0],
    [0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 1, 0, 0],
    [0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 0],
]
SPEC_OPS = ["input", OPS_101[1], OPS_101[0], OPS_101[0], OPS_101[0], OPS_101[2], "output"]


def test_spec_survives_the_round_trip() -> None:
    matrix, ops = spec_from_cell(cell_from_spec(SPEC_MATRIX, SPEC_OPS))
    assert matrix.tolist() == SPEC_MATRIX
    assert list(ops) == SPEC_OPS


def test_spec_is_pruned() -> None:
    matrix = np.array(SPEC_MATRIX)
    matrix[1, 6] = 0
    cell = cell_from_spec(matrix, SPEC_OPS)
    assert cell.ops == tuple(SPEC_OPS[2:-1])
    assert cell.dead_nodes() == ()


def test_module_hash_and_parameters_equal_the_table() -> None:
    columns = table("nb101_valid_30001.parquet")
    cells = []
    for bits, ops, n in zip(columns["adj_bits"][:400], columns["ops"], columns["n"], strict=False):
        matrix = [[bits >> (i * 7 + j) & 1 for j in range(n)] for i in range(n)]
        cells.append(cell_from_spec(matrix, ["input", *(OPS_101[int(op)] for op in ops), "output"]))
    assert [module_hash(cell) for cell in cells] == columns["hash"][:400]
    space = NASBench101()
    params = space.params(space.pack([Candidate(cell) for cell in cells]))
    assert params.tolist() == columns["trainable_parameters"][:400]


def test_nasbench101_parameters_equal_the_whole_table() -> None:
    columns = table("nb101_valid_30001.parquet")
    arrays = [np.array(columns[name]) for name in ("n", "adj_bits", "ops")]
    assert np.array_equal(NASBench101().params(from_adjacency_bits("nb101", *arrays)), columns["trainable_parameters"])


def test_nasbench101_costs_are_one_figure_for_all_drawings_of_a_cell() -> None:
    # Three vertices of unlike cost share 128 channels: who gets the last two must not hang on the drawing.
    ops = (OPS_101[0], OPS_101[1], OPS_101[0], OPS_101[2], OPS_101[2])
    edges = frozenset({(0, 1), (0, 2), (0, 3), (1, 2), (2, 4), (2, 6), (3, 6), (4, 5), (5, 6)})
    drawings = []
    for order in permutations(range(1, 6)):
        place = {0: 0, 6: 6, **{vertex: k + 1 for k, vertex in enumerate(order)}}
        drawn = frozenset((place[i], place[j]) for i, j in edges)
        if all(i < j for i, j in drawn):
            drawings.append(Candidate(CellGraph(tuple(ops[vertex - 1] for vertex in order), drawn)))
    assert len(drawings) > 2
    assert len({each.key() for each in drawings}) == 1
    space = NASBench101()
    assert set(space.params(space.pack(drawings)).tolist()) == {3_078_206}  # the official table's
    assert len(set(space.macs(space.pack(drawings)).tolist())) == 1


def test_module_hash_is_the_same_for_isomorphic_cells_only() -> None:
    a = CellGraph((OPS_101[0], OPS_101[1]), frozenset({(0, 1), (0, 2), (1, 3), (2, 3)}))
    b = CellGraph((OPS_101[1], OPS_101[0]), frozenset({(0, 1), (0, 2), (1, 3), (2, 3)}))
    c = CellGraph((OPS_101[0], OPS_101[0]), frozenset({(0, 1), (0, 2), (1, 3), (2, 3)}))
    assert module_hash(a) == module_hash(b) != module_hash(c)


def test_nasbench101_samples_and_mutants_are_valid_and_new() -> None:
    space, rng = NASBench101(), np.random.default_rng(2)
    parents = space.sample(300, rng)
    assert len(parents) == 300
    for edits in (1, 3):
        children = space.mutate(parents, rng, edits)
        assert len(children) == 300
        for k in range(300):
            parent, child = space.unpack(parents, k), space.unpack(children, k)
            space.check(parent)
            space.check(child)
            assert parent.cell != child.cell


def test_nasbench101_mutation_reaches_every_size_from_the_smallest_cell() -> None:
    space, rng = NASBench101(), np.random.default_rng(3)
    batch = space.pack([Candidate(CellGraph((), frozenset({(0, 1)})))] * 200)
    seen: set[int] = set()
    for _ in range(40):
        batch = space.mutate(batch, rng)
        seen |= set(batch.graphs.sizes.tolist())
    assert seen >= {2, 3, 4, 5, 6}


def test_nasbench101_sampling_depends_on_the_generator_alone() -> None:
    space = NASBench101()
    a, b = (space.sample(64, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(a.graphs.ops, b.graphs.ops)
    assert np.array_equal(a.graphs.successors, b.graphs.successors)


def test_nasbench101_neighbours_are_valid_distinct_and_not_the_cell_itself() -> None:
    space = NASBench101()
    for cell in (cell_from_spec(SPEC_MATRIX, SPEC_OPS), CellGraph((OPS_101[0],), frozenset({(0, 1), (1, 2)}))):
        near = space.neighbours(Candidate(cell))
        hashes = [near.graphs.graph(k).canonical_hash() for k in range(len(near))]
        assert len(set(hashes) | {cell.canonical_hash()}) == len(hashes) + 1
        for k in range(len(near)):
            space.check(space.unpack(near, k))
    changed = {near.graphs.graph(k) for k in range(len(near))}
    assert CellGraph((OPS_101[1],), cell.edges) in changed  # an operation
    assert CellGraph((OPS_101[0],), frozenset({(0, 1), (1, 2), (0, 2)})) in changed  # an edge
    assert any(len(other.ops) == 2 for other in changed)  # a vertex


@pytest.mark.parametrize(
    ("matrix", "ops", "culprit"),
    [
        (np.ones((3, 3)), ["input", OPS_101[0], "output"], "triangular"),
        ([[0, 1], [0, 0]], ["input", OPS_101[0], "output"], "3 x 3"),
        ([[0, 1, 0], [0, 0, 0], [0, 0, 0]], ["input", OPS_101[0], "output"], "No path"),
        ([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", "conv5x5", "output"], "conv5x5"),
        (np.triu(np.ones((5, 5)), 1), ["input", *[OPS_101[0]] * 3, "output"], "at most 9 edges"),
        ([[0, 1, 0], [0, 0, 1], [0, 0, 0]], [OPS_101[0], "input", "output"], "first operation"),
    ],
)
def test_bad_specs_are_refused_with_the_culprit_named(matrix: Any, ops: list[str], culprit: str) -> None:
    with pytest.raises(SpaceError, match=culprit):
        cell_from_spec(matrix, ops)


def test_nasbench101_check_refuses_too_many_vertices_and_dead_ones() -> None:
    space = NASBench101()
    chain = CellGraph((OPS_101[0],) * 6, frozenset((k, k + 1) for k in range(7)))
    with pytest.raises(SpaceError, match="at most 7 vertices"):
        space.check(Candidate(chain))
    with pytest.raises(SpaceError, match="lie on no path"):
        space.check(Candidate(CellGraph((OPS_101[0],) * 2, frozenset({(0, 1), (1, 3)}))))
