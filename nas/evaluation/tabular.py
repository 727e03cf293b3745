"""Evaluation by looking up a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from gemnet.errors import nearest
from nas.evaluation.costs import LATENCY
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.predictors.pool import Pool
from nas.tables.table import Table, TableError


class TabularEvaluator:
    """Answers proposals from a table.

    Args:
        table: cells and metrics.
        columns: which metric is the accuracy at how many epochs; a single entry answers that fidelity only.
        seconds: metric with the time of the longest training in seconds (shorter ones are charged their share), or
            None.
        latency: metric with the milliseconds of an image, handed out as ``latency``, or None.
        extra: further metrics handed out under their own names.

    Raises:
        TableError: a metric that the table lacks, or that is missing in some rows.
    """

    def __init__(
        self,
        table: Table,
        columns: Mapping[int, str],
        *,
        seconds: str | None = None,
        latency: str | None = None,
        extra: tuple[str, ...] = (),
    ) -> None:
        if not columns:
            raise TableError(f"Name the metric to look up.{nearest('', table.metrics)}")
        self.table = table
        self.columns = dict(columns)
        self.longest = max(columns)
        self._values = {epochs: table.metric(name) for epochs, name in columns.items()}
        self._seconds = None if seconds is None else table.metric(seconds)
        self._extra = {name: table.metric(name) for name in extra}
        if latency is not None:
            self._extra[LATENCY] = table.metric(latency)
        self._pool = Pool(table.space, table.batch)
        self._macs, self._params = table.space.macs(table.batch), table.space.params(table.batch)
        read = [table.fingerprint, sorted(self.columns.items()), seconds, list(extra)]
        key = json.dumps(read if latency is None else [*read, latency])
        self._fingerprint = hashlib.sha256(key.encode()).hexdigest()[:16]

    @property
    def fingerprint(self) -> str:
        """Hash of the table's content and the columns read."""
        return self._fingerprint

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the further metrics."""
        return tuple(self._extra)

    @property
    def fidelity(self) -> Fidelity:
        """The most thorough fidelity the table answers."""
        return Fidelity(epochs=self.longest)

    def evaluate(self, proposal: Proposal) -> Evaluation:
        """Looks the candidate up. A cell or fidelity that the table lacks gives a failed evaluation with the reason."""
        row = self._pool.index(proposal.candidate)
        if row is None:
            return Evaluation(proposal, "failed", None, reason=f"Table {self.table.name!r} has no such cell.")
        epochs = proposal.fidelity.epochs
        if epochs not in self._values:
            known = ", ".join(str(k) for k in sorted(self._values))
            return Evaluation(
                proposal,
                "failed",
                None,
                reason=f"Table {self.table.name!r} has results after {known} epochs, not {epochs}.",
            )
        share = epochs / self.longest
        return Evaluation(
            proposal,
            "ok",
            float(self._values[epochs][row]),
            macs=None if self._macs is None else float(self._macs[row]),
            params=None if self._params is None else float(self._params[row]),
            seconds=0.0 if self._seconds is None else float(self._seconds[row] * share),
            metrics={name: float(values[row]) for name, values in self._extra.items()},
        )

    def best(self) -> float:
        """The best accuracy of all cells at the most thorough fidelity."""
        return float(np.max(self._values[self.longest]))
