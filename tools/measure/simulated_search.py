"""How busy workers are kept: a search whose evaluations take no time, but a drawn one on a clock of its own.

    python tools/measure/simulated_search.py [--workers 1000] [--evaluations 10000] [--begin 0] [--minutes 1]
                                             [--spread 0.25] [--batch 100] [--ahead 3000] [--space gemnet]
                                             [--strategy nasgem]

The loop, strategy and ledger (SQLite, synced) are those of a real search; only workers are made up: each holds its
candidate for a log-normal time. Where nothing is to be done but to wait, the clock jumps; what the driver and the
strategy compute passes on it as CPU time of this process, so that other programs do not matter. So a search on a
thousand workers is measured in the time that its bookkeeping takes. Workers count as idle until a call is handed to
them. With ``--begin`` the search goes on after so many evaluations that were made up, as a resumed one does.

One line of CSV for each tenth of the evaluations (those at the end, where nothing is left to hand out, are not in it):
how many were evaluated, hours on the clock, the share of the workers' time in which they worked, evaluations a second,
asks, their median, 99th percentile and longest in seconds, the longest that the driver left a worker without looking,
and the process's peak of memory.
"""

from __future__ import annotations

import argparse
import heapq
import resource
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scale import CHUNK, FIDELITY, evaluation_of, made_up

from gemnet.machine import limited_threads
from nas.evaluation.ledger import Ledger
from nas.evaluation.records import Evaluation, Proposal
from nas.executors import Call, Executor, Outcome
from nas.executors.monitor import Stopwatch
from nas.search.explore import Exploration
from nas.search.recorder import Recorder
from nas.spaces import make_space
from nas.strategies import make_strategy

COLUMNS = (
    "evaluated", "hours", "busy", "per_s", "asks", "ask_s", "ask_99_s", "longest_ask_s", "longest_pause_s", "peak_mb",
)  # fmt: skip


class SimulatedExecutor(Executor):
    """Workers that hold each call for a drawn time.

    Args:
        workers: how many.
        seconds: mean time of a call.
        spread: deviation of its logarithm.
        rng: draws times and noise.
    """

    def __init__(self, workers: int, seconds: float, spread: float, rng: np.random.Generator) -> None:
        self.workers, self.seconds, self.spread, self.rng = workers, seconds, spread, rng
        self.queue: deque[Call] = deque()
        self.under_way: list[tuple[float, int, Call, float]] = []  # (end, number, call, seconds)
        self.skipped = 0.0
        self.worked = 0.0
        self.longest_pause = 0.0
        self._looked = self.now

    @property
    def now(self) -> float:
        """The clock: CPU time of this process, and what was skipped."""
        return time.process_time() + self.skipped

    def submit(self, call: Call) -> None:
        self.queue.append(call)
        self._hand_out()

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        self.longest_pause = max(self.longest_pause, self.now - self._looked)
        self._hand_out()
        if timeout is not None:  # somebody computes meanwhile: time passes as it does
            first = self.under_way[0][0] - self.now if self.under_way else timeout
            time.sleep(min(max(first, 0.0), timeout))
        elif self.under_way:
            self.skipped += max(0.0, self.under_way[0][0] - self.now)
        outcomes = []
        while self.under_way and self.under_way[0][0] <= self.now:
            _, _, call, seconds = heapq.heappop(self.under_way)
            self.worked += seconds
            outcomes.append(Outcome(call, evaluation_of(call.args[0], self.rng), seconds=seconds))
        self._hand_out()
        self._looked = self.now
        return outcomes

    def _hand_out(self) -> None:
        while self.queue and len(self.under_way) < self.workers:
            call = self.queue.popleft()
            seconds = float(self.seconds * self.rng.lognormal(-(self.spread**2) / 2, self.spread))
            heapq.heappush(self.under_way, (self.now + seconds, call.number, call, seconds))

    def close(self) -> None:
        self.queue.clear()
        self.under_way.clear()

    @property
    def running(self) -> int:
        return len(self.under_way)

    @property
    def outstanding(self) -> int:
        return len(self.queue) + len(self.under_way)


class Lines:
    """Prints a line for each tenth of the evaluations.

    Args:
        executor: simulates.
        evaluations: how many there will be.
        asks: seconds of each ask so far.
    """

    def __init__(self, executor: SimulatedExecutor, evaluations: int, asks: list[float]) -> None:
        self.executor, self.evaluations, self.asks = executor, evaluations, asks
        self.heard, self.first = 0, executor.now
        self.begun, self.worked, self.counted, self.asked = executor.now, 0.0, 0, 0

    def __call__(self, evaluation: Evaluation, known: bool) -> None:
        if known:
            return
        self.heard += 1
        # At the end workers run dry because there is nothing left; that is not what is measured.
        if self.heard % max(self.evaluations // 10, 1) or self.heard + self.executor.workers > self.evaluations:
            return
        executor, now = self.executor, self.executor.now
        passed, asks = now - self.begun, self.asks[self.asked :] or [0.0]
        # What is under way has worked, too, since it was handed out.
        worked = executor.worked + sum(seconds - (end - now) for end, _, _, seconds in executor.under_way)
        scale = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
        figures = [
            str(self.heard),
            f"{(now - self.first) / 3600:.2f}",
            f"{(worked - self.worked) / (passed * executor.workers):.4f}",
            f"{(self.heard - self.counted) / passed:.1f}",
            str(len(self.asks) - self.asked),
            f"{np.median(asks):.2f}",
            f"{np.percentile(asks, 99):.2f}",
            f"{max(asks):.2f}",
            f"{executor.longest_pause:.2f}",
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale:.0f}",
        ]
        print(",".join(figures), flush=True)
        self.begun, self.worked, self.counted, self.asked = now, worked, self.heard, len(self.asks)
        executor.longest_pause = 0.0


def fill(ledger: Ledger, n: int, space_name: str) -> None:
    """Puts a search of n evaluations into a ledger, made up as in `scale`."""
    model: Any = make_strategy("random", make_space(space_name), 0, fidelity=FIDELITY)
    rng = np.random.default_rng(2)
    while model.told < n:
        found = made_up(model, min(CHUNK, n - model.told), rng)
        model.tell(found)
        ledger.propose("simulated", [each.proposal for each in found])
        ledger.record_all(found, "simulated")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="gemnet", help="a space by name (default: gemnet)")
    parser.add_argument("--strategy", default="nasgem")
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--evaluations", type=int, default=10_000)
    parser.add_argument("--begin", type=int, default=0, help="evaluations before them (default: 0)")
    parser.add_argument("--minutes", type=float, default=1.0, help="an evaluation's mean time (default: 1)")
    parser.add_argument("--spread", type=float, default=0.25, help="deviation of its logarithm (default: .25)")
    parser.add_argument("--batch", type=int, default=100, help="candidates asked for at a time (default: 100)")
    parser.add_argument("--ahead", type=int, default=3000, help="see search.ahead (default: 3000)")
    options = parser.parse_args(argv)
    strategy: Any = make_strategy(options.strategy, make_space(options.space), 0, fidelity=FIDELITY)
    strategy.prepare()
    asks: list[float] = []
    ask = strategy.ask

    def timed_ask(n: int, pending: Sequence[Proposal] = ()) -> list[Proposal]:
        begun = time.thread_time()
        found: list[Proposal] = ask(n, pending)
        asks.append(time.thread_time() - begun)
        return found

    strategy.ask = timed_ask
    print(",".join(COLUMNS), flush=True)
    executor = SimulatedExecutor(options.workers, 60 * options.minutes, options.spread, np.random.default_rng(1))
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.db") as ledger, limited_threads(1):
        begin = options.begin // options.batch * options.batch
        fill(ledger, begin, options.space)
        search = Exploration("simulated", strategy, Recorder(executor, ledger, "simulated", Stopwatch()))
        run = partial(search.run, begin + options.evaluations, options.batch, options.ahead)
        run(Lines(executor, options.evaluations, asks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
