"""The latencies that a search's candidates are estimated to have, kept beside its ledger.

Not in it: a ledger may be shared by searches for several devices, and an evaluation in it holds for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from gemnet.files import stored_json, write_json
from nas.evaluation.costs import LATENCY, completed
from nas.evaluation.ledger import EvaluationKey
from nas.evaluation.records import Evaluation
from nas.spaces.base import SearchSpace

WRITE_EVERY = 5.0
"""Seconds between two times that estimates are written."""


class Estimates:
    """Gives evaluations the costs that their evaluator does not say, and keeps estimated latencies for other readers.

    Args:
        space: knows the costs of its candidates.
        file: where estimates are kept.
    """

    def __init__(self, space: SearchSpace, file: Path) -> None:
        self.space, self.file = space, file
        self._milliseconds: dict[str, float] = {}
        self._new = False
        self._written = 0.0

    def __enter__(self) -> Estimates:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write()

    def complete(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation with all costs that the space knows."""
        found = completed(evaluation, self.space)
        if LATENCY not in evaluation.metrics and LATENCY in found.metrics:
            self._milliseconds[_key(evaluation)] = found.metrics[LATENCY]
            self._new = True
            if time.monotonic() - self._written > WRITE_EVERY:
                self._write()
        return found

    def _write(self) -> None:
        if self._new:
            with suppress(OSError):  # they can be estimated again
                write_json(self.file, {"milliseconds": self._milliseconds})
        self._new, self._written = False, time.monotonic()


def estimated(file: Path) -> Callable[[Evaluation], float | None]:
    """Milliseconds of an image in a candidate of a search, as it estimated them; None of what it has not met.

    Args:
        file: what its `Estimates` wrote.
    """
    kept = stored_json(file).get("milliseconds")
    known: dict[str, float] = kept if isinstance(kept, dict) else {}
    return lambda evaluation: known.get(_key(evaluation))


def _key(evaluation: Evaluation) -> str:
    key = EvaluationKey.of(evaluation.proposal, "")
    return f"{key.cell} {key.macro}"
