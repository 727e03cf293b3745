"""The predictors that are compared, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from sklearn.ensemble import ExtraTreesRegressor

from nas.encoder import EncoderConfig
from nas.predictor import FeatureTable, ScorePredictor, macro_table, structural_table
from nas.strategies.gaussian_process import fit_rows
from nas.strategies.model import normal_scores
from nas.strategies.nasgem import Parts, features
from nas.strategies.pool import Pool
from nas.strategies.structural import tree_predictions
from nas.strategies.wl_gp import wl_rows

Floats = NDArray[np.float64]
# (observed cells, their values, pool, rows of the pool to predict, seed) -> mean and deviation (or None), in the
# values' unit
Model = Callable[[Pool, Floats, Pool, NDArray[np.intp], int], tuple[Floats, Floats | None]]


def nasgem(
    observed: Pool,
    values: Floats,
    pool: Pool,
    rows: NDArray[np.intp],
    seed: int,
    parts: Parts = Parts(),  # noqa: B008  frozen
    boosters: int | None = None,
) -> tuple[Floats, Floats | None]:
    """The score predictor as the search uses it, with its boosted forests."""
    options = {} if boosters is None else {"boosters": boosters}
    predictor = ScorePredictor(random_state=seed, **options)
    everything = features(pool, parts)
    predictor.fit(features(observed, parts), values, pool=everything)
    return predictor.predict(everything.take(rows))


def structural(
    observed: Pool, values: Floats, pool: Pool, rows: NDArray[np.intp], seed: int
) -> tuple[Floats, Floats | None]:
    """Extra-trees on structural features (GRAF). Their spread is no deviation of an evaluation, so none is given."""

    def table(cells: Pool) -> NDArray[np.float32]:
        parts = [
            cells.table("structure", lambda batch: structural_table(cells.space, batch)),
            cells.table("macro", lambda batch: macro_table(cells.space, batch)),
        ]
        return FeatureTable.join(parts).values

    forest = ExtraTreesRegressor(300, max_features=0.5, random_state=seed)
    forest.fit(table(observed), normal_scores(values))
    return tree_predictions(forest, table(pool)[rows]).mean(axis=0), None


def wl_process(
    observed: Pool,
    values: Floats,
    pool: Pool,
    rows: NDArray[np.intp],
    seed: int,
    iterations: tuple[int, ...] = (0, 1, 2, 3),
) -> tuple[Floats, Floats | None]:
    """A Gaussian process on the WL kernel; the marginal likelihood picks h among ``iterations``.

    It learns the normal scores of the ranks; the scale of a deviation is lost with that, so none is given.
    """
    best = None
    for h in iterations:

        def table(cells: Pool, h: int = h) -> csr_array:
            return csr_array(cells.view(f"wl{h}", partial(wl_rows, cells.space.zero_ops, h)))

        known = table(observed)
        model = fit_rows(known, np.arange(len(values)), normal_scores(values))
        if best is None or model.log_marginal_likelihood_value_ > best[0]:
            best = (
                float(model.log_marginal_likelihood_value_),
                model,
                csr_array(vstack([known, table(pool)[rows]], format="csr")),
            )
    assert best is not None
    _, model, both = best
    model.kernel_.k1.k2.features = both
    places = len(values) + np.arange(len(rows), dtype=np.float64)
    return model.predict(places[:, None]), None


MODELS: dict[str, Model] = {
    "nasgem": nasgem,
    "structural": structural,
    "wl_gp": wl_process,
}
# What each part is worth: the same predictor without it, or with something else in its place.
ABLATIONS: dict[str, Model] = {
    "no boosted trees": partial(nasgem, boosters=0),
    "no embedding": partial(nasgem, parts=Parts(encoder=None)),
    "no boosted trees, no embedding": partial(nasgem, parts=Parts(encoder=None), boosters=0),
    "no structural features": partial(nasgem, parts=Parts(structure=False)),
    "no drawn counts": partial(nasgem, parts=Parts(drawn=False)),
    "embedding alone": partial(nasgem, parts=Parts(structure=False, drawn=False)),
    "structural features alone": partial(nasgem, parts=Parts(encoder=None, drawn=False)),
    **{
        f"embedding alone, {name}": partial(nasgem, parts=Parts(encoder=config, structure=False, drawn=False))
        for name, config in {
            "untrained": EncoderConfig(steps=0),
            "no guide": EncoderConfig(guide=None),
            "plain WL guide": EncoderConfig(guide="wl"),
            "guide's h = 1": EncoderConfig(iterations=1),
            "shortest-path kernel as guide": EncoderConfig(guide="shortest_path"),
            "no reconstruction": EncoderConfig(reconstruction_weight=0.0),
            "no structure to predict": EncoderConfig(structure_weight=0.0),
            "guide alone": EncoderConfig(reconstruction_weight=0.0, structure_weight=0.0),
        }.items()
    },
    "WL kernel, h = 0": partial(wl_process, iterations=(0,)),
    "WL kernel, h = 1": partial(wl_process, iterations=(1,)),
    "WL kernel, h = 2": partial(wl_process, iterations=(2,)),
    "WL kernel, h = 3": partial(wl_process, iterations=(3,)),
}
MODELS |= ABLATIONS
