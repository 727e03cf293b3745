"""Top-k accuracy as a metric of mmengine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor

from gemnet.registry import METRICS


@METRICS.register_module()
class Accuracy(BaseMetric):
    """Share of images, in percent, whose label is among the k highest logits: ``accuracy/top1``.

    Args:
        topk: the ks. One larger than the number of classes is left out.
        collect_device: as in mmengine.
        prefix: before the names.
    """

    default_prefix = "accuracy"

    def __init__(self, topk: Sequence[int] = (1,), collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.topk = tuple(topk)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Tensor]]) -> None:
        """Takes what `ImageClassifier` predicts for a batch."""
        for sample in data_samples:
            largest = min(max(self.topk), sample["logits"].shape[1])
            hits = sample["logits"].topk(largest, dim=1).indices == sample["labels"][:, None]
            self.results += hits.cumsum(1).bool().tolist()  # hits[i][k - 1]: among the k highest

    def compute_metrics(self, results: list[list[bool]]) -> dict[str, float]:
        """Top-k accuracies of all images."""
        table = np.asarray(results)
        return {f"top{k}": 100.0 * float(table[:, k - 1].mean()) for k in self.topk if k <= table.shape[1]}
