"""What every callback offers."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemnet.errors import GemnetError
from nas.evaluation.records import Evaluation
from nas.evaluation.score import EfficiencyScore
from nas.search.report.result import SearchResult
from nas.spaces.base import SearchSpace
from nas.spaces.limits import Limits

ARTEFACTS = ("report.html", "search.png", "cell.png", "best.json", "summary.json")
"""Files of a finished search that trackers keep, where they are there."""


class CallbackError(GemnetError):
    """A callback that can't be used."""


@dataclass(frozen=True)
class Begun:
    """The search that a callback hears of.

    Args:
        id: names it in the ledger, for ever.
        folder: its work folder.
        config: what was asked for, as plain data.
        space: where it searches.
        score: what it maximises.
        limits: what its networks may cost.
    """

    id: str
    folder: Path
    config: Mapping[str, Any]
    space: SearchSpace
    score: EfficiencyScore
    limits: Limits

    @property
    def name(self) -> str:
        """What people call it."""
        return self.folder.absolute().name

    @property
    def artefacts(self) -> list[Path]:
        """The files to keep, as far as they are there."""
        return [self.folder / name for name in ARTEFACTS if (self.folder / name).is_file()]


class Callback(ABC):
    """Follows one search. All methods but the constructor are called in one thread; errors in them are noted."""

    @abstractmethod
    def begin(self, search: Begun) -> None:
        """The search begins, or goes on: then all its evaluations are told again."""

    @abstractmethod
    def evaluated(self, evaluation: Evaluation, score: float, best: float) -> None:
        """An evaluation has ended.

        Args:
            evaluation: also a failed one; its proposal has the number.
            score: what the search maximises; minus infinity where it failed.
            best: the greatest score so far.
        """

    @abstractmethod
    def end(self, result: SearchResult | None) -> None:
        """The search has ended and its files are written; None where it was stopped before its end."""


def figures(evaluation: Evaluation, score: float, best: float) -> dict[str, float]:
    """What trackers plot of an evaluation, by name; what is not known is left out."""
    found = {
        "accuracy": evaluation.accuracy,
        "score": score,
        "best_score": best,
        "macs": evaluation.macs,
        "params": evaluation.params,
        "seconds": evaluation.seconds,
        **evaluation.metrics,
    }
    return {name: float(value) for name, value in found.items() if value is not None and abs(value) < float("inf")}


def needed(module: str, extra: str) -> Any:
    """A module that comes with an extra.

    Raises:
        CallbackError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise CallbackError(f"This callback needs {module}: pip install 'gemnet[{extra}]'.") from None
