"""The efficiency score: accuracy weighed against what a network costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gemnet.errors import nearest
from nas.evaluation.costs import COSTS
from nas.evaluation.records import Evaluation
from nas.spaces.limits import Limits, LimitsError


@dataclass(frozen=True)
class EfficiencyScore:
    """Accuracy weighed against a cost.

    ``score = accuracy - weight * log2(cost / target)``, in points of accuracy: a network may cost twice as much if it
    is ``weight`` points better. At the target the score is the accuracy itself. The formula is ours: its one number
    has a unit, and the logarithm penalises 20 M MACs against 10 M as much as 200 M against 100 M.

    Args:
        target_macs: multiply-adds without penalty or bonus; needed with that cost and a weight.
        weight: points of accuracy that a doubling of the cost must bring. 0 ignores the cost.
        cost: ``macs``, ``params`` or ``latency`` (milliseconds per image on the device of the config's ``latency``).
        target_params: parameters without penalty or bonus.
        target_latency: milliseconds without penalty or bonus.

    Raises:
        LimitsError: an unknown cost, a negative weight, or a positive one without a positive target.
    """

    target_macs: float | None = None
    weight: float = 0.0
    cost: str = "macs"
    target_params: float | None = None
    target_latency: float | None = None

    def __post_init__(self) -> None:
        if self.cost not in COSTS:
            raise LimitsError(f"score.cost is one of {', '.join(COSTS)}, got {self.cost!r}.{nearest(self.cost, COSTS)}")
        if not self.weight >= 0:
            raise LimitsError(f"The score's weight is 0 or more points per doubling of the cost, got {self.weight}.")
        if self.weight and not (self.target and self.target > 0):
            raise LimitsError(
                f"A score with weight {self.weight} and cost {self.cost!r} needs target_{self.cost} > 0, got "
                f"{self.target}. Set target_{self.cost}, or weight=0 to ignore the cost."
            )

    @property
    def target(self) -> float | None:
        """The cost at which nothing is charged or credited."""
        return cast("float | None", getattr(self, f"target_{self.cost}"))

    def __call__(self, accuracy: ArrayLike, cost: ArrayLike | None = None) -> NDArray[np.float64]:
        """Scores, in points of accuracy; shapes broadcast.

        Args:
            accuracy: in percent.
            cost: what ``cost`` names.

        Raises:
            LimitsError: the weight is positive and no costs are given.
        """
        points = np.asarray(accuracy, dtype=np.float64)
        if not self.weight:
            return points
        if cost is None or self.target is None:
            raise LimitsError(f"The score charges {self.cost}, but the space or table has none. Set score.weight=0.")
        return points - self.weight * np.log2(np.asarray(cost, dtype=np.float64) / self.target)

    def of(self, evaluation: Evaluation) -> float:
        """Score of an evaluation; nan where it failed.

        Raises:
            LimitsError: the weight is positive and the evaluation doesn't say what the network costs.
        """
        if evaluation.status != "ok" or evaluation.accuracy is None:
            return float("nan")
        return float(self(evaluation.accuracy, evaluation.cost(self.cost)))


def compared_by(score: EfficiencyScore, limits: Limits) -> str:
    """The cost at which networks are compared: what is charged; where nothing is, what is limited; else MACs.

    Args:
        score: what is maximised.
        limits: what networks may cost; of several the latency counts first, then MACs.
    """
    if score.weight:
        return score.cost
    limited = (name for name in ("latency", "macs", "params") if getattr(limits, f"max_{name}") is not None)
    return next(limited, "macs")
