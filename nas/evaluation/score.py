"""The efficiency score, and the hard limits beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.spaces.limits import LimitsError


@dataclass(frozen=True)
class EfficiencyScore:
    """Accuracy weighed against MACs.

    ``score = accuracy - weight * log2(macs / target_macs)``, in points of accuracy: a network may cost twice the
    MACs where it is ``weight`` points better. At the target the score is the accuracy itself. The paper gives no
    formula; this one is ours, chosen because its one number has a unit, and because a logarithm charges 10 to 20 M MACs
    what it charges 100 to 200 M.

    Args:
        target_macs: multiply-adds at which nothing is charged or credited; None with weight 0.
        weight: points of accuracy that a doubling of MACs must bring. 0 ignores MACs.

    Raises:
        LimitsError: a negative weight, or a positive one without a positive target.
    """

    target_macs: float | None = None
    weight: float = 0.0

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise LimitsError(f"The score's weight is 0 or more points per doubling of MACs, got {self.weight}.")
        if self.weight and not (self.target_macs and self.target_macs > 0):
            raise LimitsError(
                f"A score with weight {self.weight} needs target_macs > 0, got {self.target_macs}. "
                "Set target_macs, or weight=0 to ignore MACs."
            )

    def __call__(self, accuracy: ArrayLike, macs: ArrayLike | None = None) -> NDArray[np.float64]:
        """Scores, in points of accuracy; shapes broadcast.

        Raises:
            LimitsError: the weight is positive and no MACs are given.
        """
        points = np.asarray(accuracy, dtype=np.float64)
        if not self.weight:
            return points
        if macs is None or self.target_macs is None:
            raise LimitsError("The score charges MACs but the space or table has none. Set weight=0.")
        return points - self.weight * np.log2(np.asarray(macs, dtype=np.float64) / self.target_macs)
