"""How well does a short training rank cells, and what does it cost?

Random cells within the limits are trained with two seeds at a search's fidelity, and once several times as long.
Kendall's tau between the seeds says how much of the ranking is noise; tau against the longer training, how much of it
will last. A fidelity is chosen by these per second spent, never by the accuracies themselves.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from gemnet.strict import ConfigError
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.executors.base import Call
from nas.executors.jobs import Jobs
from nas.search.config import SearchConfig
from nas.search.parts import build_executor, build_parts
from nas.spaces.base import Candidate, SearchSpace
from nas.spaces.limits import Limits, LimitsError, admits
from nas.studies.csv_log import CsvLog, columns_of, records

SAMPLES, ROUNDS = 2_000, 25
"""Candidates drawn at a time, and how often at most, to find some within the limits."""
FAILED = -1.0
"""What a failed training counts as in a ranking: less than any other."""


@dataclass(frozen=True)
class RankingRow:
    """One training, as the CSV holds it.

    Args:
        cell: number of the cell, from 0.
        hash: 16 hex digits of its graph and its choices.
        nodes: inner nodes.
        macs: multiply-adds of its network.
        epochs: of the training.
        resolution: in pixels, 0 for the data set's own.
        subset: share of the training images.
        seed: of the training.
        accuracy: top-1 on the development images in percent; NaN where failed.
        seconds: wall-clock time.
        fingerprint: of the evaluator.
    """

    cell: int
    hash: str
    nodes: int
    macs: float
    epochs: int
    resolution: int
    subset: float
    seed: int
    accuracy: float
    seconds: float
    fingerprint: str


@dataclass(frozen=True)
class FidelityReport:
    """How well a fidelity ranks.

    Args:
        cells: cells trained with both seeds.
        between_seeds: Kendall's tau of two seeds; NaN below two cells.
        seed_noise: standard deviation of one training's accuracy around its cell's mean, in points; of cells of which
            neither training failed.
        spread: standard deviation of these cells' mean accuracies, in points.
        longer_cells: cells trained longer as well.
        against_longer: Kendall's tau of one short training (mean over the seeds) against the longer one; NaN below two.
        mean_against_longer: tau of the seeds' mean accuracy against the longer training.
        seconds: mean wall-clock time of a short training.
        longer_seconds: likewise of a longer one.
    """

    cells: int
    between_seeds: float
    seed_noise: float
    spread: float
    longer_cells: int
    against_longer: float
    mean_against_longer: float
    seconds: float
    longer_seconds: float


def sample_cells(space: SearchSpace, limits: Limits, n: int, seed: int) -> list[Candidate]:
    """``n`` random candidates within the limits, no two alike; fewer are the first of more.

    Raises:
        LimitsError: too few of 50,000 samples are within it.
    """
    rng = np.random.default_rng(seed)
    found: dict[Any, Candidate] = {}
    for _ in range(ROUNDS):
        batch = space.sample(SAMPLES, rng)
        for index in np.flatnonzero(admits(space, limits, batch)).tolist():
            candidate = space.unpack(batch, index)
            found.setdefault(candidate.key(), candidate)
            if len(found) == n:
                return list(found.values())
    raise LimitsError(
        f"Only {len(found)} of {SAMPLES * ROUNDS} samples are within the limits, {n} are needed. Raise the limits."
    )


def measure_fidelity(
    config: SearchConfig,
    table: Path,
    cells: int = 20,
    times: int = 4,
    seed: int = 0,
    on_row: Callable[[RankingRow, int, int], None] | None = None,
) -> FidelityReport:
    """Trains the cells, writing a row a training to a CSV; what is in there already is not trained again.

    Args:
        config: of a search; its space, data, recipe, fidelity, limits and workers are used.
        table: the CSV; it may hold rows of other fidelities.
        cells: how many.
        times: how many times as many epochs the longer training has.
        seed: draws the cells.
        on_row: called with each new row, the number done and the number of all.

    Raises:
        ConfigError: a config that trains nothing, or fewer than two cells.
        CsvLogError: the table is one of something else.
        GemnetError: as a search with this config.
    """
    if config.evaluator.type != "training":
        raise ConfigError(f"evaluator.type is {config.evaluator.type!r}; only 'training' has a fidelity to measure.")
    if cells < 2 or times < 2:
        raise ConfigError(f"At least 2 cells and 2 times the epochs are needed, got {cells} and {times}.")
    if seed < 0:
        raise ConfigError(f"The seed that draws the cells is at least 0, got {seed}.")
    # Of the limits those that need no measuring: how long an image takes says nothing of how a fidelity ranks.
    config = replace(config, time_limit=None, limits=replace(config.limits, max_latency=None))
    space, evaluator = build_parts(config)
    fingerprint = evaluator.fingerprint
    candidates = sample_cells(space, config.limits, cells, seed)
    plan = [
        (k, replace(config.fidelity, epochs=config.fidelity.epochs * factor), training_seed)
        for runs in (((1, 0), (1, 1)), ((times, 2),))
        for k in range(cells)
        for factor, training_seed in runs
    ]
    hashes = [_hash(candidate) for candidate in candidates]
    # The table may hold another draw's cells, under the same numbers.
    log = CsvLog(table, columns_of(RankingRow))
    rows = [
        row
        for row in records(log, RankingRow)
        if row.fingerprint == fingerprint and row.cell < cells and row.hash == hashes[row.cell]
    ]
    have = {_key(row) for row in rows}
    calls = []
    for number, (k, fidelity, training_seed) in enumerate(plan):
        proposal = Proposal(number, candidates[k], fidelity, training_seed)
        if _key(_row(k, Evaluation(proposal, "failed", None), fingerprint)) not in have:
            calls.append(Call(number, "evaluate", (proposal,)))
    with build_executor(config, evaluator, None) as executor:
        for done, outcome in enumerate(Jobs(executor, calls), 1):
            evaluation = outcome.value or Evaluation(
                outcome.call.args[0], "failed", None, seconds=outcome.seconds, reason=outcome.failure
            )
            row = _row(plan[outcome.call.number][0], evaluation, fingerprint)
            log.add(asdict(row))
            rows.append(row)
            if on_row is not None:
                on_row(row, done, len(calls))
    return report(rows, config.fidelity, times)


def report(rows: Sequence[RankingRow], fidelity: Fidelity, times: int) -> FidelityReport:
    """What the rows say about a fidelity, against ``times`` its epochs. Failed trainings rank last.

    Cells are told apart by number; rows of other fidelities are left aside.
    """
    here = [row for row in rows if (row.resolution or None, row.subset) == (fidelity.resolution, fidelity.subset)]
    short = {(row.cell, row.seed): row for row in here if row.epochs == fidelity.epochs}
    longer = {row.cell: row for row in here if row.epochs == fidelity.epochs * times and row.seed == 2}
    both = sorted({cell for cell, seed in short if seed == 0} & {cell for cell, seed in short if seed == 1})
    pairs = np.array([[_worth(short[cell, seed]) for seed in (0, 1)] for cell in both]).reshape(-1, 2)
    sound = pairs[(pairs != FAILED).all(axis=1)]
    lasting = [cell for cell in both if cell in longer]
    long_accuracy = np.array([_worth(longer[cell]) for cell in lasting])
    of_lasting = np.array([[_worth(short[cell, seed]) for seed in (0, 1)] for cell in lasting]).reshape(-1, 2)
    return FidelityReport(
        cells=len(both),
        between_seeds=_tau(pairs[:, 0], pairs[:, 1]),
        seed_noise=float(np.sqrt(np.mean((sound[:, 0] - sound[:, 1]) ** 2) / 2)) if len(sound) else math.nan,
        spread=float(sound.mean(axis=1).std()) if len(sound) else math.nan,
        longer_cells=len(lasting),
        against_longer=float(np.mean([_tau(of_lasting[:, k], long_accuracy) for k in (0, 1)])),
        mean_against_longer=_tau(of_lasting.mean(axis=1), long_accuracy) if lasting else math.nan,
        seconds=float(np.mean([row.seconds for row in short.values()])) if short else math.nan,
        longer_seconds=float(np.mean([row.seconds for row in longer.values()])) if longer else math.nan,
    )


def _row(cell: int, evaluation: Evaluation, fingerprint: str) -> RankingRow:
    proposal = evaluation.proposal
    return RankingRow(
        cell=cell,
        hash=_hash(proposal.candidate),
        nodes=len(proposal.candidate.cell.ops),
        macs=evaluation.macs or 0.0,
        epochs=proposal.fidelity.epochs,
        resolution=proposal.fidelity.resolution or 0,
        subset=proposal.fidelity.subset,
        seed=proposal.training_seed,
        accuracy=math.nan if evaluation.accuracy is None else evaluation.accuracy,
        seconds=round(evaluation.seconds, 2),
        fingerprint=fingerprint,
    )


def _hash(candidate: Candidate) -> str:
    parts = [candidate.cell.canonical_hash(), *candidate.macro]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _key(row: RankingRow) -> tuple[Any, ...]:
    return row.hash, row.cell, row.epochs, row.resolution, row.subset, row.seed


def _worth(row: RankingRow) -> float:
    return FAILED if math.isnan(row.accuracy) else row.accuracy


def _tau(left: Any, right: Any) -> float:
    return float(kendalltau(left, right).statistic) if len(left) > 1 else math.nan
