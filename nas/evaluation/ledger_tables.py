"""The tables of a ledger, and how what travels becomes their rows and comes back.

Two are append-only: ``evaluations`` holds results, one for each key (cell, macro choices, fidelity, training seed,
evaluator); ``proposals`` holds what a search asked for, under its number, written before anything is trained. Together
they make a search resumable at any moment: what was asked is asked again, what was answered is never done again.
``searches`` says which searches there are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from gemnet.strict_json import parse_json
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.evaluation.storage import LedgerError
from nas.spaces.base import Candidate

METADATA = sa.MetaData()

EVALUATIONS = sa.Table(
    "evaluations",
    METADATA,
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

PROPOSALS = sa.Table(
    "proposals",
    METADATA,
    sa.Column("search", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("candidate", sa.Text, nullable=False),
    sa.Column("fidelity", sa.String(200), nullable=False),
    sa.Column("training_seed", sa.BigInteger, nullable=False),
)

SEARCHES = sa.Table(
    "searches",
    METADATA,
    sa.Column("search", sa.String(64), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("evaluator", sa.String(200), nullable=False),
    sa.Column("evaluations", sa.Integer, nullable=False),
    sa.Column("begun_at", sa.String(32), nullable=False),
)

_CREATION_LOCK = 0x67656D6E
"""PostgreSQL's advisory lock under which tables are made: several searches may open a new ledger at once."""


@dataclass(frozen=True)
class SearchRecord:
    """A search that uses a ledger.

    Args:
        search: its id.
        name: its work folder's name.
        host: the machine it was begun on.
        folder: its work folder there.
        evaluator: fingerprint of its evaluator.
        evaluations: how many it is to make.
        begun_at: when, ISO 8601 in UTC.
    """

    search: str
    name: str
    host: str
    folder: str
    evaluator: str
    evaluations: int
    begun_at: str


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

    def columns(self) -> dict[str, Any]:
        """As a row of ``evaluations`` holds it."""
        return dict(vars(self))


def check_tables(connection: sa.Connection, place: str, must_be: bool) -> None:
    """Looks whether a database is a ledger, or may become one.

    Args:
        connection: to the database.
        place: what messages call it.
        must_be: whether it has to be a ledger already.

    Raises:
        LedgerError: it is something else, or a ledger of another version.
    """
    found = sa.inspect(connection)
    names = found.get_table_names()
    if not set(names) & set(METADATA.tables) and (must_be or (names and connection.dialect.name == "sqlite")):
        tables = f"its tables are {', '.join(names)}" if names else "it has no tables"
        raise LedgerError(f"{place} is no ledger: {tables}. Give another file.")
    for name, table in METADATA.tables.items():
        if name in names:
            columns = [column["name"] for column in found.get_columns(name)]
            if set(columns) != set(table.columns.keys()):
                raise LedgerError(
                    f"{place} is no ledger of this version of GEMNet: its table {name!r} has the columns "
                    f"{', '.join(columns)}, not {', '.join(table.columns.keys())}. Use the version that wrote it, or "
                    "give another file or database."
                )


def make_tables(connection: sa.Connection) -> None:
    """Makes the tables that are missing, whoever else is doing so at this moment."""
    if set(METADATA.tables) <= set(sa.inspect(connection).get_table_names()):
        return
    if connection.dialect.name == "postgresql":  # where "if not exists" is no promise against another transaction
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
    elif connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    METADATA.create_all(connection)


def evaluation_row(evaluation: Evaluation, key: Mapping[str, Any], recorded_at: str) -> dict[str, Any]:
    """An evaluation as a row of ``evaluations``; ``key`` are its `EvaluationKey.columns`."""
    return {
        **key,
        "candidate": _dump_candidate(evaluation.proposal.candidate),
        "status": evaluation.status,
        "accuracy": evaluation.accuracy,
        "macs": evaluation.macs,
        "params": evaluation.params,
        "seconds": evaluation.seconds,
        "reason": evaluation.reason,
        "metrics": _dump(dict(evaluation.metrics)),
        "recorded_at": recorded_at,
    }


def proposal_row(search: str, proposal: Proposal) -> dict[str, Any]:
    """A proposal as a row of ``proposals``."""
    return {
        "search": search,
        "number": proposal.number,
        "candidate": _dump_candidate(proposal.candidate),
        "fidelity": _dump_fidelity(proposal.fidelity),
        "training_seed": proposal.training_seed,
    }


def evaluation_of_row(row: Mapping[str, Any], proposal: Proposal | None = None) -> Evaluation:
    """The evaluation in a row: of a proposal that is known, or of the row's candidate, whose number is the row's id."""
    if row["status"] not in ("ok", "failed"):
        raise ValueError(f"status is 'ok' or 'failed', got {row['status']!r}")
    return Evaluation(
        proposal=proposal or proposal_of_row({**row, "number": row["id"]}),
        status=row["status"],
        accuracy=row["accuracy"],
        macs=row["macs"],
        params=row["params"],
        seconds=row["seconds"],
        reason=row["reason"],
        metrics=parse_json(row["metrics"]),
    )


def proposal_of_row(row: Mapping[str, Any]) -> Proposal:
    """The proposal in a row."""
    return Proposal(
        number=row["number"],
        candidate=Candidate.from_json(parse_json(row["candidate"])),
        fidelity=Fidelity(**parse_json(row["fidelity"])),
        training_seed=row["training_seed"],
    )


def _dump(value: Any, sort: bool = True) -> str:
    return json.dumps(value, sort_keys=sort, separators=(",", ":"))


def _dump_candidate(candidate: Candidate) -> str:
    return _dump(candidate.to_json(), sort=False)  # the order of macro choices is the space's


def _dump_fidelity(fidelity: Fidelity) -> str:
    return _dump({"epochs": fidelity.epochs, "resolution": fidelity.resolution, "subset": fidelity.subset})
