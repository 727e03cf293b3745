"""What predictors see of macro choices that take the same values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from nas.graphs.structure import structural_features
from nas.predictors import features, forest
from nas.predictors.features import FeatureTable, macro_table, neighbour_table, skip_names, structural_table
from nas.predictors.forest import StructuralForest
from nas.predictors.pool import Pool
from nas.predictors.scores import ScorePredictor
from nas.spaces.base import CandidateBatch, SearchSpace
from nas.spaces.choices import ChoiceSpace
from nas.spaces.nasbench201 import NASBench201

LAYERS = ChoiceSpace({**{f"layer{k}": ("identity", "mb3", "mb6") for k in range(6)}, "width": (8, 16)})


def test_each_pair_of_neighbours_that_take_the_same_values_is_a_column() -> None:
    batch = LAYERS.all()
    table = neighbour_table(LAYERS, batch)
    assert set(table.groups) == {"neighbours"}
    pairs = table.values.reshape(len(batch), 5, 3, 3)
    assert (pairs.sum(axis=(2, 3)) == 1).all()
    row = 1000
    codes = batch.macro[row, :6]
    assert [tuple(np.argwhere(pair)[0].tolist()) for pair in pairs[row]] == list(
        zip(codes[:-1].tolist(), codes[1:].tolist(), strict=True)
    )


def test_choices_that_differ_in_values_or_have_many_have_no_pairs() -> None:
    for choices in ({"a": (1, 2), "b": (1, 2, 3)}, {"a": tuple(range(20)), "b": tuple(range(20))}):
        space = ChoiceSpace(choices)
        assert neighbour_table(space, space.all()).values.shape == (len(space.all()), 0)


def test_what_a_layer_follows_on_is_learnt_sooner_with_pairs() -> None:
    batch, rng = LAYERS.all(), np.random.default_rng(0)
    codes = batch.macro[:, :6].astype(int)
    worth = sum(rng.normal(size=(3, 3))[codes[:, k], codes[:, k + 1]] for k in range(5))
    rows = rng.permutation(len(batch))
    table = macro_table(LAYERS, batch)
    others = np.array(table.groups) != "neighbours"
    taus = []
    for columns in (others, np.ones_like(others)):
        seen = FeatureTable(table.values[:, columns], tuple(np.array(table.groups)[columns].tolist()))
        predictor = ScorePredictor(boosters=0).fit(seen.take(rows[:100]), worth[rows[:100]], pool=seen)
        taus.append(kendalltau(predictor.predict_mean(seen.take(rows[100:])), worth[rows[100:]])[0])
    assert taus[1] > taus[0] + 0.02


def test_trees_rank_layers_by_their_sum_as_if_there_were_no_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    codes = LAYERS.all().macro[:, :6].astype(int)
    worth = rng.normal(size=(6, 3))[np.arange(6), codes].sum(axis=1)
    rows = rng.permutation(len(worth))[:40]

    def predicted() -> np.ndarray:
        pool = Pool(LAYERS, LAYERS.all())
        return StructuralForest(30, 0).fit(pool.take(rows), worth[rows]).predict(pool)[0]

    as_it_is = predicted()
    monkeypatch.setattr(features, "neighbour_table", lambda space, batch: FeatureTable(batch.macro[:, :0], ()))
    np.testing.assert_array_equal(as_it_is, predicted())


def test_trees_see_how_many_skips_there_are_and_nothing_more_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    space = NASBench201()
    cells = space.sample(300, np.random.default_rng(0))
    count = structural_features(cells.graphs, space.zero_ops)[:, skip_names(space).index("count/skip_connect")]
    rows = np.arange(100)

    def predicted() -> np.ndarray:
        pool = Pool(space, cells)
        return StructuralForest(30, 0).fit(pool.take(rows), count[rows].astype(np.float64)).predict(pool)[0]

    def shuffled(space: SearchSpace, batch: CandidateBatch) -> FeatureTable:
        """With the columns of skips that are about something else changed."""
        table, names = structural_table(space, batch), iter(skip_names(space))
        values = table.values.copy()
        kept = {f"{what}/skip_connect" for what in ("count", "backward", "forward", "reads")}
        for column in np.flatnonzero(np.array(table.groups) == "skips"):
            if next(names) not in kept:
                values[:, column] = np.random.default_rng(column).permutation(values[:, column])
        return FeatureTable(values, table.groups)

    as_it_is = predicted()
    assert kendalltau(as_it_is[100:], count[100:]).statistic > 0.8
    monkeypatch.setattr(forest, "structural_table", shuffled)
    np.testing.assert_array_equal(as_it_is, predicted())
