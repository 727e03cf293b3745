"""The ledger: every evaluation ever made, kept by SQLAlchemy in SQLite (in the work folder) or PostgreSQL (by URL).

Only the process that drives a search writes; worker processes hand it their results.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from gemnet.errors import GemnetError
from gemnet.files import stored_json, write_json
from nas.evaluation.ledger_tables import (
    EVALUATIONS,
    PROPOSALS,
    SEARCHES,
    EvaluationKey,
    SearchRecord,
    check_tables,
    evaluation_of_row,
    evaluation_row,
    make_tables,
    proposal_of_row,
    proposal_row,
)
from nas.evaluation.records import Evaluation, Proposal
from nas.evaluation.storage import LedgerError, address_of, open_engine, patiently, place_of, refusal

__all__ = ["LEDGER", "EvaluationKey", "Ledger", "LedgerError", "SearchRecord", "check_ledger", "records_of"]

LEDGER = "ledger.db"
"""The ledger's file in a work folder."""
NOTE_EVERY = 10.0
"""Seconds between two notes of how much a ledger holds."""

T = TypeVar("T")


class Ledger:
    """Opens (and where needed creates) a ledger.

    A server that goes away, or a file that another process keeps locked, is tried again for two minutes.

    Args:
        url: a path to an SQLite file, or an SQLAlchemy URL such as ``postgresql+psycopg2://user@host/database``.
        read_only: nothing is written, so that a ledger on read-only storage can be read; there must be one.
        say: hears when the database does not answer, and when it answers again.

    Raises:
        LedgerError: the database can't be opened, or is something else than a ledger. So does every method, where the
            database refuses to go on or a row can't be read.
    """

    def __init__(self, url: str | Path, read_only: bool = False, say: Callable[[str], None] | None = None) -> None:
        self.place = place_of(url)
        self._say = say
        self._kept: tuple[Path, str, str] | None = None
        self._noted = 0.0
        self._engine = open_engine(url, read_only)
        try:
            self._do(lambda connection: check_tables(connection, self.place, must_be=read_only))
            if not read_only:
                self._do(make_tables)
            self._tables = self._do(lambda connection: set(sa.inspect(connection).get_table_names()))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not issubclass(kind, LedgerError):  # of one that is gone nothing new is known
            self._note_counts()
        self.close()

    def close(self) -> None:
        """Gives the connection back. Everything recorded is on disk already."""
        self._engine.dispose()

    def keep_count(self, file: Path, search: str, evaluator: str) -> None:
        """Compares how much there is with how much there has been, and keeps a note of it from now on.

        Args:
            file: the note, a JSON file in the search's work folder.
            search: the search whose proposals count.
            evaluator: the evaluator whose evaluations count.

        Raises:
            LedgerError: there is less than there was: another ledger lies in its place, or a part of it is lost.
        """
        counts, before = self.counts(search, evaluator), stored_json(file)
        for what, count in counts.items():
            known = before.get(what, 0)
            if isinstance(known, int) and count < known:
                raise LedgerError(
                    f"The ledger {self.place} holds {count:,} {what}, but this search had {known:,}: it was deleted, "
                    f"replaced or cut short. Put it back and go on with --resume; to go on with what it holds, delete "
                    f"{file}."
                )
        self._kept = file, search, evaluator
        self._note_counts()

    def _note_counts(self) -> None:
        if self._kept is None:
            return
        file, search, evaluator = self._kept
        with suppress(OSError):  # it is a lower bound; an older one does
            write_json(file, self.counts(search, evaluator))
        self._noted = time.monotonic()

    def record(self, evaluation: Evaluation, evaluator: str, retried: bool = False) -> Evaluation:
        """Writes one result; see `record_all`."""
        return self.record_all([evaluation], evaluator, retried)[0]

    def record_all(self, evaluations: Sequence[Evaluation], evaluator: str, retried: bool = False) -> list[Evaluation]:
        """Writes results in one transaction, all or none; on return they are on disk.

        Args:
            evaluations: what to write.
            evaluator: fingerprint of the evaluator that made them.
            retried: whether they take the place of failed ones recorded before.

        Returns:
            What the ledger holds under the key of each: the evaluation itself, or, where another search with the same
            ledger was quicker, the result recorded first.
        """
        if not evaluations:
            return []
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        keys = [EvaluationKey.of(each.proposal, evaluator).columns() for each in evaluations]
        rows: dict[tuple[Any, ...], dict[str, Any]] = {}  # PostgreSQL changes no row twice in one statement
        for each, key in zip(evaluations, keys, strict=True):
            rows.setdefault(tuple(key.values()), evaluation_row(each, key, now))
        insert = self._insert(EVALUATIONS)
        if retried:
            changed = {each.name: each for each in insert.excluded if each.name not in ("id", *keys[0])}
            insert = insert.on_conflict_do_update(
                index_elements=list(keys[0]), set_=changed, where=EVALUATIONS.c.status == "failed"
            )
        else:
            insert = insert.on_conflict_do_nothing()
        written = self._do(lambda connection: connection.execute(insert, list(rows.values())).rowcount)
        if time.monotonic() - self._noted > NOTE_EVERY:
            self._note_counts()
        if written == len(evaluations):
            return list(evaluations)
        return [self._stored(each.proposal, evaluator) for each in evaluations]

    def _stored(self, proposal: Proposal, evaluator: str) -> Evaluation:
        """What was recorded first under a key that would not take another result."""
        stored = self.find(proposal, evaluator)
        if stored is None:
            raise LedgerError(f"The ledger {self.place} neither takes a result nor has it. What deletes from it?")
        return stored

    def find(self, proposal: Proposal, evaluator: str) -> Evaluation | None:
        """The recorded result of a proposal (of any isomorphic candidate), or None."""
        columns = EvaluationKey.of(proposal, evaluator).columns()
        query = sa.select(EVALUATIONS).where(*[EVALUATIONS.c[name] == value for name, value in columns.items()])
        row = self._do(lambda connection: connection.execute(query).mappings().first())
        return None if row is None else replace(self._read(evaluation_of_row, row), proposal=proposal)

    def find_all(self, proposals: Sequence[Proposal], evaluator: str) -> list[Evaluation | None]:
        """As `find`, for many at once: in one pass over the evaluator's results, without canonical forms.

        A proposal whose candidate is recorded as another drawing of it, or not at all, is then looked for by itself.
        """
        wanted: dict[bytes, list[int]] = {}
        for place, proposal in enumerate(proposals):
            wanted.setdefault(_drawn(proposal_row("", proposal)), []).append(place)
        found: list[Evaluation | None] = [None] * len(proposals)
        query = sa.select(EVALUATIONS).where(EVALUATIONS.c.evaluator == evaluator)

        def read(connection: sa.Connection) -> None:
            for row in connection.execution_options(yield_per=1000).execute(query).mappings():
                for place in wanted.get(_drawn(row), ()):
                    found[place] = self._read(partial(evaluation_of_row, proposal=proposals[place]), row)

        if wanted:
            self._do(read)
        return [
            self.find(proposal, evaluator) if known is None else known
            for proposal, known in zip(proposals, found, strict=True)
        ]

    def evaluations(self, evaluator: str | None = None) -> list[Evaluation]:
        """All results in the order of recording, of one evaluator or of all.

        A result does not know which search asked for it, so the proposals' ``number`` is the order of recording.
        """
        return [each for each, _ in self.records(evaluator)]

    def records(self, evaluator: str | None = None) -> list[tuple[Evaluation, str]]:
        """As `evaluations`, each with the fingerprint of the evaluator that made it."""
        query = sa.select(EVALUATIONS).order_by(EVALUATIONS.c.id)
        if evaluator is not None:
            query = query.where(EVALUATIONS.c.evaluator == evaluator)
        rows = self._do(lambda connection: connection.execute(query).mappings().all())
        found = [(self._read(evaluation_of_row, row), row["evaluator"]) for row in rows]
        return [(replace(each, proposal=replace(each.proposal, number=n)), by) for n, (each, by) in enumerate(found)]

    def propose(self, search: str, proposals: Iterable[Proposal]) -> None:
        """Writes proposals of a search, all or none; on return they are on disk.

        Raises:
            LedgerError: a number of this search is taken by another candidate.
        """
        rows = [proposal_row(search, proposal) for proposal in proposals]
        if not rows:
            return
        attempts = 0

        def write(connection: sa.Connection) -> None:
            nonlocal attempts
            attempts += 1
            if attempts > 1:  # the answer to the last attempt was lost, not necessarily what it wrote
                numbers = [row["number"] for row in rows]
                query = sa.select(PROPOSALS).where(PROPOSALS.c.search == search, PROPOSALS.c.number.in_(numbers))
                there = {row["number"]: dict(row) for row in connection.execute(query).mappings()}
                if [there.get(number) for number in numbers] == rows:
                    return
            connection.execute(sa.insert(PROPOSALS), rows)

        try:
            self._do(write)
        except IntegrityError:
            raise LedgerError(
                f"Proposal {rows[0]['number']} (or one after it) of search {search[:12]} is in the ledger already. "
                "Is another process driving the same search?"
            ) from None

    def proposals(self, search: str) -> list[Proposal]:
        """The proposals of a search by number."""
        query = sa.select(PROPOSALS).where(PROPOSALS.c.search == search).order_by(PROPOSALS.c.number)
        rows = self._do(lambda connection: connection.execute(query).mappings().all())
        return [self._read(proposal_of_row, row) for row in rows]

    def counts(self, search: str, evaluator: str) -> dict[str, int]:
        """How many ``evaluations`` of an evaluator and ``proposals`` of a search there are; neither ever falls."""
        counted = sa.select(sa.func.count())
        evaluations = counted.select_from(EVALUATIONS).where(EVALUATIONS.c.evaluator == evaluator)
        proposals = counted.select_from(PROPOSALS).where(PROPOSALS.c.search == search)
        return {
            "evaluations": self._do(lambda connection: connection.execute(evaluations).scalar_one()),
            "proposals": self._do(lambda connection: connection.execute(proposals).scalar_one()),
        }

    def times(self, evaluator: str) -> list[str]:
        """When the results of an evaluator were recorded, ascending, ISO 8601 in UTC."""
        query = sa.select(EVALUATIONS.c.recorded_at).where(EVALUATIONS.c.evaluator == evaluator)
        return sorted(self._do(lambda connection: connection.execute(query).scalars().all()))

    def enter(self, record: SearchRecord) -> None:
        """Writes down that a search uses this ledger; of one that is there already, where it goes on."""
        insert = self._insert(SEARCHES).values(vars(record))
        changed = {name: getattr(record, name) for name in ("name", "host", "folder", "evaluations")}
        entered = insert.on_conflict_do_update(index_elements=["search"], set_=changed)
        self._do(lambda connection: connection.execute(entered))

    def searches(self) -> list[SearchRecord]:
        """The searches that use this ledger, in the order in which they began."""
        if SEARCHES.name not in self._tables:  # a ledger from before there was this table, opened for reading
            return []
        query = sa.select(SEARCHES).order_by(SEARCHES.c.begun_at)
        rows = self._do(lambda connection: connection.execute(query).mappings().all())
        return [SearchRecord(**row) for row in rows]

    def _do(self, work: Callable[[sa.Connection], T]) -> T:
        """``work`` in a transaction of its own, tried again while the database does not answer.

        Raises:
            LedgerError: it does not answer for too long, or refuses.
            IntegrityError: a row is there already.
        """

        def once() -> T:
            with self._engine.begin() as connection:
                return work(connection)

        try:
            return patiently(once, self._engine, say=self._say)
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise refusal(error, self.place) from None

    def _read(self, make: Callable[[Any], T], row: Any) -> T:
        try:
            return make(row)
        except (GemnetError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            which = f"Evaluation {row['id']}" if "id" in row else f"Proposal {row['number']} of {row['search'][:12]}"
            raise LedgerError(
                f"{which} in the ledger {self.place} can't be read ({type(error).__name__}: {error}). It was changed "
                "by hand, or damaged: put a copy of the ledger back, or delete that row."
            ) from None

    def _insert(self, table: sa.Table) -> Any:
        # SQLAlchemy offers "on conflict ..." per dialect only.
        return postgresql.insert(table) if self._engine.dialect.name == "postgresql" else sqlite.insert(table)


def _drawn(row: Mapping[str, Any] | sa.RowMapping) -> bytes:
    """Equal for rows of proposals and evaluations of one candidate, drawn alike, that are evaluated alike."""
    text = "\n".join((row["candidate"], row["fidelity"], str(row["training_seed"])))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def check_ledger(url: str | Path) -> None:
    """Looks whether a place is a ledger or may become one; makes nothing.

    Raises:
        LedgerError: it can't, and why.
    """
    address, place = address_of(url), place_of(url)
    if address.get_backend_name() == "sqlite" and address.database:
        file = Path(address.database)
        if not file.exists() or (file.is_file() and not file.stat().st_size):
            if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
                raise LedgerError(f"Cannot open the ledger {place}: its folder is missing, or can't be written to.")
            return
    engine = open_engine(url, read_only=True)
    try:
        with engine.connect() as connection:
            check_tables(connection, place, must_be=False)
    except SQLAlchemyError as error:
        raise refusal(error, place) from None
    finally:
        engine.dispose()


def records_of(folder: Path) -> list[tuple[Evaluation, str]]:
    """Every evaluation in the ledger of a work folder, each with its evaluator's fingerprint.

    Raises:
        FileNotFoundError: there is no ledger in the folder.
        LedgerError: it can't be read.
    """
    if not (folder / LEDGER).is_file():
        raise FileNotFoundError(folder / LEDGER)
    with Ledger(folder / LEDGER, read_only=True) as ledger:
        return ledger.records()
