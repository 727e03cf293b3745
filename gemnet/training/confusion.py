"""What a classifier takes for what: figures of each class, and the pairs it confuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.table import Table
from rich.text import Text

from gemnet.quoting import printable

SHOWN_CLASSES = 100
"""Classes listed one by one, at most."""


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often each class was taken for each.

    Args:
        matrix: images of class i taken for class j; int64 (k, k).
        classes: names, k of them.
    """

    matrix: NDArray[np.int64]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, labels: ArrayLike, predicted: ArrayLike, classes: Sequence[str]) -> Confusion:
        """From the true and the predicted class of n images, each in ``range(len(classes))``."""
        number = len(classes)
        pairs = np.asarray(labels, np.int64) * number + np.asarray(predicted, np.int64)
        return cls(np.bincount(pairs, minlength=number**2).reshape(number, number), tuple(classes))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Images of each class, (k,)."""
        return self.matrix.sum(axis=1)

    @property
    def accuracy(self) -> float:
        """Share of the images that are recognised, in percent."""
        return 100.0 * float(np.trace(self.matrix)) / max(int(self.matrix.sum()), 1)

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of the images of each class that are recognised, in percent, (k,); nan for a class without images."""
        return _shares(np.diag(self.matrix), self.counts)

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of what is taken for a class that is of it, in percent, (k,); nan where nothing is."""
        return _shares(np.diag(self.matrix), self.matrix.sum(axis=0))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have images, in percent: each class counts alike, however many it has."""
        return float(np.nanmean(self.recall)) if len(self.classes) and self.counts.any() else float("nan")

    def most_confused(self, most: int = 5) -> list[tuple[str, str, int]]:
        """(true class, taken for, images), the most frequent first."""
        off = self.matrix.copy()
        np.fill_diagonal(off, 0)
        order = np.argsort(-off, axis=None, kind="stable")[:most]
        pairs = [divmod(int(place), len(self.classes)) for place in order]
        return [(self.classes[i], self.classes[j], int(off[i, j])) for i, j in pairs if off[i, j]]

    def table(self) -> Table:
        """Images, recall and precision of each class; of many classes the worst ones."""
        table = Table(title=f"top-1 {self.accuracy:.2f} %, balanced {self.balanced_accuracy:.2f} %")
        for name in ("class", "images", "recall %", "precision %"):
            table.add_column(name, justify="left" if name == "class" else "right", no_wrap=name != "class")
        rows = [k for k in range(len(self.classes)) if self.counts[k] or self.matrix[:, k].any()]
        if len(rows) > SHOWN_CLASSES:
            recall = np.nan_to_num(self.recall, nan=101.0)
            table.caption = f"the {SHOWN_CLASSES} worst of {len(rows)} classes"
            rows = sorted(rows, key=lambda k: recall[k])[:SHOWN_CLASSES]
        for k in rows:
            shares = ("-" if np.isnan(value) else f"{value:.1f}" for value in (self.recall[k], self.precision[k]))
            table.add_row(Text(printable(self.classes[k])), f"{self.counts[k]}", *shares)
        return table

    def matrix_table(self) -> Table:
        """The matrix itself: a row for each class, a column for what its images are taken for, by number."""
        table = Table(title="images of the class (row) taken for (column)")
        table.add_column("", no_wrap=True)
        for number in range(len(self.classes)):
            table.add_column(f"{number}", justify="right", no_wrap=True)
        for number, (name, row) in enumerate(zip(self.classes, self.matrix, strict=True)):
            shown = [str(count) if count else "." for count in row]
            table.add_row(Text(f"{number} {printable(name)}"), *shown)
        return table


def _shares(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(whole > 0, 100.0 * part / np.maximum(whole, 1), np.nan)
