"""Keeps a search's page up to date while it runs."""

from __future__ import annotations

import platform
import shlex
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nas.evaluation.records import Evaluation
from nas.executors.monitor import Stopwatch
from nas.predictors.nasgem_features import encoder_of, features
from nas.predictors.pool import Pool
from nas.search.config import SearchConfig
from nas.search.next_commands import next_commands, program
from nas.search.report.facts import Floats, Hindsight, Report, Round, map_of
from nas.search.report.page import write_page
from nas.search.report.result import SearchResult
from nas.spaces.base import SearchSpace
from nas.spaces.gemnet import GEMNetSpace
from nas.strategies.base import Strategy
from nas.strategies.nasgem import Nasgem

EVERY = 10.0
"""Seconds between two writings while the search runs, at least."""
SHARE = 0.02
"""Most of a search's time that writing may take while it runs."""
PACKAGES = ("gemnet", "torch", "timm", "numpy", "scikit-learn")


class LivePage:
    """The page of one search.

    Args:
        path: the ``.html`` file.
        config: the search.
        space: where it searches.
        stopwatch: of the search; what the page takes is counted under ``report``.
        command: what was typed.
    """

    def __init__(
        self,
        path: Path,
        config: SearchConfig,
        space: SearchSpace,
        stopwatch: Stopwatch,
        command: str = "",
    ) -> None:
        self.path, self.config, self.space, self.stopwatch = path, config, space, stopwatch
        self.command = command
        self.strategy: Strategy | None = None
        self._hindsight: Hindsight | None = None
        self._done: dict[int, Evaluation] = {}
        self._written = time.monotonic()

    def follow(self, strategy: Strategy) -> None:
        """Says which strategy searches: what it sees of candidates is what the page predicts from and maps."""
        self.strategy = strategy
        if isinstance(strategy, Nasgem):
            parts = strategy.parts
            self._hindsight = Hindsight(
                self.space, lambda batch: features(Pool(self.space, batch), parts), self.config.search.batch
            )

    def add(self, evaluation: Evaluation) -> None:
        """An evaluation of the exploration has ended; the page is written where it is time."""
        self._done[evaluation.proposal.number] = evaluation
        took = self.stopwatch.seconds.get("report", 0.0)
        if time.monotonic() - self._written >= EVERY and took <= SHARE * self.stopwatch.total:
            self.write("running")

    def write(self, state: str, result: SearchResult | None = None) -> None:
        """Writes the page.

        Args:
            state: "running", "finished" or "stopped".
            result: what the search came to, once it is known.
        """
        with self.stopwatch("report"):
            write_page(self._report(state, result), self.path)
        self._written = time.monotonic()

    def _report(self, state: str, result: SearchResult | None) -> Report:
        config = self.config
        rows = () if result is None else result.rows
        whole = 0  # evaluations without a gap: what a batch was predicted from
        while whole in self._done:
            whole += 1
        evaluations = tuple(self._done[number] for number in range(whole))
        known = bool(config.search.first or config.search.start_from)
        initial = 0 if known or self.strategy is None else self.strategy.initial
        positions: Floats | None = None
        rounds: tuple[Round, ...] = ()
        if isinstance(self.strategy, Nasgem) and len(evaluations) > 2:
            if self.strategy.parts.encoder is not None:
                cells = self.space.pack([each.proposal.candidate for each in evaluations])
                positions = map_of(encoder_of(self.space, self.strategy.parts.encoder).embed(cells.graphs))
            if self._hindsight is not None and self.strategy.low is None:
                rounds = self._hindsight.rounds(evaluations, config.score, max(initial, 1))
        installed = self.command.startswith("gemnet-")
        folder = shlex.quote(str(self.path.parent))
        export = program("export", installed)
        builds = isinstance(self.space, GEMNetSpace)
        return Report(
            name=f"Search in {self.path.parent}",
            state=state,
            planned=config.search.evaluations,
            evaluations=evaluations,
            score=config.score,
            limits=config.limits,
            initial=initial,
            chosen=None if result is None else result.chosen,
            rows=rows,
            device="" if result is None else result.device or "",
            positions=positions,
            rounds=rounds,
            seconds={**self.stopwatch.seconds, "total": self.stopwatch.total},
            setting=_setting(config),
            command=self.command,
            versions=_versions(),
            next=() if result is None else tuple(next_commands(config, result, installed)),
            rebuild=f"{export} {folder} --name no{{number}} --number {{number}} --genome no{{number}}.json"
            if builds
            else "",
            vocabulary=tuple(self.space.vocabulary),
        )


def _setting(config: SearchConfig) -> tuple[tuple[str, str], ...]:
    shown = []
    for name in ("space", "strategy", "evaluator", "data", "fidelity", "score", "limits", "search", "confirm"):
        value = config.to_dict().get(name)
        if isinstance(value, dict):
            text = ", ".join(f"{key} {value[key]}" for key in value if value[key] is not None)
            shown.append((name, text if len(text) < 600 else text[:600] + " ..."))
    return tuple(shown)


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that was never installed
            continue
    return found
