"""What one ask costs after so many evaluations: seconds of CPU time, memory, ledger.

    python tools/measure/scale.py [--told 1000 3000 10000 30000 100000] [--rounds 50] [--batch 8] [--ledger DIR]
                                  [--space gemnet|nasbench201] [--strategy nasgem]

Evaluations are made up: half random candidates, half children of the best so far, with an accuracy that follows from
their graph, and noise. One strategy is told more and more of them; at each number it is asked ``--rounds`` times for a
batch, which is told, too. One line of CSV each, so that it can be read while it runs: CPU milliseconds of telling one
evaluation; CPU seconds of the first ask (which takes in all that is new since the line before) and of the later ones
(median, 99th percentile, greatest), all on one thread; the process's peak of memory so far, with all evaluations in it
as a driver has them; and, with ``--ledger``, the size of a ledger that holds them and how many it took in a second, a
hundred at a time.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from gemnet.machine import limited_threads
from nas.evaluation.ledger import Ledger
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.spaces import make_space
from nas.spaces.base import Candidate, CandidateBatch
from nas.strategies import HistoryStrategy, make_strategy

FIDELITY = Fidelity(epochs=5)
CHUNK, GROUP, PARENTS = 1000, 100, 20
COLUMNS = (
    "space", "strategy", "told", "tell_ms", "first_ask_s", "ask_s", "ask_99_s", "greatest_ask_s", "peak_mb",
    "ledger_mb", "recorded_per_s",
)  # fmt: skip
T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="gemnet", help="a space by name (default: gemnet)")
    parser.add_argument("--strategy", default="nasgem")
    parser.add_argument("--told", type=int, nargs="+", default=[1000, 3000, 10_000, 30_000, 100_000])
    parser.add_argument("--batch", type=int, default=8, help="candidates asked for at a time (default: 8)")
    parser.add_argument("--rounds", type=int, default=50, help="batches asked for (default: 50)")
    parser.add_argument("--ledger", type=Path, help="a folder for ledgers; without it none is written")
    options = parser.parse_args(argv)
    print(",".join(COLUMNS), flush=True)
    with limited_threads(1):
        measure(options.space, options.strategy, sorted(options.told), options.batch, options.rounds, options.ledger)
    return 0


def measure(space_name: str, name: str, sizes: Sequence[int], batch: int, rounds: int, folder: Path | None) -> None:
    """Prints one line for each number of evaluations."""
    space = make_space(space_name)
    strategy = make_strategy(name, space, 0, fidelity=FIDELITY)
    strategy.prepare()
    rng = np.random.default_rng(1)
    ledger = None if folder is None else Ledger(folder / f"{space_name}.db")
    held: list[Evaluation] = []
    for size in sizes:
        telling = writing = 0.0
        before = strategy.told
        while strategy.told < size:
            evaluations = made_up(strategy, min(CHUNK, size - strategy.told), rng)
            held += evaluations
            telling += timed(partial(strategy.tell, evaluations))[1]
            if ledger is not None:
                begun = time.perf_counter()
                for start in range(0, len(evaluations), GROUP):
                    ledger.record_all(evaluations[start : start + GROUP], "scale")
                writing += time.perf_counter() - begun
        new = max(size - before, 1)
        asking = []
        for _ in range(rounds):
            proposals, seconds = timed(partial(strategy.ask, batch))
            asking.append(seconds)
            found = [evaluation_of(proposal, rng) for proposal in proposals]
            held += found
            strategy.tell(found)
        later = asking[1:] or asking
        scale = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
        kept = speed = ""
        if ledger is not None and folder is not None:
            kept = f"{sum(file.stat().st_size for file in folder.glob(f'{space_name}.db*')) / 1e6:.1f}"
            speed = f"{new / max(writing, 1e-9):.0f}"
        asked = np.percentile(later, [50, 99, 100]).tolist()
        figures = [1e3 * telling / new, asking[0], *asked]
        line = [space_name, name, str(size), *(f"{figure:.3f}" for figure in figures), f"{peak:.0f}", kept, speed]
        print(",".join(line), flush=True)
    if ledger is not None:
        ledger.close()


def made_up(strategy: HistoryStrategy, n: int, rng: np.random.Generator) -> list[Evaluation]:
    """Evaluations of ``n`` candidates that a strategy might have proposed next: random ones, children of the best."""
    space = strategy.space
    drawn = [space.sample(n if not strategy.candidates else n // 2, rng)]
    if strategy.candidates:
        best = space.pack([strategy.candidates[row] for row in np.argsort(-strategy.scores())[:PARENTS]])
        drawn.append(space.mutate(best.take(rng.integers(0, len(best), n - len(drawn[0]))), rng, edits=2))
    batch = CandidateBatch.concat(drawn)
    proposals = [Proposal(strategy.told + row, space.unpack(batch, row), FIDELITY) for row in range(n)]
    return [evaluation_of(proposal, rng) for proposal in proposals]


def evaluation_of(proposal: Proposal, rng: np.random.Generator) -> Evaluation:
    """Its accuracy follows from the graph, but for noise."""
    return Evaluation(proposal, "ok", accuracy(proposal.candidate) + float(rng.normal()), macs=1e6, seconds=60.0)


def accuracy(candidate: Candidate) -> float:
    """Convolutions help, early ones more, and edges cost."""
    cell = candidate.cell
    gain = sum((1 + ("3x3" in op)) / (1 + k / 8) for k, op in enumerate(cell.ops) if "x" in op)
    return 60 + 3 * gain - 0.1 * len(cell.edges)


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """What a function gives, and its CPU seconds."""
    begun = time.process_time()
    result = function()
    return result, time.process_time() - begun


if __name__ == "__main__":
    sys.exit(main())
