"""Random cells of 24 to 30 nodes, each trained with two seeds: where a graph embedding should matter most.

    python tools/measure/large_cells.py [--cells 150] [--seeds 2] [--workers N] [--ledger FILE] [--out FILE]

Only the cells differ: what is around them is the same. Networks, images (scenes of digits) and training are those of
`configs/search/default.py`, but for five epochs instead of eight (docs/training.md), and 400,000 MACs. Trainings are
kept in a ledger; run the same command again to go on. At the end all of them are written as a table of evaluations,
which `tools/measure/embedding.py large` reads. Printed: Kendall's tau of two seeds, one seed's noise and the cells'
spread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from gemnet.cell_graph import MAX_INNER_NODES
from nas.evaluation.csv_table import read_evaluations, write_evaluations
from nas.evaluation.ledger import Ledger
from nas.evaluation.records import Evaluation, Proposal
from nas.executors import Call
from nas.executors.monitor import Stopwatch
from nas.search.config import SearchConfig, find_config, load_config
from nas.search.parts import build_executor, build_parts
from nas.search.recorder import Recorder
from nas.spaces.base import Candidate
from nas.spaces.gemnet import GEMNetSpace

LEAST = 24
"""Nodes of the smallest cells."""
MOST_MACS, EPOCHS = 0.4e6, 5
TABLE = Path("docs/results/large_cells.csv")


def large_config(workers: int = 0) -> SearchConfig:
    """The default search in a space of cells of up to 30 nodes, with nothing else to choose."""
    alone = {"width": [0.75], "inner_ratio": [1], "se_ratio": [0.0], "activation": ["relu"]}
    changes = {"space.max_nodes": MAX_INNER_NODES, "space.choices": alone, "fidelity.epochs": EPOCHS}
    return load_config(find_config("default"), {**changes, "workers.count": workers})


def sample_cells(space: GEMNetSpace, count: int, seed: int = 0) -> list[Candidate]:
    """Random cells of at least `LEAST` nodes within `MOST_MACS`, no two alike."""
    rng, found = np.random.default_rng(seed), dict[object, Candidate]()
    while len(found) < count:
        batch = space.sample(2000, rng)
        batch = batch.take(np.flatnonzero(batch.graphs.sizes >= LEAST + 2))
        for row in np.flatnonzero(space.macs(batch) <= MOST_MACS):
            candidate = space.unpack(batch, int(row))
            found.setdefault(candidate.key(), candidate)
    return list(found.values())[:count]


def read_cells(file: Path) -> tuple[list[Candidate], NDArray[np.float64]]:
    """The cells in a table that were trained with every seed, and their accuracies, (cells, seeds)."""
    by_cell: dict[Candidate, dict[int, float]] = {}
    for evaluation, _ in read_evaluations(file):
        if evaluation.status == "ok" and evaluation.accuracy is not None:
            seeds = by_cell.setdefault(evaluation.proposal.candidate, {})
            seeds[evaluation.proposal.training_seed] = evaluation.accuracy
    every = max(map(len, by_cell.values()), default=0)
    whole = {cell: [seeds[k] for k in sorted(seeds)] for cell, seeds in by_cell.items() if len(seeds) == every}
    return list(whole), np.array(list(whole.values()))


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ledger", type=Path, default=Path("work_dirs/large_cells.db"))
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args(argv)
    config = large_config(options.workers)
    space, trainer = build_parts(config)
    assert isinstance(space, GEMNetSpace)
    cells = sample_cells(space, options.cells)
    proposals = [
        Proposal(number, cell, config.fidelity, seed)
        for number, (seed, cell) in enumerate((seed, cell) for seed in range(options.seeds) for cell in cells)
    ]
    calls = [Call(proposal.number, "evaluate", (proposal,)) for proposal in proposals]

    def show(number: int, evaluation: Evaluation, known: bool) -> None:
        if not known:
            print(f"{number}: {evaluation.accuracy} ({evaluation.seconds:.0f} s) {evaluation.reason}", flush=True)

    options.ledger.parent.mkdir(parents=True, exist_ok=True)
    with Ledger(options.ledger) as ledger, build_executor(config, trainer, None) as executor:
        recorder = Recorder(executor, ledger, trainer.fingerprint, Stopwatch())
        done = recorder.run(proposals, calls, show)
    write_evaluations(options.out, [(each, trainer.fingerprint) for each in done])
    found, accuracies = read_cells(options.out)
    first, second = accuracies[:, 0], accuracies[:, 1]
    print(
        f"{len(found)} cells, {accuracies.mean():.1f} % in the mean; tau of two seeds "
        f"{kendalltau(first, second).statistic:.2f}; one seed's noise {(first - second).std() / np.sqrt(2):.2f}, "
        f"spread of the cells {accuracies.mean(axis=1).std():.2f} points"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
