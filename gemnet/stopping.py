"""Long work that is asked to stop where it can be taken up again.

It is asked by a file: other processes, and other machines that share the folder, see it alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STOP = "stop"
"""Name of the file."""

_OPEN: list[Path] = []
"""Files that work of this process, or work it waits for, looks for: a signal is the process's, and so is this list."""


class Stopped(KeyboardInterrupt):
    """Work that stopped because it was asked to, with its state kept; like Ctrl-C, nobody's failure."""


@contextmanager
def stop_file(folder: Path) -> Iterator[Path]:
    """The file in a folder by which work under way there is asked to stop; one that is left from before is taken away.

    Args:
        folder: where; it is there.
    """
    file = folder / STOP
    file.unlink(missing_ok=True)
    _OPEN.append(file)
    try:
        yield file
    finally:
        _OPEN.remove(file)
        file.unlink(missing_ok=True)


def ask_to_stop() -> int:
    """Writes the files that this process's work looks for; returns how many there are. Signal handlers may call it."""
    for file in _OPEN:
        with suppress(OSError):  # then it goes on to its end
            file.touch()
    return len(_OPEN)
