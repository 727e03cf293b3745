"""How far searches are: told from a work folder or from a shared ledger, by whoever asks, while they go on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gemnet.folder_lock import Holder, holder_of, seems_alive
from nas.evaluation.costs import LATENCY, with_latency
from nas.evaluation.ledger import LEDGER, Ledger, SearchRecord
from nas.evaluation.records import Evaluation
from nas.evaluation.score import EfficiencyScore
from nas.executors.options import workers_of
from nas.search.config import read_config
from nas.search.ending import duration
from nas.search.estimates import estimated
from nas.search.folder import ESTIMATES, read_identity
from nas.search.report.result import figures_of

RECENT = 50
"""Evaluations by whose times the rate is told."""


@dataclass(frozen=True)
class Status:
    """How far a search is.

    Args:
        name: its work folder, or what the ledger says of it.
        wanted: evaluations it is to make; None where that is not known.
        evaluated: proposals with a result.
        under_way: proposals without one.
        failures: how often evaluations failed, by reason.
        best: the best evaluation by the search's score (by accuracy, where only the ledger is known).
        an_hour: evaluations an hour, by the latest ones; None with fewer than two.
        driver: the process that drives it, or drove it last; None where nobody does.
        driven: whether that process is alive.
        finished: whether it came to its end.
        workers: worker processes the config asks for, 0 for none; None where only the ledger is known.
    """

    name: str
    wanted: int | None
    evaluated: int
    under_way: int
    failures: Counter[str]
    best: Evaluation | None
    an_hour: float | None
    driver: Holder | None = None
    driven: bool = False
    finished: bool = False
    workers: int | None = None

    def line(self) -> str:
        """One line: how far, failures, the best."""
        of = "" if self.wanted is None else f" of {self.wanted:,}"
        failed = f", {self.failures.total():,} failed" if self.failures else ""
        best = "" if self.best is None else f", best {figures_of(self.best)}"
        return f"{self.name}: {self.evaluated:,}{of} evaluated{failed}{best}"

    def lines(self) -> list[str]:
        """Everything, for people."""
        if self.finished:
            state = "finished"
        elif self.driven:
            state = f"searching ({self.driver})"
        elif self.driver is not None:
            state = f"stopped: {self.driver}, has died; --resume goes on"
        else:
            state = "not being driven here; --resume goes on" if self.workers is not None else ""
        found = [self.line(), *([f"  {state}"] if state else [])]
        found += [f"  failed {count} times: {reason}" for reason, count in self.failures.most_common(5)]
        if self.under_way:
            workers = "" if not self.workers else f" ({self.workers} worker{'s' if self.workers > 1 else ''})"
            found.append(f"  {self.under_way:,} proposed without a result{workers}")
        if self.an_hour and not self.finished:
            left = max(0, (self.wanted or 0) - self.evaluated)
            more = f", about {duration(3600 * left / self.an_hour)} left of exploring" if left else ""
            found.append(f"  {self.an_hour:,.0f} evaluations an hour{more}")
        return found


def status_of_folder(folder: Path) -> Status:
    """How far the search in a work folder is; writes nothing there.

    Raises:
        WorkFolderError: there is no search.
        LedgerError: its ledger can't be read.
    """
    identity = read_identity(folder)
    config = read_config(identity["config"])
    place: str | Path = config.ledger or folder / LEDGER
    wanted = config.search.evaluations
    if isinstance(place, Path) and not place.exists():  # it has only just begun
        found = Status(str(folder), wanted, 0, 0, Counter(), None, None)
    else:
        with Ledger(place, read_only=True) as ledger:
            entered = {each.search: each.evaluations for each in ledger.searches()}
            wanted = entered.get(identity["search_id"], wanted)
            search, evaluator = identity["search_id"], identity["evaluator"]
            found = _status(ledger, str(folder), search, evaluator, wanted, config.score, folder / ESTIMATES)
    driver = holder_of(folder)
    return Status(
        **{
            **vars(found),
            "driver": driver,
            "driven": driver is not None and seems_alive(folder),
            "finished": (folder / "summary.json").is_file() and found.evaluated >= wanted,
            "workers": workers_of(config.workers)[0],
        }
    )


def statuses_of_ledger(url: str) -> list[Status]:
    """How far each search is that uses a ledger.

    Args:
        url: the ledger: a URL, or a path to an SQLite file.

    Raises:
        LedgerError: it can't be read.
    """
    with Ledger(url, read_only=True) as ledger:
        return [
            _status(ledger, _name(each), each.search, each.evaluator, each.evaluations, EfficiencyScore(weight=0.0))
            for each in ledger.searches()
        ]


def _name(record: SearchRecord) -> str:
    return f"{record.name} ({record.host}:{record.folder}, begun {record.begun_at})"


def _status(
    ledger: Ledger,
    name: str,
    search: str,
    evaluator: str,
    wanted: int | None,
    score: EfficiencyScore,
    estimates: Path | None = None,
) -> Status:
    proposals = ledger.proposals(search)
    results = {
        (each.proposal.candidate.key(), each.proposal.fidelity, each.proposal.training_seed): each
        for each in ledger.evaluations(evaluator)
    }
    own = [results.get((each.candidate.key(), each.fidelity, each.training_seed)) for each in proposals]
    done = [each for each in own if each is not None]
    if estimates is not None:
        milliseconds = estimated(estimates)
        done = [each if LATENCY in each.metrics else with_latency(each, milliseconds(each)) for each in done]
    failures = Counter(each.reason for each in done if each.status == "failed")
    good = [each for each in done if each.accuracy is not None and (not score.weight or each.cost(score.cost))]
    best = max(good, key=score.of, default=None)
    times = [datetime.fromisoformat(text).timestamp() for text in ledger.times(evaluator)[-RECENT:]]
    seconds = times[-1] - times[0] if len(times) > 1 else 0.0
    rate = 3600 * (len(times) - 1) / seconds if seconds > 0 else None
    return Status(name, wanted, len(done), len(proposals) - len(done), failures, best, rate)
