"""One process at a time in a folder, also where machines share the folder."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from gemnet.errors import GemnetError
from gemnet.files import write_text
from gemnet.strict_json import parse_json

LOCK, HOLDER = ".lock", ".driver.json"
"""Files in the folder: the system's lock, which ends with its process, and who holds it."""
BEAT = 10.0
"""Seconds between two signs of life."""
STALE = 60.0
"""Seconds without one, after which a holder on another machine is taken for dead."""


@dataclass(frozen=True)
class Holder:
    """Who works in a folder.

    Args:
        host: its machine.
        pid: its process there.
        since: when it began, ISO 8601 in UTC.
    """

    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class FolderInUseError(GemnetError):
    """Another process works in the folder; the message is who, as far as that is known."""


class FolderLock:
    """Holds a folder from `acquire` to `release`.

    The system's lock decides on one machine: it ends with its process, however that dies. Some network file systems
    keep such locks to each machine. So the holder gives a sign of life every ten seconds, and one on another machine
    that has given one within the last minute is taken for alive. Ages are told by the file system's own clock.

    Args:
        folder: the folder, which must be there.
    """

    def __init__(self, folder: Path) -> None:
        self._holder, self._lock = folder / HOLDER, FileLock(folder / LOCK)
        self._over = threading.Event()

    def acquire(self) -> Holder | None:
        """Takes the folder.

        Returns:
            A holder before this one that died without giving it back, or None.

        Raises:
            FolderInUseError: another process holds it.
            OSError: the folder can't be written to.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise FolderInUseError(str(holder_of(self._holder.parent) or "one that has not said its name")) from None
        try:
            before = holder_of(self._holder.parent)
            here = socket.gethostname()
            if before is not None and before.host != here and seems_alive(self._holder.parent):
                raise FolderInUseError(f"{before}; if that has died, wait a minute")
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            write_text(self._holder, json.dumps(asdict(Holder(here, os.getpid(), now))))
        except BaseException:
            self._lock.release()
            raise
        threading.Thread(target=self._beat, daemon=True).start()
        return before

    def release(self) -> None:
        """Gives the folder back."""
        self._over.set()
        with suppress(OSError):
            self._holder.unlink()
        self._lock.release()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(OSError):
                os.utime(self._holder)


def holder_of(folder: Path) -> Holder | None:
    """Who holds a folder, or held it and died; None where nobody does."""
    try:
        data = parse_json((folder / HOLDER).read_text(encoding="utf-8"))
        return Holder(str(data["host"]), int(data["pid"]), str(data["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def seems_alive(folder: Path) -> bool:
    """Whether the holder of a folder has given a sign of life within the last minute. Writes nothing but times."""
    try:
        last = (folder / HOLDER).stat().st_mtime
        with suppress(OSError):  # the folder's own clock, where it may be asked
            os.utime(folder / LOCK)
            return (folder / LOCK).stat().st_mtime - last < STALE
        return datetime.now(timezone.utc).timestamp() - last < STALE
    except OSError:
        return False
