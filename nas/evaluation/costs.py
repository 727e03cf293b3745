"""What a network costs, by name: what a score charges, limits bound and pages show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from nas.evaluation.records import Evaluation
from nas.spaces.base import SearchSpace


@dataclass(frozen=True)
class Cost:
    """How a cost is shown.

    Args:
        unit: behind a figure.
        scale: how much of what is counted makes one unit.
        title: of an axis.
        name: in a sentence.
    """

    unit: str
    scale: float
    title: str
    name: str

    @property
    def counted(self) -> str:
        """What stands behind a figure that is not scaled: 490,000 MACs, 2.31 ms."""
        return self.unit if self.scale == 1 else self.name

    def text(self, value: float) -> str:
        """A figure with three digits, or all digits of more: 0.49 M MACs, 3,412 M MACs, 2.31 ms."""
        shown = value / self.scale
        return f"{shown:.3g} {self.unit}" if shown < 999.5 else f"{shown:,.0f} {self.unit}"


COSTS: Mapping[str, Cost] = MappingProxyType(
    {
        "macs": Cost("M MACs", 1e6, "MACs (millions)", "MACs"),
        "params": Cost("k parameters", 1e3, "parameters (thousands)", "parameters"),
        "latency": Cost("ms", 1.0, "milliseconds an image", "estimated time"),
    }
)
"""The costs a score may charge, by the names that configs use."""
LATENCY = "latency"


def costs_text(evaluation: Evaluation) -> str:
    """What an image costs in an evaluated network: ``17.2 M MACs and 2.31 ms``; "" where nothing is known."""
    found = {name: evaluation.cost(name) for name in ("macs", LATENCY)}
    return " and ".join(COSTS[name].text(value) for name, value in found.items() if value)


def with_latency(evaluation: Evaluation, milliseconds: float | None) -> Evaluation:
    """The evaluation with another latency, or as it is with None."""
    if milliseconds is None:
        return evaluation
    return replace(evaluation, metrics={**evaluation.metrics, LATENCY: milliseconds})


def completed(evaluation: Evaluation, space: SearchSpace) -> Evaluation:
    """The evaluation with those costs that its evaluator did not give and its space knows."""
    missing = [name for name in COSTS if evaluation.cost(name) is None]
    if not missing:
        return evaluation
    batch = space.pack([evaluation.proposal.candidate])
    values = {name: space.cost(name, batch) for name in missing}
    found = {name: float(each[0]) for name, each in values.items() if each is not None}
    metrics = {name: value for name, value in found.items() if name not in ("macs", "params")}
    return replace(
        evaluation,
        macs=found.get("macs", evaluation.macs),
        params=found.get("params", evaluation.params),
        metrics={**evaluation.metrics, **metrics},
    )
