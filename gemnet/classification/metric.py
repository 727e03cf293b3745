"""Top-k and balanced accuracy as a metric of mmengine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from gemnet.registry import METRICS
from gemnet.training.confusion import Confusion
from gemnet.training.hooks import REMEDY, LossError


@METRICS.register_module()
class Accuracy(BaseMetric):
    """Share of images, in percent, whose label is among the k highest logits: ``accuracy/top1``.

    ``accuracy/balanced`` is the mean over the classes of the share of their images that are recognised.

    Args:
        topk: the ks. One larger than the number of classes is left out.
        collect_device: as in mmengine.
        prefix: before the names.

    Attributes:
        confusion_: what was taken for what in the last evaluation.
    """

    default_prefix = "accuracy"

    def __init__(self, topk: Sequence[int] = (1,), collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self._classes = 0
        self.topk = tuple(topk)
        self.confusion_: Confusion | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Tensor]]) -> None:
        """Takes what `ImageClassifier` predicts for a batch."""
        for sample in data_samples:
            if not sample["logits"].isfinite().all():
                raise LossError(f"The network's logits are not finite: its training has diverged. {REMEDY}")
            self._classes = sample["logits"].shape[1]
            largest = min(max(self.topk), self._classes)
            best = sample["logits"].topk(largest, dim=1).indices
            # The place of the label among the highest logits; beyond them where it is none of them.
            hits = best == sample["labels"][:, None]
            place = torch.where(hits.any(1), hits.int().argmax(1), largest)
            self.results += torch.stack([place, sample["labels"], best[:, 0]], dim=1).tolist()

    def compute_metrics(self, results: list[list[int]]) -> dict[str, float]:
        """Accuracies of all images."""
        place, labels, predicted = np.asarray(results).T
        names = (self.dataset_meta or {}).get("classes") or map(str, range(self._classes))
        self.confusion_ = Confusion.of(labels, predicted, tuple(names))
        figures = {f"top{k}": 100.0 * float((place < k).mean()) for k in self.topk if k <= self._classes}
        return {**figures, "balanced": self.confusion_.balanced_accuracy}
