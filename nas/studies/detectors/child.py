"""One training or test in a process of its own: ``python -m nas.studies.detectors.child train|test ARGUMENTS``.

It ends when its parent does, so that a comparison that was killed leaves nobody behind who writes into its folder.
"""

from __future__ import annotations

import os
import sys
import threading


def main() -> int:
    """Runs `tools/train.py` or `tools/test.py`; its standard input is a pipe that the parent holds open."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    command, *arguments = sys.argv[1:]
    from nas.commands import test, train

    return {"train": train.main, "test": test.main}[command](arguments)


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever written: it returns when the other end is closed
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
