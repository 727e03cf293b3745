"""The predictors that are compared, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemnet.strict import ConfigError, find_class, keyword_names
from nas.encoder import EncoderConfig
from nas.evaluation.remembered import MemorySource, remembered
from nas.predictors.features import FeatureTable
from nas.predictors.forest import StructuralForest
from nas.predictors.memory import Memory
from nas.predictors.nasgem_features import Parts, features
from nas.predictors.pool import Pool
from nas.predictors.scores import ScorePredictor
from nas.predictors.wl_process import WLProcess

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
    memory: Sequence[MemorySource] = (),
) -> tuple[Floats, Floats | None]:
    """The score predictor as the search uses it, with its boosted forests and what it remembers."""
    options = {} if boosters is None else {"boosters": boosters}
    predictor = ScorePredictor(random_state=seed, **options)
    tasks = remembered(memory, pool.space, seed)
    known = Memory(pool.space, tasks, parts) if tasks else None

    def see(some: Pool) -> FeatureTable:
        table = features(some, parts)
        return table if known is None else FeatureTable.join([table, known.table(some)])

    everything = see(pool)
    predictor.fit(see(observed), values, pool=everything)
    return predictor.predict(everything.take(rows))


def structural(
    observed: Pool, values: Floats, pool: Pool, rows: NDArray[np.intp], seed: int
) -> tuple[Floats, Floats | None]:
    """Extra-trees on structural features (GRAF). Their spread is no deviation of an evaluation, so none is given."""

    return StructuralForest(300, seed).fit(observed, values).predict(pool, rows)[0], None


def wl_process(
    observed: Pool,
    values: Floats,
    pool: Pool,
    rows: NDArray[np.intp],
    seed: int,
    iterations: tuple[int, ...] = (0, 1, 2, 3),
) -> tuple[Floats, Floats | None]:
    """A Gaussian process on the WL kernel and macro choices; the marginal likelihood picks h among ``iterations``.

    It learns the normal scores of the ranks; the scale of a deviation is lost with that, so none is given.
    """
    return WLProcess(iterations).fit(observed, values, pool).predict_mean(rows), None


@dataclass(frozen=True)
class Ablation:
    """nasgem without a part, or with something else in its place.

    Args:
        options: of the strategy, in place of its own; None where this is no search of ours.
        model: the predictor that goes with it; None where the predictor is the same.
    """

    options: Mapping[str, Any] | None
    model: Model | None = None

    @classmethod
    def seeing(cls, encoder: Mapping[str, Any] | None = MappingProxyType({}), **parts: Any) -> Ablation:
        """Another encoder or other features: values of `EncoderConfig`, fields of `Parts`."""
        config = None if encoder is None else EncoderConfig(**encoder)
        options = {} if config == EncoderConfig() else {"encoder": None if encoder is None else dict(encoder)}
        return cls({**options, **parts}, partial(nasgem, parts=Parts(encoder=config, **parts)))


MODELS: dict[str, Model] = {
    "nasgem": nasgem,
    "structural": structural,
    "wl_gp": wl_process,
}
_EMBEDDING_ALONE: dict[str, Any] = {"structure": False, "drawn": False}
ABLATIONS: dict[str, Ablation] = {
    "no embedding": Ablation.seeing(None),
    "two untrained networks besides": Ablation.seeing(untrained=2),
    "embedding without guidance": Ablation.seeing({"guide": None}),
    "embedding untrained": Ablation.seeing({"steps": 0}),
    "embedding without reconstruction": Ablation.seeing({"reconstruction_weight": 0.0}),
    "embedding that predicts structure, too": Ablation.seeing({"structure_weight": 4.0}),
    "guide that counts nodes alike": Ablation.seeing({"guide": "graded_wl_by_nodes"}),
    "plain WL kernel as guide": Ablation.seeing({"guide": "wl"}),
    "guide's h = 1": Ablation.seeing({"iterations": 1}),
    "guide's h = 3": Ablation.seeing({"iterations": 3}),
    "shortest-path kernel as guide": Ablation.seeing({"guide": "shortest_path"}),
    "no structural features": Ablation.seeing(structure=False),
    "no drawn counts": Ablation.seeing(drawn=False),
    "structural features alone": Ablation.seeing(None, drawn=False),
    "embedding alone": Ablation.seeing(**_EMBEDDING_ALONE),
    "embedding alone, without guidance": Ablation.seeing({"guide": None}, **_EMBEDDING_ALONE),
    "embedding alone, nodes alike": Ablation.seeing({"guide": "graded_wl_by_nodes"}, **_EMBEDDING_ALONE),
    "embedding alone, untrained": Ablation.seeing({"steps": 0}, **_EMBEDDING_ALONE),
    "no boosted trees": Ablation(None, partial(nasgem, boosters=0)),
    "boosted trees in the search": Ablation({"boosters": 3}),
    "mean alone (beta = 0)": Ablation({"beta": 0.0}),
    "mean + 1 deviation": Ablation({"beta": 1.0}),
    "mean + 3 deviations": Ablation({"beta": 3.0}),
    "batch not put together one by one": Ablation({"spread": False}),
    "pool of 300 a round": Ablation({"pool_size": 300}),
    "pool of 3,000 a round": Ablation({"pool_size": 3000}),
    **{f"WL kernel alone, h = {h}": Ablation(None, partial(wl_process, iterations=(h,))) for h in range(4)},
}
"""What each part is worth."""
MODELS |= {name: ablation.model for name, ablation in ABLATIONS.items() if ablation.model is not None}


def find_model(name: str) -> Model:
    """A predictor by its name in `MODELS`, or one's own by its dotted path: a class with scikit-learn's ``fit(X, y)``
    and ``predict(X)``, such as ``sklearn.ensemble.RandomForestRegressor``.

    It is made without arguments, but for ``random_state`` where it takes that, and sees structural features, macro
    choices, costs and operation counts, (n, d) float32. What it predicts is (n,), or a pair of these: mean and
    deviation.

    Raises:
        ConfigError: there is none.
    """
    if name in MODELS:
        return MODELS[name]
    kind: Any = find_class(name, dict.fromkeys(MODELS, ""), object, "predictor")
    for method in ("fit", "predict"):
        if not hasattr(kind, method):
            raise ConfigError(f"predictor is {name!r}, whose class has no method {method!r}.")
    return partial(_own, kind)


def _own(
    kind: Any, observed: Pool, values: Floats, pool: Pool, rows: NDArray[np.intp], seed: int
) -> tuple[Floats, Floats | None]:
    parts = Parts(encoder=None)
    model = kind(random_state=seed) if "random_state" in keyword_names(kind) else kind()
    model.fit(features(observed, parts).values, values)
    predicted = model.predict(features(pool, parts).values[rows])
    mean, deviation = predicted if isinstance(predicted, tuple) else (predicted, None)
    return np.asarray(mean, dtype=np.float64), None if deviation is None else np.asarray(deviation, dtype=np.float64)
