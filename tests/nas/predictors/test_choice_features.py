"""What predictors see of macro choices that take the same values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from nas.graphs.structure import structural_features
from nas.predictors import features, forest
from nas.predictors.features import (
    FeatureTable,
    macro_table,
    neighbour_table,
    skip_names,
    structural_table,
    window_table,
)
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


def test_windows_count_each_value_in_each_row_of_two_to_four_layers() -> None:
    batch = LAYERS.all()
    table = window_table(LAYERS, batch)
    assert set(table.groups) == {"windows"}
    codes = batch.macro[1000, :6].tolist()
    expected = [
        codes[start : start + width].count(value)
        for width in (2, 3, 4)
        for start in range(7 - width)
        for value in range(3)
    ]
    assert table.values[1000].tolist() == expected
    two = ChoiceSpace({"a": (1, 2), "b": (1, 2), "c": (1, 2, 3)})
    assert window_table(two, two.all()).values.shape == (12, 0)  # a window of all is what is counted anyway


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


def test_how_much_three_layers_do_together_is_learnt_sooner_with_windows() -> None:
    batch = LAYERS.all()
    work = np.array([0, 1, 1.3])[batch.macro[:, :6].astype(int)]
    sums = np.stack([work[:, start : start + 3].sum(axis=1) for start in range(4)], axis=1)
    worth = -np.square(sums - 1.5) @ np.array([1, 0.5, 1, 0.5])
    table = macro_table(LAYERS, batch)
    others = np.array(table.groups) != "windows"
    taus = []
    for columns in (others, np.ones_like(others)):
        seen = FeatureTable(table.values[:, columns], tuple(np.array(table.groups)[columns].tolist()))
        for seed in range(3):
            rows = np.random.default_rng(seed).permutation(len(batch))
            predictor = ScorePredictor(boosters=0).fit(seen.take(rows[:100]), worth[rows[:100]], pool=seen)
            taus.append(kendalltau(predictor.predict_mean(seen.take(rows[100:])), worth[rows[100:]])[0])
    assert np.mean(taus[3:]) > np.mean(taus[:3]) + 0.015


@pytest.mark.parametrize("taken", ["skips", "windows", "neighbours", "cost", "embedding", "untrained", "remembered"])
def test_what_is_predicted_does_not_depend_on_the_names_of_choices(taken: str) -> None:
    def predicted(name: str) -> list[np.ndarray]:
        space = ChoiceSpace({name: (1, 2, 3, 4, 5), "b": ("x", "y"), "c": ("x", "y"), "d": ("x", "y")})
        pool = Pool(space, space.all())
        worth = pool.batch.macro @ np.array([1.0, 0.3, -0.2, 0.1])
        rows = np.arange(0, len(worth), 3)
        seen = macro_table(space, pool.batch)
        process = ScorePredictor(boosters=1, trees=10).fit(seen.take(rows), worth[rows], pool=seen)
        trees = StructuralForest(30, 0).fit(pool.take(rows), worth[rows])
        return [process.predict_mean(seen), trees.predict(pool)[0]]

    for found, expected in zip(predicted(taken), predicted("a"), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_trees_rank_layers_by_their_sum_as_if_there_were_no_pairs_and_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    codes = LAYERS.all().macro[:, :6].astype(int)
    worth = rng.normal(size=(6, 3))[np.arange(6), codes].sum(axis=1)
    rows = rng.permutation(len(worth))[:40]

    def predicted() -> np.ndarray:
        pool = Pool(LAYERS, LAYERS.all())
        return StructuralForest(30, 0).fit(pool.take(rows), worth[rows]).predict(pool)[0]

    as_it_is = predicted()
    for name in ("neighbour_table", "window_table"):
        monkeypatch.setattr(features, name, lambda space, batch: FeatureTable(batch.macro[:, :0], ()))
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
