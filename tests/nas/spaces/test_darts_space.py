"""The DARTS space: graphs of genotypes, samples, mutations, neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from split_cells import split_cells

from gemnet.cell_graph import CellGraph
from nas.graphs.structure import structural_features
from nas.spaces.base import Candidate, SpaceError
from nas.spaces.darts import DARTS, _genes, cell_from_genotype, genotype_of

SPACE = DARTS()
# The cell of the paper's second order search, by which most others are compared.
DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), "
    "('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)


def test_a_genotype_survives_the_graph() -> None:
    cell = cell_from_genotype(DARTS_V2)
    SPACE.check(Candidate(cell))
    again = str(genotype_of(cell))
    assert cell_from_genotype(again) == cell
    assert "('skip_connect', 0), ('sep_conv_3x3', 1)" in again  # what reads the earlier input comes first
    assert sorted(split_cells(cell)) == ["normal", "reduce"]


def test_samples_children_and_neighbours_are_of_the_space() -> None:
    rng = np.random.default_rng(0)
    drawn = SPACE.sample(50, rng)
    for batch in (
        drawn,
        SPACE.mutate(drawn, rng),
        SPACE.mutate(drawn, rng, 3),
        SPACE.neighbours(SPACE.unpack(drawn, 0)),
    ):
        for k in range(len(batch)):
            candidate = SPACE.unpack(batch, k)
            SPACE.check(candidate)
            assert cell_from_genotype(genotype_of(candidate.cell)) == candidate.cell
    assert drawn.graphs.live().all()
    ops, reads = np.unique(_genes(SPACE.sample(2000, rng).graphs)[..., 0]), _genes(drawn.graphs)[..., 1]
    assert ops.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert (reads[..., 0] < reads[..., 1]).all()


def test_one_edit_changes_one_operation_or_one_input() -> None:
    rng = np.random.default_rng(0)
    parents = SPACE.sample(400, rng)
    before, after = _genes(parents.graphs), _genes(SPACE.mutate(parents, rng).graphs)
    for a, b in zip(before, after, strict=True):
        pairs = [[{tuple(pair) for pair in node} for cell in genes for node in cell] for genes in (a, b)]
        changed = [(x, y) for x, y in zip(*pairs, strict=True) if x != y]
        assert len(changed) == 1
        assert len(changed[0][0] - changed[0][1]) == 1
    near = SPACE.neighbours(SPACE.unpack(parents, 0))
    assert len(near) == 120
    assert len({SPACE.unpack(near, k).key() for k in range(120)}) > 100


def test_cells_that_differ_in_their_kind_have_other_features() -> None:
    text = DARTS_V2.replace("normal", "x").replace("reduce", "normal").replace("x=", "reduce=").replace("x_", "reduce_")
    text = text.replace("mareduce_pool", "max_pool")
    cells = [cell_from_genotype(DARTS_V2), cell_from_genotype(text)]
    batch = SPACE.pack([Candidate(cell) for cell in cells])
    features = structural_features(batch.graphs, SPACE.zero_ops, SPACE.identity_ops)
    assert not np.allclose(features[0], features[1])


def test_other_graphs_are_refused() -> None:
    cell = cell_from_genotype(DARTS_V2)
    for other in (CellGraph(("a",), frozenset({(0, 1), (1, 2)})), CellGraph(cell.ops, cell.edges - {(0, 1)})):
        with pytest.raises(SpaceError, match="cell_from_genotype"):
            SPACE.check(Candidate(other))
    with pytest.raises(SpaceError, match="macro"):
        SPACE.check(Candidate(cell, (("width", 1),)))
