"""Where a ledger lies: a path or URL becomes a database that is open; credentials are used, and never shown or kept.

A ledger's identity is its *place*: kind of database, host, port and name, or the file. User, password and whatever else
a URL carries may change without its becoming another ledger; they come from the URL, from the environment (``PGUSER``,
``PGPASSWORD``) or from a ``.pgpass``.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from gemnet.errors import GemnetError

PATIENCE = 120.0
"""Seconds for which a server that went away, or a file that others keep locked, is tried again."""
BUSY = 10.0
"""Seconds SQLite itself waits for another writer."""

T = TypeVar("T")


class LedgerError(GemnetError):
    """A ledger that can't be opened, read or written, or a record that contradicts one already made."""


def is_url(text: str) -> bool:
    """Whether a text is the URL of a database, and not a path."""
    return "://" in text


def address_of(given: str | Path) -> sa.URL:
    """The address of a path to an SQLite file or of a URL.

    Raises:
        LedgerError: a URL that can't be read. It is not shown: what can't be read may hold a password anywhere.
    """
    if isinstance(given, Path) or not is_url(given):
        return sa.URL.create("sqlite", database=str(Path(given).absolute()))  # any name, also one with '?' or '%'
    try:
        address = sa.engine.make_url(given)
    except (SQLAlchemyError, ValueError):
        address = None
    # An '@' left over is one of the password's: where it was cut off, its rest passes for a host or a database.
    if address is None or "@" in f"{address.host or ''}{address.database or ''}":
        raise LedgerError(
            "Cannot open the ledger: its URL can't be read. Expected postgresql+psycopg2://user@host:5432/database; in "
            "a password, characters such as '@', '/', ':' and '%' are written as %40, %2F, %3A and %25."
        )
    if address.get_backend_name() == "sqlite" and address.database not in (None, "", ":memory:"):
        return address.set(database=str(Path(str(address.database)).absolute()))
    return address


def place_of(given: str | Path) -> str:
    """The ledger's identity, as a path or a URL without credentials; what may be shown, and written down.

    Raises:
        LedgerError: as `address_of`.
    """
    address = address_of(given)
    kind = address.get_backend_name()
    if kind == "sqlite":
        return str(address.database) if address.database else "sqlite://"
    host, port = address.host, address.port
    for name, value in address.query.items():  # PostgreSQL takes them here as well
        if name == "host":
            host = host or (value if isinstance(value, str) else ",".join(value))
        elif name == "port" and port is None and isinstance(value, str) and value.isdigit():
            port = int(value)
    query = {"host": host} if host and "/" in host else {}  # a socket's folder
    return sa.URL.create(
        kind, host=None if query else host, port=port, database=address.database, query=query
    ).render_as_string()


def without_credentials(text: str) -> str:
    """A text of a command line, ``URL`` or ``KEY=URL``, with the URL of a database as its place."""
    if not is_url(text):
        return text
    key, equals, value = text.partition("=")
    if not equals or is_url(key) or not is_url(value):
        key, equals, value = "", "", text
    try:
        return f"{key}{equals}{place_of(value)}"
    except (LedgerError, SQLAlchemyError, ImportError):
        return f"{key}{equals}URL"


def open_engine(given: str | Path, read_only: bool = False) -> sa.Engine:
    """A database, opened and looked at once.

    Args:
        given: a path to an SQLite file, or a URL.
        read_only: nothing is written; an SQLite file is read where nothing can be written, too.

    Raises:
        LedgerError: it can't be opened; the message says what to do.
    """
    address = address_of(given)
    place = "it"
    try:
        place = place_of(given)
        if address.get_backend_name() != "sqlite":
            engine = sa.create_engine(address, pool_size=1, max_overflow=4, hide_parameters=True)
        elif read_only:
            engine = sa.create_engine("sqlite://", creator=_reader(Path(str(address.database))), poolclass=sa.NullPool)
        else:
            engine = sa.create_engine(address, connect_args={"timeout": BUSY}, hide_parameters=True)
            sa.event.listen(engine, "connect", _make_durable)
        patiently(lambda: engine.connect().close(), engine, passing=_is_locked)
    except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
        raise LedgerError(
            f"Cannot open the ledger {place}: {reason(error)}. Give the path of an SQLite file in a writable folder, "
            "or a URL such as postgresql+psycopg2://user@host/database (pip install 'gemnet[postgres]'; the password "
            "from the URL, PGPASSWORD or ~/.pgpass)."
        ) from None
    return engine


def patiently(
    work: Callable[[], T],
    engine: sa.Engine,
    passing: Callable[[BaseException], bool] | None = None,
    say: Callable[[str], None] | None = None,
    patience: float | None = None,
) -> T:
    """What ``work`` returns, tried again while what it meets may pass.

    Args:
        work: asks the database; it may be called several times.
        engine: the database.
        passing: whether an error may pass; by default a server that went away and a file locked by others.
        say: hears once that it is being tried again, and once that it worked.
        patience: seconds; None for `PATIENCE`.

    Raises:
        SQLAlchemyError: the last error.
    """
    passing = passing or may_pass
    seconds = PATIENCE if patience is None else patience
    end, pause, said = time.monotonic() + seconds, 0.05, False
    while True:
        try:
            result = work()
        except SQLAlchemyError as error:
            if not passing(error) or time.monotonic() >= end:
                raise
            if say is not None and not said:
                said = True
                say(f"The ledger does not answer ({reason(error)}). Trying again for {seconds:.0f} s; nothing is lost.")
            engine.dispose()
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
            continue
        if said and say is not None:
            say("The ledger answers again.")
        return result


def may_pass(error: BaseException) -> bool:
    """Whether a database's error may be over in a while: a server gone, restarting or full of connections, a lock."""
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return _is_locked(error)
    return error.connection_invalidated or isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)


def refusal(error: BaseException, place: str) -> LedgerError:
    """What a database refused while it was in use, as one sentence that says what to do."""
    text = reason(error)
    low = text.lower()
    if "full" in low or "no space" in low or "disk i/o" in low:
        mend = "Look whether its disk is full, make room, then go on with --resume"
    elif "readonly" in low or "read-only" in low or "permission" in low:
        mend = "Make it writable, then go on with --resume"
    elif any(words in low for words in ("malformed", "not a database")):
        mend = "The file is damaged: put a copy of it back (sqlite3 ledger.db .recover saves what can be read)"
    else:
        mend = "When it works again, go on with --resume"
    return LedgerError(f"The ledger {place} can't be used any more: {text}. What it holds is kept. {mend}.")


def reason(error: BaseException) -> str:
    """First line of what a database said, without the statement and its values."""
    cause = getattr(error, "orig", None) or error
    text = str(cause).strip()
    return (text.splitlines()[0] if text else type(cause).__name__).rstrip(".")


def _is_locked(error: BaseException) -> bool:
    cause = getattr(error, "orig", None)
    return isinstance(cause, sqlite3.OperationalError) and any(word in str(cause) for word in ("locked", "busy"))


def _make_durable(connection: Any, _record: Any) -> None:
    """WAL with a sync at each commit: a result that was acknowledged survives a power cut, and readers don't block."""
    cursor = connection.cursor()
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _reader(path: Path) -> Callable[[], sqlite3.Connection]:
    """Opens an SQLite file for reading alone."""

    def connect() -> sqlite3.Connection:
        if path.is_dir() or not path.exists():
            raise sqlite3.OperationalError("it is a folder" if path.is_dir() else "there is no such file")
        uri = f"{path.absolute().as_uri()}?mode=ro"
        unmerged = path.with_name(f"{path.name}-wal")
        if unmerged.exists():  # somebody writes, or was killed while writing; there is a file of locks to share
            connection = sqlite3.connect(uri, uri=True, timeout=BUSY, check_same_thread=False)
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                return connection
            except sqlite3.OperationalError as error:
                connection.close()
                if "locked" in str(error):
                    raise
                if unmerged.stat().st_size:
                    raise sqlite3.OperationalError(
                        f"its last records are in {unmerged.name}, which can't be read without writing; copy both "
                        "files into a writable folder"
                    ) from None
        return sqlite3.connect(f"{uri}&immutable=1", uri=True, check_same_thread=False)

    return connect
