"""The ledger: every evaluation ever made, kept by SQLAlchemy in SQLite (in the work folder) or PostgreSQL (by URL).

Two append-only tables. ``evaluations`` holds results, one for each key (cell, macro choices, fidelity, training seed,
evaluator); ``proposals`` holds what a search asked for, under its number, written before anything is trained. Both
together make a search resumable at any moment: what was asked is asked again, what was answered is never done again.
Only the process that drives a search writes; worker processes hand it their results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from gemnet.errors import GemnetError
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.spaces.base import Candidate

_METADATA = sa.MetaData()

_EVALUATIONS = sa.Table(
    "evaluations",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("cell", sa.String(64), nullable=False),
    sa.Column("macro", sa.Text, nullable=False),
    sa.Column("fidelity", sa.String(200), nullable=False),
    sa.Column("training_seed", sa.BigInteger, nullable=False),
    sa.Column("evaluator", sa.String(200), nullable=False),
    sa.Column("candidate", sa.Text, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("accuracy", sa.Float),
    sa.Column("macs", sa.Float),
    sa.Column("params", sa.Float),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("metrics", sa.Text, nullable=False),
    sa.Column("recorded_at", sa.String(32), nullable=False),
    sa.UniqueConstraint("cell", "macro", "fidelity", "training_seed", "evaluator", name="one_result_per_key"),
)

_PROPOSALS = sa.Table(
    "proposals",
    _METADATA,
    sa.Column("search", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("candidate", sa.Text, nullable=False),
    sa.Column("fidelity", sa.String(200), nullable=False),
    sa.Column("training_seed", sa.BigInteger, nullable=False),
)


class LedgerError(GemnetError):
    """A ledger that can't be opened, or a record that contradicts one already made."""


@dataclass(frozen=True)
class EvaluationKey:
    """What makes two evaluations the same one.

    Args:
        cell: canonical hash of the cell.
        macro: macro choices as JSON, sorted by name.
        fidelity: `Fidelity` as JSON.
        training_seed: seed of the training.
        evaluator: the evaluator's fingerprint.
    """

    cell: str
    macro: str
    fidelity: str
    training_seed: int
    evaluator: str

    @classmethod
    def of(cls, proposal: Proposal, evaluator: str) -> EvaluationKey:
        """The key of a proposal under an evaluator's fingerprint; isomorphic candidates share it."""
        return cls(
            cell=proposal.candidate.cell.canonical_hash(),
            macro=_dump(dict(proposal.candidate.macro)),
            fidelity=_dump_fidelity(proposal.fidelity),
            training_seed=proposal.training_seed,
            evaluator=evaluator,
        )


class Ledger:
    """Opens (and where needed creates) a ledger.

    Args:
        url: a path to an SQLite file, or an SQLAlchemy URL such as ``postgresql+psycopg2://user@host/database``.

    Raises:
        LedgerError: the database can't be opened, or is something else than a ledger.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = url if isinstance(url, str) and "://" in url else f"sqlite:///{Path(url).absolute()}"
        shown = re.sub("://[^/@]*@", "://***@", self.url)  # without the password, even where it can't be parsed
        try:
            address = sa.engine.make_url(self.url)
            self._engine = sa.create_engine(address)
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _make_durable)
            _check_tables(self._engine, shown)
            _METADATA.create_all(self._engine)
            self._connection = self._engine.connect()
        except (SQLAlchemyError, ImportError, ValueError) as error:
            raise LedgerError(
                f"Cannot open the ledger {shown}: {_first_line(error)}. "
                "Give the path of an SQLite file in a writable folder, or an SQLAlchemy URL whose driver is installed."
            ) from error

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the connection back. Everything recorded is on disk already."""
        self._connection.close()
        self._engine.dispose()

    def record(self, evaluation: Evaluation, evaluator: str) -> Evaluation:
        """Writes a result; on return it is on disk.

        Args:
            evaluation: what to write.
            evaluator: fingerprint of the evaluator that made it.

        Returns:
            What the ledger holds under the key: the evaluation itself, or, where another search with the same ledger
            was quicker, the result recorded first.
        """
        key = EvaluationKey.of(evaluation.proposal, evaluator)
        row = {
            **_key_columns(key),
            "candidate": _dump_candidate(evaluation.proposal.candidate),
            "status": evaluation.status,
            "accuracy": evaluation.accuracy,
            "macs": evaluation.macs,
            "params": evaluation.params,
            "seconds": evaluation.seconds,
            "reason": evaluation.reason,
            "metrics": _dump(dict(evaluation.metrics)),
            "recorded_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        with self._connection.begin():
            written = self._connection.execute(self._insert(_EVALUATIONS).values(row).on_conflict_do_nothing())
        if written.rowcount == 1:
            return evaluation
        stored = self.find(evaluation.proposal, evaluator)
        assert stored is not None
        return stored

    def find(self, proposal: Proposal, evaluator: str) -> Evaluation | None:
        """The recorded result of a proposal (of any isomorphic candidate), or None."""
        columns = _key_columns(EvaluationKey.of(proposal, evaluator))
        query = sa.select(_EVALUATIONS).where(*[_EVALUATIONS.c[name] == value for name, value in columns.items()])
        with self._connection.begin():
            row = self._connection.execute(query).mappings().first()
        return None if row is None else replace(_evaluation(row), proposal=proposal)

    def evaluations(self, evaluator: str | None = None) -> list[Evaluation]:
        """All results in the order of recording, of one evaluator or of all.

        A result does not know which search asked for it, so the proposals' ``number`` is the order of recording.
        """
        return [each for each, _ in self.records(evaluator)]

    def records(self, evaluator: str | None = None) -> list[tuple[Evaluation, str]]:
        """As `evaluations`, each with the fingerprint of the evaluator that made it."""
        query = sa.select(_EVALUATIONS).order_by(_EVALUATIONS.c.id)
        if evaluator is not None:
            query = query.where(_EVALUATIONS.c.evaluator == evaluator)
        with self._connection.begin():
            rows = self._connection.execute(query).mappings().all()
        found = [(_evaluation(row), row["evaluator"]) for row in rows]
        return [(replace(each, proposal=replace(each.proposal, number=n)), by) for n, (each, by) in enumerate(found)]

    def propose(self, search: str, proposals: Iterable[Proposal]) -> None:
        """Writes proposals of a search, all or none; on return they are on disk.

        Raises:
            LedgerError: a number of this search is taken by another candidate.
        """
        rows = [
            {
                "search": search,
                "number": proposal.number,
                "candidate": _dump_candidate(proposal.candidate),
                "fidelity": _dump_fidelity(proposal.fidelity),
                "training_seed": proposal.training_seed,
            }
            for proposal in proposals
        ]
        if not rows:
            return
        try:
            with self._connection.begin():
                self._connection.execute(sa.insert(_PROPOSALS), rows)
        except sa.exc.IntegrityError as error:
            raise LedgerError(
                f"Proposal {rows[0]['number']} (or one after it) of search {search[:12]} is in the ledger already. "
                "Is another process driving the same search?"
            ) from error

    def proposals(self, search: str) -> list[Proposal]:
        """The proposals of a search by number."""
        query = sa.select(_PROPOSALS).where(_PROPOSALS.c.search == search).order_by(_PROPOSALS.c.number)
        with self._connection.begin():
            rows = self._connection.execute(query).mappings().all()
        return [_proposal(row, row["number"]) for row in rows]

    def _insert(self, table: sa.Table) -> Any:
        # SQLAlchemy offers "on conflict do nothing" per dialect only.
        return postgresql.insert(table) if self._engine.dialect.name == "postgresql" else sqlite.insert(table)


def _check_tables(engine: sa.Engine, url: str) -> None:
    """Raises `LedgerError` for a file of something else, and for tables of our names with other columns."""
    found = sa.inspect(engine)
    names = found.get_table_names()
    if engine.dialect.name == "sqlite" and names and not set(names) & set(_METADATA.tables):
        raise LedgerError(f"{url} is no ledger: its tables are {', '.join(names)}. Give another file.")
    for name, table in _METADATA.tables.items():
        if name in names:
            columns = [column["name"] for column in found.get_columns(name)]
            if set(columns) != set(table.columns.keys()):
                raise LedgerError(
                    f"{url} is no ledger of this version: its table {name!r} has the columns {', '.join(columns)}, not "
                    f"{', '.join(table.columns.keys())}. Give another file or database."
                )


def _make_durable(connection: Any, _record: Any) -> None:
    """WAL with a sync at each commit: a result that was acknowledged survives a power cut, and readers don't block."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def _dump(value: Any, sort: bool = True) -> str:
    return json.dumps(value, sort_keys=sort, separators=(",", ":"))


def _dump_candidate(candidate: Candidate) -> str:
    return _dump(candidate.to_json(), sort=False)  # the order of macro choices is the space's


def _dump_fidelity(fidelity: Fidelity) -> str:
    return _dump({"epochs": fidelity.epochs, "resolution": fidelity.resolution, "subset": fidelity.subset})


def _key_columns(key: EvaluationKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in ("cell", "macro", "fidelity", "training_seed", "evaluator")}


def _proposal(row: sa.RowMapping, number: int) -> Proposal:
    return Proposal(
        number=number,
        candidate=Candidate.from_json(json.loads(row["candidate"])),
        fidelity=Fidelity(**json.loads(row["fidelity"])),
        training_seed=row["training_seed"],
    )


def _evaluation(row: sa.RowMapping) -> Evaluation:
    return Evaluation(
        proposal=_proposal(row, row["id"]),
        status=row["status"],
        accuracy=row["accuracy"],
        macs=row["macs"],
        params=row["params"],
        seconds=row["seconds"],
        reason=row["reason"],
        metrics=json.loads(row["metrics"]),
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
