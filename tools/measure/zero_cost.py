"""What zero-cost signals add to the score predictor: figures of an untrained network that cost next to nothing.

    python tools/measure/zero_cost.py nasbench201 [--proxies data/nasbench/nb201_zerocost_9445.parquet]
    python tools/measure/zero_cost.py gemnet [--table docs/results/gemnet_a_ledger.csv]

``nasbench201``: signals from a table of them (columns ``arch_str`` and one a signal), CIFAR-10's validation accuracy.
``gemnet``: signals computed here, of every candidate in a table of evaluations (tools/export.py WORK --ledger FILE)
that was trained at the search's fidelity, on one batch of CIFAR-10; a quarter of a minute of one core a 300 candidates.

Printed is Kendall's tau of each signal alone, and of the predictor (its Gaussian process on structural features and
macro choices) without signals and by how much it is better with them, over random training sets; mean and standard
error of the paired difference. nwot and jacov: Mellor et al., ICML 2021, arXiv 2006.04647. input_gradient: norm of the
gradient of the summed logits by the images, at initialisation.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau, norm, rankdata
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gemnet.data.datasets import DataSpec
from gemnet.layers import ACTIVATIONS
from gemnet.network import GEMNet
from gemnet.training.augmentation import normalised, on_byte_scale
from gemnet.training.images import at_fidelity, load_data
from nas.evaluation.zero_cost import BATCH, input_gradient
from nas.predictors.features import FeatureTable
from nas.predictors.nasgem_features import Parts, features
from nas.predictors.pool import Pool, enumerated_pool
from nas.predictors.scores import ScorePredictor
from nas.spaces.base import Candidate
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import Limits
from nas.spaces.nasbench201 import cell_from_arch
from nas.studies.tabular.sources import open_table

Values = NDArray[np.float64]


def signals_of(network: nn.Module, images: torch.Tensor) -> dict[str, float]:
    """nwot, jacov and input_gradient of an untrained network on a batch (n, channels, side, side)."""
    kernel = np.zeros((len(images), len(images)))

    def count(_: nn.Module, arguments: tuple[torch.Tensor]) -> None:
        active = (arguments[0].detach() > 0).flatten(1).float()
        both, each = active @ active.T, active.sum(1)
        kernel[...] += (2 * both + active.shape[1] - each[:, None] - each).numpy()  # units on which two images agree

    hooks = [
        module.register_forward_pre_hook(count)
        for module in network.modules()
        if isinstance(module, tuple(ACTIVATIONS.values()))
    ]
    gradient = input_gradient(network, images)
    for hook in hooks:
        hook.remove()
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(gradient.flatten(1).double().numpy())) + 1e-5
    return {
        "nwot": float(np.linalg.slogdet(kernel)[1]),
        "jacov": float(-(np.log(eigenvalues) + 1 / eigenvalues).sum()),
        "input_gradient": float(gradient.norm()),
    }


def of_table(proxies: Path) -> tuple[Pool, Values, dict[str, Values]]:
    """NAS-Bench-201's cells that have signals, their accuracies, the signals."""
    table, found = open_table("nasbench201", None), pd.read_parquet(proxies)
    pool = enumerated_pool(table.space, Limits())
    assert pool is not None
    rows = np.array([pool.index(Candidate(cell_from_arch(arch), ())) for arch in found["arch_str"]])
    costs = ("flops", "params")  # what the predictor knows anyway
    names = [name for name in found.columns if found[name].dtype == np.float64 and name not in costs]
    accuracies = table.metric("c10_valid_200ep_1seed")[rows]
    return pool.take(rows), accuracies, {name: found[name].to_numpy() for name in names}


def read_ledger(file: Path) -> tuple[GEMNetSpace, dict[Candidate, float], dict[str, str]]:
    """Of a table of evaluations: the space, candidates trained alike with their accuracies, and a row of theirs."""
    with file.open(newline="", encoding="utf-8") as opened:
        rows = [row for row in csv.DictReader(opened) if row["status"] == "ok" and row["training_seed"] == "0"]
    usual = max(rows, key=lambda row: sum(row["epochs"] == other["epochs"] for other in rows))
    same = [row for row in rows if all(row[key] == usual[key] for key in ("epochs", "resolution", "subset"))]
    known = {Candidate.from_json(json.loads(row["candidate"])): float(row["dev_accuracy"]) for row in same}
    return GEMNetSpace(form="cifar", size="a"), known, usual


def of_ledger(file: Path) -> tuple[Pool, Values, dict[str, Values]]:
    """The candidates of a table of evaluations, their accuracies, and signals computed here."""
    space, known, usual = read_ledger(file)
    data = at_fidelity(
        load_data(DataSpec("cifar10", dev_fraction=0.2)), int(usual["resolution"]), float(usual["subset"])
    )
    batch = data.images[data.train[:BATCH]]
    images = normalised(batch, on_byte_scale(data.mean), on_byte_scale(data.std))
    found: list[dict[str, float]] = []
    for candidate in known:
        torch.manual_seed(0)
        network = GEMNet(space.genome(candidate)).to(memory_format=torch.channels_last)
        found.append(signals_of(network, images))
    signals = {name: np.array([each[name] for each in found]) for name in found[0]}
    return Pool(space, space.pack(list(known))), np.array(list(known.values())), signals


def report(pool: Pool, accuracies: Values, signals: Mapping[str, Values], sizes: Sequence[int], seeds: int) -> None:
    """Prints taus of the signals, and what they add to the predictor."""
    print(f"{len(pool)} candidates; tau of a signal alone:")
    print("  " + ", ".join(f"{name} {kendalltau(v, accuracies).statistic:.2f}" for name, v in signals.items()))
    plain = features(pool, Parts(encoder=None))
    scores = {name: norm.ppf((rankdata(v) - 0.5) / len(v)).astype(np.float32)[:, None] for name, v in signals.items()}
    sets = {name: [name] for name in signals} | {"nwot + jacov": ["nwot", "jacov"], "all": list(signals)}
    tables = {
        label: FeatureTable.join([plain, *(FeatureTable(scores[name], (name,)) for name in names)])
        for label, names in {"": [], **sets}.items()
    }
    for size in sizes:
        taus: dict[str, list[float]] = {label: [] for label in tables}
        for seed in range(seeds):
            order = np.random.default_rng([seed, size]).permutation(len(pool))
            known, rest = order[:size], order[size:]
            for label, table in tables.items():
                model = ScorePredictor(boosters=0, random_state=seed)
                model.fit(table.take(known), accuracies[known], pool=table)
                guess, _ = model.predict_latent(table.take(rest))
                taus[label].append(float(kendalltau(guess, accuracies[rest]).statistic))
        base = np.array(taus.pop(""))
        print(f"{size} evaluated: tau {base.mean():.3f} without signals; with")
        for label, values in taus.items():
            gain = np.array(values) - base
            print(f"    {label:16} {gain.mean():+.4f} +- {gain.std(ddof=1) / np.sqrt(seeds):.4f}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", choices=["nasbench201", "gemnet"])
    parser.add_argument("--proxies", type=Path, default=Path("data/nasbench/nb201_zerocost_9445.parquet"))
    parser.add_argument("--table", type=Path, default=Path("docs/results/gemnet_a_ledger.csv"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[24, 48, 96])
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = of_table(options.proxies) if options.where == "nasbench201" else of_ledger(options.table)
    report(*found, options.sizes, options.seeds)


if __name__ == "__main__":
    main()
