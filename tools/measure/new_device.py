"""How well a few measurements of a new device rank networks by their cost (docs/latency.md).

    python tools/measure/new_device.py nasbench201
    python tools/measure/new_device.py accel_nasbench --measured 10 --draws 20

One device after the other is new; the others have been measured on all networks. Kendall's tau of estimated and
measured cost over all networks that were not measured and that the device can run, with Student's 95 % interval over
draws. "trees from 6,000" is what thousands of measurements reach (extra-trees and boosted trees, the better one).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import kendalltau
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from nas.evaluation.statistics import mean_interval
from nas.predictors.features import FeatureTable, choice_table
from nas.predictors.memory import Memory, Remembered
from nas.predictors.nasgem_features import Parts, drawn_table, features, reached_table
from nas.predictors.new_device import NewDevice
from nas.predictors.pool import Pool
from nas.predictors.scores import ScorePredictor
from nas.studies.tabular.sources import DEVICES, open_hardware_table

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Choose = Callable[[int, np.random.Generator, Rows], Rows]
Estimate = Callable[[Rows], Floats]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", choices=list(DEVICES))
    parser.add_argument("--table", type=Path, help="where it is not in its usual place")
    parser.add_argument("--devices", nargs="+", help="new ones (default: each)")
    parser.add_argument("--measured", type=int, default=10, help="networks of a new device (default %(default)s)")
    parser.add_argument("--draws", type=int, default=20, help="default %(default)s")
    parser.add_argument("--first", type=int, default=0, help="seed of the first draw (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="leave the search's predictor and the ceiling out")
    options = parser.parse_args()

    table = open_hardware_table(options.space, options.table)
    prefix = "c10_" if options.space == "nasbench201" else ""
    pool = Pool(table.space, table.batch)
    times = {device: table.metrics[f"{prefix}{device}_latency"].copy() for device in DEVICES[options.space]}
    for costs in times.values():
        slowest = costs == costs.max()
        if slowest.sum() > 1:  # those that were not measured count as the slowest there
            costs[slowest] = np.nan
    parts = Parts(encoder=None)
    seen = features(pool, parts)
    remembered = {} if options.quick else {name: _remembered(pool, costs, parts) for name, costs in times.items()}
    console = Console(width=200)
    for name in options.devices or times:
        can = np.flatnonzero(np.isfinite(times[name]))
        others = [each for other, each in times.items() if other != name]
        memories = [each for other, each in remembered.items() if other != name]
        for way, (choose, estimate) in _ways(pool, seen, times[name], others, memories).items():
            taus = []
            for draw in range(options.first, options.first + options.draws):
                rows = choose(options.measured, np.random.default_rng(draw), can)
                taus.append(_tau(estimate(rows), times[name], np.setdiff1d(can, rows)))
            console.print(f"{name:8} {way:30} {mean_interval(taus)}")
        if not options.quick:
            console.print(f"{name:8} {'half of all':30} {_ceiling(pool, seen, times[name], can):.3f}")


def _ways(
    pool: Pool, seen: FeatureTable, costs: Floats, others: list[Floats], memories: list[FeatureTable]
) -> dict[str, tuple[Choose, Estimate]]:
    """How rows are chosen and costs of all estimated, by name."""
    device = NewDevice(pool.space, pool.batch, others)
    ways: dict[str, tuple[Choose, Estimate]] = {
        "ridge on other devices": (_drawn, lambda rows: _ridge(others, rows, costs)),
        "NewDevice": (_drawn, lambda rows: device.estimate(rows, costs[rows])),
        "NewDevice, chosen": (device.choose, lambda rows: device.estimate(rows, costs[rows])),
    }
    if not memories:
        return ways
    both = FeatureTable.join([seen, *memories])
    return {
        "search's predictor": (_drawn, lambda rows: _predicted(seen, rows, costs)),
        "search's predictor, memory": (_drawn, lambda rows: _predicted(both, rows, costs)),
        **ways,
    }


def _drawn(count: int, rng: np.random.Generator, among: Rows) -> Rows:
    return rng.choice(among, count, replace=False)


def _tau(estimated: Floats, costs: Floats, rows: Rows) -> float:
    return float(kendalltau(estimated[rows], costs[rows]).statistic)


def _remembered(pool: Pool, costs: Floats, parts: Parts) -> FeatureTable:
    can = np.flatnonzero(np.isfinite(costs))
    return Memory(pool.space, [Remembered(pool.batch.take(can), -costs[can])], parts).table(pool)


def _predicted(seen: FeatureTable, rows: Rows, costs: Floats) -> Floats:
    return -ScorePredictor(boosters=0).fit(seen.take(rows), -costs[rows], pool=seen).predict_mean(seen)


def _ridge(others: list[Floats], rows: Rows, costs: Floats) -> Floats:
    columns = np.stack([np.where(np.isfinite(each), each, np.nanmedian(each)) for each in others], axis=1)
    seen = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    return Ridge(1.0).fit(seen[rows], costs[rows]).predict(seen)


def _ceiling(pool: Pool, seen: FeatureTable, costs: Floats, can: Rows) -> float:
    """What half of all measurements tell of the other half."""
    counts = [
        drawn_table(pool.batch),
        reached_table(pool.space.zero_ops, pool.batch),
        choice_table(pool.space, pool.batch),
    ]
    learnt, asked = np.array_split(np.random.default_rng(0).permutation(can), 2)
    models = (
        (HistGradientBoostingRegressor(max_iter=300, random_state=0), FeatureTable.join([seen, *counts]).values),
        (Ridge(1.0), FeatureTable.join(counts).values),
    )
    return max(_tau(model.fit(values[learnt], costs[learnt]).predict(values), costs, asked) for model, values in models)


if __name__ == "__main__":
    main()
