"""What a search hands back, and the figures of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gemnet.errors import GemnetError
from gemnet.genome import Genome
from nas.evaluation.records import Evaluation


class SearchError(GemnetError):
    """A search that came to nothing."""


@dataclass(frozen=True)
class Chosen:
    """The candidate a search ends with.

    Args:
        found: its evaluation during the search.
        fresh: its re-evaluations with fresh seeds; empty where none were asked for.
        score: mean efficiency score of the fresh ones (of the search's own without them).
        latency: milliseconds an image took when it was measured; None without a limit on it.
    """

    found: Evaluation
    fresh: tuple[Evaluation, ...]
    score: float
    latency: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Args:
        name: what was trained.
        accuracies: top-1 on the development images in percent, one for each training.
        test_accuracies: top-1 on the official test images, where these were opened.
        macs: multiply-adds (the mean, where the line stands for several networks).
        params: parameters (likewise).
        failed: trainings that came to nothing.
        milliseconds: time of an image where it was measured.
        balanced: balanced accuracy on the development images in percent, one for each training.
        test_balanced: likewise on the official test images.
    """

    name: str
    accuracies: tuple[float, ...]
    test_accuracies: tuple[float, ...]
    macs: float
    params: float
    failed: int = 0
    milliseconds: float | None = None
    balanced: tuple[float, ...] = ()
    test_balanced: tuple[float, ...] = ()


@dataclass(frozen=True)
class SearchResult:
    """What a search hands back.

    Args:
        folder: the work folder's path.
        evaluations: every evaluation of the exploration, by number.
        chosen: the candidate it ends with.
        genome: its network; None for tables.
        in_chans: channels of the images; None for tables.
        rows: the comparison, the found network first; empty where nothing was trained longer.
        evaluated: how many of these were evaluated in this run, and not before.
        seconds: time spent in each part of the bookkeeping, in ``explore`` (waiting for evaluations included) and in
            ``total``.
        device: what latencies are of; None without a limit on them.
    """

    folder: Path
    evaluations: tuple[Evaluation, ...]
    chosen: Chosen
    genome: Genome | None
    in_chans: int | None
    rows: tuple[Row, ...]
    evaluated: int
    seconds: dict[str, float]
    device: str | None = None
