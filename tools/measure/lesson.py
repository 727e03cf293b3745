"""What it costs to learn from a choice of many evaluations instead of all: tau on cells of NAS-Bench-201 never seen.

    python tools/measure/lesson.py TABLE [--metric c10_valid_200ep_1seed] [--known 3000] [--most 1000 2000] [--seeds 3]

For each seed that many cells are drawn at random. The score predictor (structural features, costs and operation counts,
no embedding) learns from all of them, from the choice that a long search would make of them
(`nas.strategies.long_history`), and from as many at random; the hyper-parameters are those of the first 500, as in a
long search. Printed: Kendall's tau on all other cells, and on the best tenth of these, where a search looks.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from gemnet.machine import limited_threads
from nas.evaluation.statistics import mean_interval
from nas.predictors.features import FeatureTable
from nas.predictors.nasgem_features import Parts, features
from nas.predictors.pool import Pool
from nas.predictors.process import ProcessSettings
from nas.predictors.scores import ScorePredictor
from nas.strategies.long_history import LongHistory
from nas.tables.read import read_table


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="NAS-Bench-201 as tools/benchmark.py convert writes it")
    parser.add_argument("--metric", default="c10_valid_200ep_1seed")
    parser.add_argument("--known", type=int, default=3000)
    parser.add_argument("--most", type=int, nargs="+", default=[1000, LongHistory().most])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    table = read_table(options.table, "nasbench201")
    values = table.metric(options.metric)
    everything = features(Pool(table.space, table.batch), Parts(encoder=None))
    found: dict[str, list[tuple[float, float, float]]] = {}
    with limited_threads(1):
        for seed in range(options.seeds):
            order = np.random.default_rng(seed).permutation(len(values))
            known, rest = order[: options.known], order[options.known :]
            early = known[: LongHistory().hyper]
            settings = ScorePredictor(boosters=0).fit(everything.take(early), values[early], everything).settings_
            lessons = {"all": known}
            for most in options.most:
                lessons[f"chosen {most}"] = known[replace(LongHistory(), most=most).rows(values[known], seed)]
                lessons[f"random {most}"] = known[:most]
            for name, rows in lessons.items():
                found.setdefault(name, []).append(learnt(everything, values, rows, rest, settings))
    print("learnt from,tau,tau among the best tenth,CPU seconds")
    for name, each in found.items():
        print(name, *(str(mean_interval(list(column))) for column in zip(*each, strict=True)), sep=",", flush=True)
    return 0


def learnt(
    everything: FeatureTable,
    values: NDArray[np.float64],
    rows: NDArray[np.intp],
    rest: NDArray[np.intp],
    settings: ProcessSettings,
) -> tuple[float, float, float]:
    """Tau on the rest, tau on its best tenth, CPU seconds."""
    begun = time.process_time()
    predictor = ScorePredictor(boosters=0).fit(everything.take(rows), values[rows], everything, settings)
    mean = predictor.predict_mean(everything.take(rest))
    seconds = time.process_time() - begun
    best = np.argsort(-values[rest])[: len(rest) // 10]
    return (
        float(kendalltau(mean, values[rest]).statistic),
        float(kendalltau(mean[best], values[rest][best]).statistic),
        seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
