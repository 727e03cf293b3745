"""The one loop that hands calls to workers and takes what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nas.executors.base import Call, Executor, Outcome


class Jobs:
    """Calls in an executor's hands; iterating gives their outcomes as they end, until each has come back.

    More may be submitted while it is iterated. `ended` gives those that came together, for whoever has more to do than
    to wait for them.

    Args:
        executor: whose workers do them; nobody else waits for it meanwhile.
        calls: the first of them.

    Raises:
        ExecutorError: no worker can be started (while it is iterated).
        KeyboardInterrupt: the executor was halted and nothing is under way any more (likewise).
    """

    def __init__(self, executor: Executor, calls: Iterable[Call] = ()) -> None:
        self.executor = executor
        self.left = 0
        for call in calls:
            self.submit(call)

    def submit(self, call: Call) -> None:
        """Hands in one more."""
        self.executor.submit(call)
        self.left += 1

    def ended(self, timeout: float | None = None) -> list[Outcome]:
        """Outcomes since the last time, as `Executor.wait`."""
        outcomes = self.executor.wait(timeout)
        self.left -= len(outcomes)
        return outcomes

    def __iter__(self) -> Iterator[Outcome]:
        while self.left:
            yield from self.ended()
