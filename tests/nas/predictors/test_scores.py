"""The score predictor: that it learns, knows how little it knows, and repeats itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau, norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, RationalQuadratic

from nas.graphs.structure import feature_names
from nas.predictors.features import (
    FeatureTable,
    PredictorError,
    Spread,
    embedding_table,
    macro_table,
    structural_table,
    untrained_table,
)
from nas.predictors.scores import ScorePredictor, _Warp
from nas.spaces import make_space
from nas.spaces.base import Candidate
from nas.spaces.nasbench201 import NASBench201, cell_from_arch

TABLE = Path(os.environ.get("GEMNET_DATA", "data")) / "nasbench" / "nb201.parquet"


@pytest.fixture(scope="module")
def task() -> tuple[FeatureTable, np.ndarray]:
    """600 cells of NAS-Bench-201 and a made-up accuracy: depth and convolutions help, pooling hurts; noise 0.3."""
    space, rng = NASBench201(), np.random.default_rng(0)
    batch = space.sample(600, rng)
    table = structural_table(space, batch)
    column = {group: table.values[:, np.array(table.groups) == group] for group in set(table.groups)}
    truth = 90 + 3 * np.tanh(column["longest"][:, -1] / 2) + np.sqrt(column["count"][:, 1]) - column["backward"][:, 2]
    truth = np.where(column["cut"][:, 0] > 0, 10.0, truth)
    return table, truth + 0.3 * rng.normal(size=len(truth))


def fitted(task: tuple[FeatureTable, np.ndarray], n: int, **options: Any) -> ScorePredictor:
    table, scores = task
    return ScorePredictor(**options).fit(table.take(slice(0, n)), scores[:n], pool=table)


@pytest.mark.parametrize(("n", "least"), [(10, 0.35), (40, 0.6), (200, 0.75)])
def test_ranks_cells_it_never_saw(task: tuple[FeatureTable, np.ndarray], n: int, least: float) -> None:
    table, scores = task
    mean, deviation = fitted(task, n).predict(table.take(slice(200, None)))
    assert mean.shape == deviation.shape == (400,)
    assert kendalltau(mean, scores[200:])[0] > least


def test_intervals_cover_what_they_promise(task: tuple[FeatureTable, np.ndarray]) -> None:
    table, scores = task
    mean, deviation = fitted(task, 150).predict(table.take(slice(150, None)))
    away = np.abs(scores[150:] - mean) / deviation
    for share in (0.5, 0.9):
        assert share - 0.15 < np.mean(away < norm.ppf(0.5 + share / 2)) < min(share + 0.2, 0.995)


def test_untrained_networks_are_groups_that_trees_do_not_see(task: tuple[FeatureTable, np.ndarray]) -> None:
    plain, scores = task
    hidden = np.random.default_rng(5).normal(size=(len(scores), 2)).astype(np.float32)
    found = np.repeat(hidden, 3, axis=1)
    table = FeatureTable.join([plain, untrained_table(found, 2)])
    assert table.groups[-6:] == ("untrained 0",) * 3 + ("untrained 1",) * 3
    # What the second network alone sees is learnt where it counts, and is otherwise left out.
    for seen, least, most in ((scores, 0.0, 0.02), (scores / scores.std() + 2 * hidden[:, 1], 0.1, 1e9)):
        process = ScorePredictor(boosters=0).fit(table.take(slice(0, 200)), seen[:200], pool=table)
        assert process.settings_.relevance["untrained 0"] < 0.02
        assert least < process.settings_.relevance["untrained 1"] < most
    alike = [
        ScorePredictor(boosters=1, booster_weight=1.0).fit(each.take(slice(0, 60)), scores[:60], pool=each)
        for each in (plain, table)
    ]
    np.testing.assert_array_equal(
        *(model.predict_mean(each) for model, each in zip(alike, (plain, table), strict=True))
    )


def test_skips_tell_apart_what_computes_the_same_and_count_where_they_matter() -> None:
    space = NASBench201()
    batch = space.sample(2500, np.random.default_rng(0))
    table = structural_table(space, batch)
    skips = np.array(table.groups) == "skips"
    twins = ["|nor_conv_1x1~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_3x3~2|"]
    twins += ["|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"]
    same, edge = structural_table(space, space.pack([Candidate(cell_from_arch(arch)) for arch in twins])).values
    assert (same[~skips] == edge[~skips]).all()
    assert (same[skips] != edge[skips]).any()

    names = feature_names(space.vocabulary, space.zero_ops)
    counts = table.values[:, skips][:, [names.index(f"count/{op}") for op in ("skip_connect", "nor_conv_3x3")]]
    time = 2 * counts[:, 0] + counts[:, 1]
    taus = []
    for columns in (~skips, skips | ~skips):
        seen = FeatureTable(table.values[:, columns], tuple(np.array(table.groups)[columns].tolist()))
        predictor = ScorePredictor(boosters=0).fit(seen.take(slice(0, 200)), time[:200], pool=seen)
        taus.append(kendalltau(predictor.predict_mean(seen.take(slice(200, None))), time[200:])[0])
    assert taus[1] > taus[0] + 0.02


def test_is_less_sure_away_from_what_it_saw(task: tuple[FeatureTable, np.ndarray]) -> None:
    table, _ = task
    predictor = fitted(task, 100)
    _, seen = predictor.predict_latent(table.take(slice(0, 100)))
    _, unseen = predictor.predict_latent(table.take(slice(100, None)))
    assert seen.mean() < 0.8 * unseen.mean()


def test_the_noise_of_an_evaluation_is_in_a_deviation_or_is_not(task: tuple[FeatureTable, np.ndarray]) -> None:
    table, _ = task
    predictor = fitted(task, 60, boosters=0)
    assert predictor.noise_ > 1e-3
    latent, noisy = (predictor.predict_latent(table, with_noise)[1] for with_noise in (False, True))
    np.testing.assert_allclose(noisy**2 - latent**2, predictor.noise_, rtol=1e-4)
    np.testing.assert_array_equal(predictor.predict_latent(table)[1], latent)
    (_, deviation), (_, alone) = predictor.predict(table), predictor.predict(table, with_noise=False)
    assert (deviation > alone).all()


def test_same_seed_same_predictions(task: tuple[FeatureTable, np.ndarray]) -> None:
    table, _ = task
    first, again, other = (fitted(task, 60, random_state=seed, trees=30).predict(table)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unit_of_the_scores_does_not_matter(task: tuple[FeatureTable, np.ndarray]) -> None:
    table, scores = task
    plain, deviation = fitted(task, 60, boosters=0).predict(table)
    scaled, scaled_deviation = (
        ScorePredictor(boosters=0).fit(table.take(slice(0, 60)), 7 * scores[:60] - 1000, pool=table).predict(table)
    )
    np.testing.assert_allclose(scaled, 7 * plain - 1000, rtol=1e-4)
    np.testing.assert_allclose(scaled_deviation, 7 * deviation, rtol=1e-2)


def test_posterior_equals_that_of_scikit_learn(task: tuple[FeatureTable, np.ndarray]) -> None:
    table, _ = task
    predictor = fitted(task, 50, boosters=0)
    process, known = predictor._process, predictor._process.x
    asked = process._stretched(predictor._scaling(table))
    kernel = ConstantKernel(process.signal, "fixed") * RationalQuadratic(1.0, 1.0, "fixed", "fixed")
    reference = GaussianProcessRegressor(kernel, alpha=process.noise, optimizer=None)
    reference.fit(known, predictor.targets_ - predictor.targets_.mean())
    expected_mean, expected = reference.predict(asked, return_cov=True)
    mean, deviation = predictor.predict_latent(table)
    np.testing.assert_allclose(mean, expected_mean + predictor.targets_.mean(), atol=2e-3)
    np.testing.assert_allclose(deviation, np.sqrt(np.diag(expected)), atol=5e-3)
    np.testing.assert_allclose(predictor.latent_covariance(table), expected, atol=5e-3)


def test_equal_candidates_get_equal_predictions_in_any_order(task: tuple[FeatureTable, np.ndarray]) -> None:
    table, _ = task
    predictor = fitted(task, 60, trees=30)
    mean, deviation = predictor.predict(table)
    order = np.random.default_rng(0).permutation(len(table))
    shuffled_mean, shuffled_deviation = predictor.predict(table.take(order))
    np.testing.assert_allclose(shuffled_mean, mean[order], rtol=1e-4)
    np.testing.assert_allclose(shuffled_deviation, deviation[order], rtol=1e-2)


@pytest.mark.parametrize("scores", [[5.0] * 12, [1.0, 2.0], [0.0] * 11 + [1.0]])
def test_few_or_equal_scores_are_no_trouble(task: tuple[FeatureTable, np.ndarray], scores: list[float]) -> None:
    table, _ = task
    mean, deviation = ScorePredictor().fit(table.take(slice(0, len(scores))), scores, pool=table).predict(table)
    assert np.isfinite(mean).all()
    assert (deviation > 0).all()
    if len(set(scores)) == 1:
        np.testing.assert_allclose(mean, scores[0])


def test_learns_from_an_embedding_or_macro_choices_alone(task: tuple[FeatureTable, np.ndarray]) -> None:
    table, scores = task
    embedding = embedding_table(table.values @ np.random.default_rng(0).normal(size=(table.values.shape[1], 16)))
    mean, _ = ScorePredictor(boosters=0).fit(embedding.take(slice(0, 200)), scores[:200]).predict(embedding)
    assert kendalltau(mean[200:], scores[200:])[0] > 0.5

    space = make_space("gemnet")
    batch = space.sample(300, np.random.default_rng(1))
    macro = macro_table(space, batch)
    assert set(macro.groups) == {*(f"choice {name}" for name in space.macro_choices), "cost"}
    mean, _ = ScorePredictor(boosters=0).fit(macro.take(slice(0, 60)), batch.macro[:60, 0]).predict(macro)
    assert kendalltau(mean[60:], batch.macro[60:, 0])[0] > 0.8


def test_both_models_are_averaged_by_weight(task: tuple[FeatureTable, np.ndarray]) -> None:
    table, _ = task
    process, forests, both = (
        fitted(task, 60, trees=30, booster_weight=weight).predict_latent(table)[0] for weight in (0.0, 1.0, 0.25)
    )
    np.testing.assert_allclose(both, 0.75 * process + 0.25 * forests, atol=1e-6)


def test_warp_rises_and_comes_back() -> None:
    scores = np.random.default_rng(0).normal(90, 2, 50)
    scores[:3] = (10.0, 10.0, 93.0)
    warp = _Warp(scores)
    grid = np.linspace(0, 110, 400)
    assert (np.diff(warp(grid)) > 0).all()
    np.testing.assert_allclose(warp.inverse(warp(grid)), grid, atol=1e-9)
    assert warp(scores).std() == pytest.approx(1)


def test_targets_are_normal_scores_and_logarithms_of_the_distance_to_the_best(
    task: tuple[FeatureTable, np.ndarray],
) -> None:
    scores = np.random.default_rng(3).normal(90, 2, 12)
    ranks = norm.ppf((np.argsort(np.argsort(scores)) + 0.5) / 12)
    logs = -np.log(scores.max() - scores + 0.5 * (scores.max() - np.median(scores)))
    both = (ranks - ranks.mean()) / ranks.std() + (logs - logs.mean()) / logs.std()
    predictor = ScorePredictor(boosters=0).fit(task[0].take(slice(0, 12)), scores)
    np.testing.assert_allclose(predictor.targets_, both / both.std(), atol=1e-9)


def test_settled_hyper_parameters_are_taken_as_they_are(task: tuple[FeatureTable, np.ndarray]) -> None:
    table, scores = task
    first = fitted(task, 60, boosters=0)
    again = ScorePredictor(boosters=0).fit(table.take(slice(0, 60)), scores[:60], table, first.settings_)
    more = ScorePredictor(boosters=0).fit(table.take(slice(0, 90)), scores[:90], table, first.settings_)
    assert again.settings_ == more.settings_ == first.settings_
    for a, b in zip(again.predict_latent(table), first.predict_latent(table), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(more.predict_mean(table), more.predict_latent(table)[0], atol=1e-3)


def test_features_may_be_scaled_by_the_spread_of_columns_of_different_candidates(
    task: tuple[FeatureTable, np.ndarray],
) -> None:
    table, scores = task
    parts = [FeatureTable(table.values[:, part], table.groups[part]) for part in (slice(0, 30), slice(30, None))]
    spread = Spread.of(*parts)
    np.testing.assert_allclose(spread.mean, table.values.mean(axis=0, dtype=np.float64), atol=1e-12)
    np.testing.assert_allclose(spread.deviation, table.values.std(axis=0, dtype=np.float64), atol=1e-12)
    some = Spread.of(parts[0], parts[1].take(slice(0, 9)))
    np.testing.assert_allclose(some.deviation[30:], table.values[:9, 30:].std(axis=0, dtype=np.float64), atol=1e-12)
    by_table = fitted(task, 60, boosters=0)
    by_spread = ScorePredictor(boosters=0).fit(table.take(slice(0, 60)), scores[:60], spread)
    np.testing.assert_allclose(by_spread.predict_mean(table), by_table.predict_mean(table), atol=1e-5)


def test_bad_input_is_refused_with_the_reason(task: tuple[FeatureTable, np.ndarray]) -> None:
    table, scores = task
    with pytest.raises(PredictorError, match="as many scores"):
        ScorePredictor().fit(table, scores[:5])
    with pytest.raises(PredictorError, match="at least two"):
        ScorePredictor().fit(table.take(slice(0, 1)), scores[:1])
    with pytest.raises(PredictorError, match="failed evaluations"):
        ScorePredictor().fit(table.take(slice(0, 3)), [1.0, np.nan, 2.0])
    with pytest.raises(PredictorError, match="other columns"):
        fitted(task, 20, boosters=0).predict(FeatureTable(table.values[:, 1:], table.groups[1:]))
    with pytest.raises(PredictorError, match="NaN"):
        FeatureTable(np.full((2, 1), np.nan, dtype=np.float32), ("a",))
    with pytest.raises(PredictorError, match="one group name a column"):
        FeatureTable(np.zeros((2, 3), dtype=np.float32), ("a",))


def test_tau_on_nasbench201_from_fifty_cells() -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install pyarrow")
    if not TABLE.exists():
        pytest.skip(f"no {TABLE}: python tools/benchmark.py convert nasbench201 OFFICIAL_FILE --out this")
    columns = parquet.read_table(TABLE, columns=["arch_str", "c10_test_200ep_mean"]).to_pydict()
    space, scores = NASBench201(), np.array(columns["c10_test_200ep_mean"])
    table = structural_table(space, space.pack([Candidate(cell_from_arch(arch)) for arch in columns["arch_str"]]))
    taus = []
    for seed in range(3):
        rows = np.random.default_rng(seed).permutation(len(scores))[:50]
        mean, _ = ScorePredictor(random_state=seed).fit(table.take(rows), scores[rows], pool=table).predict(table)
        taus.append(kendalltau(mean, scores)[0])
    assert np.mean(taus) > 0.77


def test_a_score_without_noise_and_twins_among_the_candidates_is_learnt() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.integers(0, 3, (40, 6)).astype(np.float32), 5, axis=0)
    table = FeatureTable(values, ("a",) * 3 + ("b",) * 3)
    scores = values @ np.array([1, 2, 3, 1, 0, 2.0])
    mean, deviation = ScorePredictor(boosters=0).fit(table, scores).predict(table)
    assert np.corrcoef(mean, scores)[0, 1] > 0.99
    assert np.isfinite(deviation).all()
