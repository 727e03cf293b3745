"""The data that travels between strategy, executor, evaluator and ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, SupportsFloat

import numpy as np

from gemnet.errors import GemnetError
from gemnet.strict import at_least
from nas.spaces.base import Candidate


class FidelityError(GemnetError):
    """A fidelity at which nothing can be evaluated."""


class EvaluationError(GemnetError):
    """What an evaluator returned is no evaluation."""


@dataclass(frozen=True, order=True)
class Fidelity:
    """How thoroughly a candidate is evaluated.

    Args:
        epochs: passes over the training images (for tables: the epochs of the recorded training).
        resolution: side of the training images in pixels; None keeps the data set's own.
        subset: share of the training images used, in (0, 1].

    Raises:
        FidelityError: a value out of range.
    """

    epochs: int
    resolution: int | None = None
    subset: float = 1.0

    def __post_init__(self) -> None:
        at_least("fidelity", self, FidelityError, epochs=1)
        if self.resolution is not None and not 1 <= self.resolution <= 4096:
            raise FidelityError(f"fidelity.resolution is a number of pixels from 1 to 4096, got {self.resolution}.")
        if not 0 < self.subset <= 1:
            raise FidelityError(f"fidelity.subset is a share of the training images in (0, 1], got {self.subset}.")


@dataclass(frozen=True)
class Proposal:
    """A candidate to evaluate.

    Args:
        number: 0, 1, 2, ... in the order of asking; together with the search's seed it keys all randomness.
        candidate: what to evaluate.
        fidelity: how thoroughly.
        training_seed: seed of initialisation, data order and augmentation.
    """

    number: int
    candidate: Candidate
    fidelity: Fidelity
    training_seed: int = 0


@dataclass(frozen=True)
class Evaluation:
    """What became of a proposal.

    Args:
        proposal: what was asked.
        status: "ok", or "failed" with a reason (NaN loss, out of memory, time limit, crashed worker).
        accuracy: top-1 on the development split in percent; None where failed.
        macs: multiply-adds of one forward pass at the input size of the network's final use.
        params: number of parameters.
        seconds: wall-clock time the evaluation took (for tables: the recorded training time, the query's cost).
        reason: one sentence where failed, else "".
        metrics: further measured figures by name, such as latency in ms.
    """

    proposal: Proposal
    status: Literal["ok", "failed"]
    accuracy: float | None
    macs: float | None = None
    params: float | None = None
    seconds: float = 0.0
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    def cost(self, name: str) -> float | None:
        """What the network costs: ``macs``, ``params``, or a metric such as ``latency``; None where it is not known."""
        return {"macs": self.macs, "params": self.params}.get(name, self.metrics.get(name))


def checked(returned: Any) -> Evaluation:
    """What an evaluator returned, as it is recorded: figures of NumPy or PyTorch become plain numbers.

    Args:
        returned: an evaluator may be somebody's own, so it may be anything.

    Raises:
        EvaluationError: no `Evaluation`, another status, or a figure that is no finite number.
    """
    if not isinstance(returned, Evaluation):
        raise EvaluationError(f"the evaluator returned {_shown(returned)}, expected a nas.Evaluation")
    if returned.status not in ("ok", "failed"):
        raise EvaluationError(f"the evaluator returned status {returned.status!r}, expected 'ok' or 'failed'")
    if not isinstance(returned.metrics, Mapping):
        raise EvaluationError(f"the evaluator returned metrics {_shown(returned.metrics)}, expected a dict of numbers")
    number = _number if returned.status == "ok" else _finite  # figures of what has failed are not compared
    return replace(
        returned,
        accuracy=None if returned.status == "failed" else _number("accuracy", returned.accuracy),
        macs=None if returned.macs is None else number("macs", returned.macs),
        params=None if returned.params is None else number("params", returned.params),
        seconds=_number("seconds", returned.seconds),
        reason=str(returned.reason),
        metrics={
            str(name): figure
            for name, value in returned.metrics.items()
            if (figure := number(f"metrics[{name!r}]", value)) is not None
        },
    )


def _number(name: str, value: Any) -> float:
    number = _finite(name, value)
    if number is None:
        given = value if isinstance(value, float | np.floating) else _shown(value)
        raise EvaluationError(f"the evaluator returned {name} {given}, expected a finite number")
    return number


def _finite(name: str, value: Any) -> float | None:
    """A value as a number; None where it is none, or not finite."""
    try:
        number = float(value) if isinstance(value, SupportsFloat) else math.nan
    except (TypeError, ValueError):  # an array of several
        return None
    return number if math.isfinite(number) else None


def _shown(value: Any) -> str:
    return "None" if value is None else f"{str(value)[:40]!r} of class {type(value).__name__}"


class Evaluator(Protocol):
    """Measures candidates. A failed training is a result, never an exception."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever results could: data, split, recipe and code version of the evaluation."""
        ...

    @property
    def metrics(self) -> Sequence[str]:
        """Names of what `Evaluation.metrics` of its evaluations hold."""
        ...

    def evaluate(self, proposal: Proposal) -> Evaluation:
        """Trains or looks up the proposal's candidate at its fidelity."""
        ...
