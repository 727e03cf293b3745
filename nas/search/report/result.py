"""What a search hands back, and the figures of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemnet.errors import GemnetError
from gemnet.genome import Genome
from nas.evaluation.costs import costs_text
from nas.evaluation.records import Evaluation
from nas.evaluation.training import BALANCED

BOOKKEEPING = ("strategy", "ask", "tell", "ledger", "pictures", "report")


class SearchError(GemnetError):
    """A search that came to nothing."""


@dataclass(frozen=True)
class Chosen:
    """The candidate a search ends with.

    Args:
        found: its evaluation during the search.
        fresh: its re-evaluations with fresh seeds; empty where none were asked for.
        score: mean efficiency score of the fresh ones (of the search's own without them).
        latency: milliseconds an image took when it was measured; None where it was not measured.
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
        device: what latencies are of; None where nothing limits or charges them.
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


def summary(result: SearchResult) -> dict[str, Any]:
    """The result as JSON holds it: the comparison, what was chosen and where the time went."""
    chosen = result.chosen
    return {
        "evaluations": len(result.evaluations),
        "failed": sum(evaluation.status == "failed" for evaluation in result.evaluations),
        "chosen": {
            "number": chosen.found.proposal.number,
            "candidate": chosen.found.proposal.candidate.to_json(),
            "accuracy": chosen.found.accuracy,
            "macs": chosen.found.macs,
            "params": chosen.found.params,
            "fresh_accuracies": [evaluation.accuracy for evaluation in chosen.fresh],
            "score": chosen.score,
            "latency_ms": chosen.latency,
        },
        "comparison": [asdict(row) for row in result.rows],
        "evaluations_per_hour": round(evaluations_per_hour(result), 1),
        "seconds": {part: round(seconds, 3) for part, seconds in result.seconds.items()},
        "bookkeeping_share": round(bookkeeping_share(result.seconds), 4),
    }


def bookkeeping_share(seconds: Mapping[str, float]) -> float:
    """Share of a search's wall-clock time that went into anything but evaluating."""
    return sum(seconds.get(part, 0.0) for part in BOOKKEEPING) / max(seconds["total"], 1e-9)


def evaluations_per_hour(result: SearchResult) -> float:
    """How fast this run explored; 0 where it only read the ledger."""
    return 3600 * result.evaluated / max(result.seconds["explore"], 1e-9)


def row_of(name: str, evaluations: Sequence[Evaluation]) -> Row:
    """The line of the comparison that trainings make."""
    good = [each for each in evaluations if each.accuracy is not None]
    return Row(
        name=name,
        accuracies=tuple(float(each.accuracy or 0.0) for each in good),
        test_accuracies=_metric(good, "test_accuracy"),
        macs=float(np.mean([each.macs or np.nan for each in good])) if good else float("nan"),
        params=float(np.mean([each.params or np.nan for each in good])) if good else float("nan"),
        failed=len(evaluations) - len(good),
        balanced=_metric(good, BALANCED),
        test_balanced=_metric(good, f"test_{BALANCED}"),
    )


def _metric(evaluations: Sequence[Evaluation], name: str) -> tuple[float, ...]:
    return tuple(each.metrics[name] for each in evaluations if name in each.metrics)


def figures_of(evaluation: Evaluation) -> str:
    """What came of an evaluation, in a few words."""
    if evaluation.accuracy is None:
        return f"failed: {evaluation.reason}"
    costs = costs_text(evaluation)
    return f"{evaluation.accuracy:.2f} %" + (f" at {costs}" if costs else "")
