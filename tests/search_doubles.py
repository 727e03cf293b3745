"""Stand-ins for slow parts of a search: an evaluator that computes accuracies instead of training, odd executors."""

from __future__ import annotations

import heapq
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path

import numpy as np

from nas.evaluation.ledger import Ledger
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.executors import Call, Executor, LocalExecutor, Outcome
from nas.executors.monitor import Stopwatch
from nas.executors.ray import RayExecutor
from nas.search.explore import Exploration
from nas.search.recorder import Recorder
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import Limits
from nas.strategies import make_strategy

FIDELITY = Fidelity(epochs=1)
LIMITS = Limits(max_macs=20e6)


def small_space() -> GEMNetSpace:
    return GEMNetSpace(max_nodes=6)


class FormulaEvaluator:
    """Accuracy as a fixed, rugged function of the candidate; every seventh candidate or so fails.

    Args:
        log: file that takes a line for every evaluation begun, or None.
        seconds: what an evaluation takes.
    """

    fingerprint = "formula"

    def __init__(self, log: Path | None = None, seconds: float = 0.0) -> None:
        self.log, self.seconds = log, seconds

    def evaluate(self, proposal: Proposal) -> Evaluation:
        if self.log is not None:
            with open(self.log, "a") as file:
                file.write(f"{proposal.number}\n")
        candidate = proposal.candidate
        number = int(candidate.cell.canonical_hash()[:8], 16)
        time.sleep(self.seconds * (0.5 + number % 100 / 100))
        if number % 7 == 0:
            return Evaluation(proposal, "failed", None, reason="The loss became nan in epoch 1.")
        width = float(dict(candidate.macro)["width"])
        noise = np.random.default_rng([number, proposal.training_seed]).normal(0, 0.5)
        accuracy = 60 + 20 * width / 1.5 + len(candidate.cell.edges) % 5 + number % 1000 / 250 + noise
        return Evaluation(proposal, "ok", float(accuracy), macs=1e6 * width, params=1e4 * width, seconds=self.seconds)


class ShuffledExecutor(Executor):
    """Works on several calls at a time and ends them in a random order; may stop the driver after some outcomes.

    Args:
        service: whose methods are called.
        workers: calls under way at a time.
        rng: which call ends next.
        stop_after: outcomes after which `KeyboardInterrupt` is raised; None for never.
    """

    def __init__(self, service: object, workers: int, rng: np.random.Generator, stop_after: int | None = None) -> None:
        self.service, self.workers, self.rng, self.stop_after = service, workers, rng, stop_after
        self.queue: deque[Call] = deque()
        self.calls = 0

    def submit(self, call: Call) -> None:
        self.queue.append(call)

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        if self.stop_after is not None and self.calls >= self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        place = int(self.rng.integers(min(self.workers, len(self.queue))))
        call = self.queue[place]
        del self.queue[place]
        return [Outcome(call, getattr(self.service, call.method)(*call.args))]

    def close(self) -> None:
        self.queue.clear()

    @property
    def outstanding(self) -> int:
        return len(self.queue)


class TimedExecutor(Executor):
    """Workers with a clock of their own: evaluations take half a second to one and a half, all else takes no time.

    Args:
        service: whose methods are called.
        workers: calls under way at a time.
    """

    def __init__(self, service: object, workers: int) -> None:
        self.service, self.workers, self.now = service, workers, 0.0
        self.queue: deque[Call] = deque()
        self.under_way: list[tuple[float, int, Call]] = []

    def submit(self, call: Call) -> None:
        self.queue.append(call)
        self._begin()

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        if timeout is not None:  # the strategy is asked meanwhile
            time.sleep(0.001)
            return []
        self.now, _, call = heapq.heappop(self.under_way)
        self._begin()
        return [Outcome(call, getattr(self.service, call.method)(*call.args))]

    def close(self) -> None:
        self.queue.clear()

    @property
    def outstanding(self) -> int:
        return len(self.queue) + len(self.under_way)

    def _begin(self) -> None:
        while self.queue and len(self.under_way) < self.workers:
            call = self.queue.popleft()
            number = int(call.args[0].candidate.cell.canonical_hash()[:8], 16)
            heapq.heappush(self.under_way, (self.now + 0.5 + number % 100 / 100, call.number, call))


def exploration(ledger: Ledger, executor: Executor, strategy: str = "evolution", seed: int = 0) -> Exploration:
    """A fresh exploration, as after a start of the program."""
    made = make_strategy(strategy, small_space(), seed, fidelity=FIDELITY, limits=LIMITS, initial=8)
    return Exploration("search", made, Recorder(executor, ledger, FormulaEvaluator.fingerprint, Stopwatch()))


def _evaluator(log: str) -> FormulaEvaluator:
    return FormulaEvaluator(Path(log), seconds=0.08)


class Forked(LocalExecutor):
    """Its workers are forked from a driver that has no threads yet: a moment instead of seconds."""

    start_method = "fork"


def drive(folder: Path, evaluations: int, address: str | None = None) -> None:
    """What the process does whose death, or whose cluster's, tests are about: a search with two workers.

    Args:
        folder: holds the ledger.
        evaluations: how many.
        address: of a Ray cluster; None works with processes of this machine.
    """
    build = partial(_evaluator, str(folder / "begun.log"))
    workers = Forked(build, workers=2) if address is None else RayExecutor(build, workers=2, address=address)
    with Ledger(folder / "ledger.db") as ledger, workers as executor:
        exploration(ledger, executor).run(evaluations, batch=6, ahead=3, on_result=lambda evaluation, known: None)
    (folder / "finished").touch()


if __name__ == "__main__":
    drive(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
