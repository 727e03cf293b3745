"""What an embedding adds to all else that the predictor sees: tau on unseen cells, paired by training set.

    python tools/measure/embedding.py nasbench201 [--metric c100_valid_200ep_1seed] [--sizes 50 200] [--sets 8]
    python tools/measure/embedding.py nasbench101 [--first 8] [--sets 16]
    python tools/measure/embedding.py gemnet [--table docs/results/gemnet_a_ledger.csv]
    python tools/measure/embedding.py large --sizes 50 100 [--table docs/results/large_cells.csv]

``gemnet`` takes the candidates in a table of evaluations (tools/export.py WORK --ledger FILE) that were trained at the
search's fidelity, ``large`` the cells of 24 to 30 nodes of `tools/measure/large_cells.py`, mean of their seeds; the
others are tables of benchmarks. The predictor is the one of a search, its Gaussian process alone
(``--boosters 3`` is the benchmark's). Printed: Kendall's tau without embedding on at most 5,000 unseen cells, and what
is gained with each kind of embedding, mean and 95 % interval over the training sets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from large_cells import TABLE as LARGE
from large_cells import large_config, read_cells
from numpy.typing import NDArray
from scipy.stats import kendalltau
from zero_cost import read_ledger

from gemnet.machine import limited_threads
from nas.encoder import EncoderConfig, train_encoder
from nas.encoder.model import UntrainedNetworks
from nas.evaluation.statistics import mean_interval
from nas.predictors.features import FeatureTable, embedding_table, untrained_table
from nas.predictors.nasgem_features import Parts, embedded_space, encoder_of, features
from nas.predictors.pool import Pool
from nas.predictors.scores import ScorePredictor
from nas.search.parts import build_parts
from nas.studies.tabular.predictors import UNSEEN
from nas.studies.tabular.sources import DEFAULT_METRICS, open_table

NONE = "no embedding"


def tables_of(pool: Pool) -> dict[str, FeatureTable]:
    """What the predictor sees of a pool's cells, with each kind of embedding and without."""
    space, graphs = embedded_space(pool.space), pool.batch.graphs
    plain = features(pool, Parts(encoder=None))
    guided = encoder_of(pool.space, EncoderConfig())
    _, small = guided.embed_beside(UntrainedNetworks(len(space.vocabulary), 2), graphs)
    untrained = [train_encoder(space, EncoderConfig(steps=0, seed=seed)).embed(graphs) for seed in range(4)]
    vectors = {
        "64 guided numbers": [guided.embed(graphs)],
        "64 of an untrained encoder": untrained[:1],
        "256 of four untrained encoders": untrained,
        "these 320 as one group": [guided.embed(graphs), *untrained],
    }
    tables = {name: FeatureTable.join([plain, embedding_table(_alike(each))]) for name, each in vectors.items()}
    tables["two small untrained networks"] = FeatureTable.join([plain, untrained_table(small, 2)])
    tables["64 guided and these two"] = features(pool, Parts(untrained=2))
    return {NONE: plain, **tables}


def _alike(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Vectors side by side, each (n, d) with the same sum of variances."""
    return np.concatenate([each / np.sqrt(each.var(axis=0).sum()) for each in vectors], axis=1)


def taus_of(
    table: FeatureTable, values: NDArray[np.float64], size: int, sets: Sequence[int], boosters: int
) -> list[float]:
    """Tau on unseen cells after learning from so many, for each training set."""
    taus = []
    for seed in sets:
        order = np.random.default_rng([seed, size]).permutation(len(values))
        known, unseen = order[:size], order[size : size + UNSEEN]
        model = ScorePredictor(boosters=boosters, random_state=seed)
        model.fit(table.take(known), values[known], pool=table)
        taus.append(float(kendalltau(model.predict_mean(table.take(unseen)), values[unseen]).statistic))
    return taus


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", choices=["nasbench201", "nasbench101", "gemnet", "large"])
    parser.add_argument("--metric", help="a column of the table (default: the usual one)")
    parser.add_argument("--table", type=Path, help="of gemnet and large (default: the one in docs/results)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--first", type=int, default=0, help="number of the first training set (default: 0)")
    parser.add_argument("--sets", type=int, default=8, help="training sets (default: 8)")
    parser.add_argument("--boosters", type=int, default=0, help="boosted forests (default: 0)")
    options = parser.parse_args(argv)
    if options.where == "gemnet":
        space, known, _ = read_ledger(options.table or Path("docs/results/gemnet_a_ledger.csv"))
        pool, values = Pool(space, space.pack(list(known))), np.array(list(known.values()))
    elif options.where == "large":
        cells, accuracies = read_cells(options.table or LARGE)
        large, _ = build_parts(large_config())
        pool, values = Pool(large, large.pack(cells)), accuracies.mean(axis=1)
    else:
        table = open_table(options.where, None)
        pool = Pool(table.space, table.batch)
        values = table.metric(options.metric or DEFAULT_METRICS[options.where][0])
    sets = range(options.first, options.first + options.sets)
    with limited_threads(1):
        tables = tables_of(pool)
        for size in options.sizes:
            taus = {name: taus_of(table, values, size, sets, options.boosters) for name, table in tables.items()}
            base = taus.pop(NONE)
            print(f"{size} of {len(pool)} cells, {len(sets)} training sets: tau {mean_interval(base)} without; with")
            for name, each in taus.items():
                print(f"    {name:32} {mean_interval(np.subtract(each, base)).text('+.4f')}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
