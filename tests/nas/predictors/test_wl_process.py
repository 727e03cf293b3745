"""The WL process: one kernel for cells, one for macro choices, together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn.gaussian_process.kernels import RBF

from nas.predictors.pool import Pool
from nas.predictors.wl_process import ChoiceKernel, WLProcess, WLSettings
from nas.spaces.base import CandidateBatch
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.nasbench201 import NASBench201

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def space() -> GEMNetSpace:
    return GEMNetSpace(form="cifar", size="a", max_nodes=6)


def test_choices_alone_are_learnt_where_all_cells_are_the_same(space: GEMNetSpace) -> None:
    drawn = space.sample(120, RNG)
    batch = CandidateBatch(drawn.graphs.take(np.zeros(120, dtype=np.intp)), drawn.macro)
    pool = Pool(space, batch)
    scores = batch.macro.astype(np.float64) @ np.arange(1, batch.macro.shape[1] + 1)
    process = WLProcess((0, 1)).fit(pool.take(np.arange(60)), scores[:60], pool)
    asked = np.arange(60, 120)
    mean, deviation = process.predict_latent(asked)
    assert kendalltau(mean, scores[60:])[0] > 0.7
    assert (deviation > 0).all()
    np.testing.assert_allclose(process.predict_mean(asked), mean)


def test_gradient_of_the_choice_kernel_is_that_of_scikit_learn() -> None:
    choices, places = RNG.random((8, 3)), np.arange(8.0)[:, None]
    block, gradient = ChoiceKernel(choices, 0.7)(places, eval_gradient=True)
    expected, expected_gradient = RBF(0.7)(choices, eval_gradient=True)
    np.testing.assert_allclose(block, expected, atol=1e-12)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-12)
    np.testing.assert_allclose(ChoiceKernel(choices, 0.7)(places[:3], places[5:]), expected[:3, 5:], atol=1e-12)


def test_a_selection_of_the_pool_and_the_same_cells_apart_from_it_predict_alike() -> None:
    space = NASBench201()
    batch = space.sample(60, RNG)
    pool, scores = Pool(space, batch), RNG.normal(size=30)
    settings = WLSettings(0.0, 2, 1.5, 0.2)
    rows = np.arange(30)
    selected = WLProcess().fit(pool.take(rows), scores, pool, settings)
    apart = WLProcess().fit(Pool(space, batch.take(rows)), scores, pool, settings)
    for a, b in zip(selected.predict_latent(rows), apart.predict_latent(rows), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)


def test_the_marginal_likelihood_picks_the_iterations() -> None:
    space = NASBench201()
    pool = Pool(space, space.sample(60, RNG))
    cells = [pool.candidate(k).cell for k in range(60)]
    scores = np.array([sum("conv" in op for op in cell.ops) for cell in cells], dtype=np.float64)
    settings = WLProcess((0, 3)).settle(pool, scores)
    assert settings.iterations == 0  # counts of operations are all there is to it
    assert settings.likelihood > WLProcess((3,)).settle(pool, scores).likelihood
