"""Rivals: the found network is trained longer, and beside it random cells and hand-made blocks that cost no more.

The cost is the one that the score charges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gemnet.fitting import RIVAL_BLOCKS, BaselineError, block_genome, fit_width
from gemnet.genome import Genome
from gemnet.stopping import stop_file
from nas.evaluation.costs import COSTS
from nas.evaluation.latency import LatencyOptions, measure
from nas.evaluation.networks import holds_weights, network_proposal
from nas.evaluation.records import Evaluation, Proposal
from nas.executors import Call
from nas.executors.monitor import Monitor
from nas.search.folder import WorkFolder
from nas.search.preflight import ReadySearch
from nas.search.recorder import LIMIT_SLACK, Recorder
from nas.search.report.result import Row, SearchError, figures_of, row_of
from nas.spaces.base import CandidateBatch, SearchSpace
from nas.spaces.gemnet import GEMNetSpace

NETWORK_SEED = 1000
"""First seed of the longer trainings: none that the network was chosen by."""
FOUND, RANDOM_CELLS = "found network", "random cells"


@dataclass(frozen=True)
class _Training:
    """A longer training of a whole network, and the line of the comparison it belongs to."""

    line: str
    genome: Genome
    seed: int
    epochs: int
    weights: Path | None = None

    @property
    def proposal(self) -> Proposal:
        return network_proposal(self.genome, self.epochs, self.seed)

    def has_its_weights(self) -> bool:
        """Whether nothing is to be kept of it, or what is to be kept is there (and not of another network)."""
        return self.weights is None or holds_weights(self.weights, self.genome, self.epochs, self.seed)


def compare(
    ready: ReadySearch, folder: WorkFolder, recorder: Recorder, monitor: Monitor, genome: Genome
) -> tuple[Row, ...]:
    """Trains the found network longer, and beside it random cells and hand-made blocks at no more than its cost.

    Args:
        ready: the search.
        folder: its work folder; the found network's weights are kept there.
        recorder: trains what the ledger does not know (or what has lost its weights).
        monitor: hears of each training.
        genome: the found network.

    Returns:
        A line each, the found network first; none where the config asks for no longer training.

    Raises:
        SearchError: the found network's training failed.
    """
    final, options = ready.config.final, ready.config.comparison
    if final is None:
        return ()
    trainings = [_Training(FOUND, genome, NETWORK_SEED, final.epochs, folder.weights)]
    if options is not None:
        epochs = options.epochs or final.epochs
        if epochs != final.epochs:
            trainings[0] = replace(trainings[0], line=f"{FOUND}, {final.epochs} epochs")
            trainings.append(_Training(FOUND, genome, NETWORK_SEED, epochs))
        trainings += [_Training(FOUND, genome, NETWORK_SEED + k, epochs) for k in range(1, options.seeds)]
        trainings += [
            _Training(line, rival, NETWORK_SEED + k, epochs)
            for line, rival, seeds in _rivals(ready, monitor, genome)
            for k in range(seeds)
        ]
    done = _train(ready, folder, recorder, monitor, trainings)
    if done[0].accuracy is None:
        raise SearchError(
            f"The found network's longer training failed: {done[0].reason} See {folder.log}. It is recorded "
            f"and not repeated. Train {folder.genome} with tools/train.py, or search on in another folder "
            f"with other settings and search.start_from={folder.path}."
        )
    times = _times(ready, trainings)
    rows = []
    for line in dict.fromkeys(training.line for training in trainings):
        own = [k for k, training in enumerate(trainings) if training.line == line]
        milliseconds = float(np.mean([times[trainings[k].genome.fingerprint] for k in own])) if times else None
        rows.append(replace(row_of(line, [done[k] for k in own]), milliseconds=milliseconds))
    return tuple(rows)


def _times(ready: ReadySearch, trainings: Sequence[_Training]) -> dict[str, float]:
    """Milliseconds an image takes in each network, by fingerprint; empty where time is no matter, or not measured here.

    They were fitted by estimates, which have errors: so what they really take stands beside them.
    """
    if not ready.measures_latency:
        return {}
    space, options = ready.space, ready.config.latency or LatencyOptions()
    assert isinstance(space, GEMNetSpace)
    genomes = {training.genome.fingerprint: training.genome for training in trainings}
    measured = measure(list(genomes.values()), options, space.template.input_size, space.in_chans)
    return dict(zip(genomes, measured, strict=True))


def _rivals(ready: ReadySearch, monitor: Monitor, genome: Genome) -> list[tuple[str, Genome, int]]:
    """(line, network, trainings) of everything the found network is compared with."""
    space, options = ready.space, ready.config.comparison
    assert isinstance(space, GEMNetSpace)
    assert options is not None
    charged = ready.compared_by
    limit, unit = ready.price(genome), COSTS[charged].counted
    batch = random_candidates(space, options.random_cells, limit, ready.config.search.seed, charged)
    entries = [(RANDOM_CELLS, space.genome(space.unpack(batch, row)), 1) for row in range(len(batch))]
    entries += [(RIVAL_BLOCKS[block][2], block_genome(block, genome), options.seeds) for block in options.blocks]
    rivals = []
    for line, network, trainings in entries:
        try:
            rivals.append((line, fit_width(network, limit, space.in_chans, ready.price, unit), trainings))
        except BaselineError as error:
            monitor.note(f"Left out of the comparison: {line}. {error}")
    return rivals


def _train(
    ready: ReadySearch, folder: WorkFolder, recorder: Recorder, monitor: Monitor, trainings: Sequence[_Training]
) -> list[Evaluation]:
    """Trains whole networks; what the ledger knows is not trained again (unless its weights are missing)."""
    final, options = ready.config.final, ready.config.comparison
    assert final is not None
    test_log = folder.test_log if options is not None and options.test and not ready.missing_test else None
    limit = final.time_limit
    kill = None if limit is None else limit + LIMIT_SLACK
    states = [folder.state_of(each.genome.fingerprint, each.epochs, each.seed) for each in trainings]

    def suffices(number: int, known: Evaluation) -> bool:
        return known.status == "failed" or trainings[number].has_its_weights()

    def on_result(number: int, evaluation: Evaluation, known: bool) -> None:
        states[number].unlink(missing_ok=True)
        monitor.step(f"{trainings[number].line} {figures_of(evaluation)}", known=known)

    monitor.begin("train", len(trainings))
    # These are not candidates of the space, which knows no cost of them.
    once = replace(recorder, retry_failed=False, complete=lambda evaluation: evaluation)
    with stop_file(folder.path) as stop:
        calls = [
            Call(
                number,
                "train_network",
                (each.genome, each.epochs, each.seed, each.weights, test_log, limit, state, stop),
                kill,
            )
            for number, (each, state) in enumerate(zip(trainings, states, strict=True))
        ]
        done = once.run([each.proposal for each in trainings], calls, on_result, suffices)
    monitor.end()
    return done


def random_candidates(space: SearchSpace, n: int, limit: float, seed: int, cost: str = "macs") -> CandidateBatch:
    """Random candidates of a space that cost no more than a limit and at least half of it, where there are such.

    Args:
        space: where from.
        n: how many.
        limit: on the cost.
        seed: draws them; independent of every search's own draws.
        cost: by name, see `nas.evaluation.costs`.
    """
    rng = np.random.default_rng([seed, 0xBA5E])
    batch = space.sample(2_000, rng)
    costs = space.cost(cost, batch)
    if costs is None:
        return batch.take(slice(0, n))
    near = np.flatnonzero((costs <= limit) & (costs >= limit / 2))
    if len(near) < n:
        near = np.argsort(np.abs(np.log(costs / limit)), kind="stable")
    return batch.take(near[:n])
