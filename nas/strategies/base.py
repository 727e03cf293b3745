"""What every search strategy offers: ask and tell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from nas.evaluation.records import Evaluation, Proposal

Progress = Callable[[int, int, float], None]


class Strategy(ABC):
    """Proposes candidates and learns from their evaluations.

    A strategy holds no state that the ledger couldn't give back: constructing it anew and telling it the same
    evaluations, in order of their numbers, makes it propose what the first one would have proposed. All randomness
    comes from ``numpy.random.default_rng([seed, number])`` with the number of the first proposal asked for.
    """

    initial: int = 0
    """How many proposals at the start are drawn at random."""

    def prepare(self, progress: Progress | None = None) -> None:  # noqa: B027  most have nothing to do
        """Does what takes minutes and is needed once, such as training an encoder; else the first `ask` would.

        Args:
            progress: called after each step of such a training with (step, steps, loss); never where there is none.
        """

    @abstractmethod
    def ask(self, n: int, pending: Sequence[Proposal] = ()) -> list[Proposal]:
        """At most ``n`` new proposals, numbered from (told + pending) on; none is one told or pending.

        Fewer than ``n`` (or none) are returned only where the space has no more candidates within the limits.
        """

    @abstractmethod
    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learns from finished evaluations, failed ones included."""
