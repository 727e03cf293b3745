"""One training or test in a process of its own: ``python -m nas.studies.detectors.child train|test ARGUMENTS``.

ARGUMENTS are those of `gemnet.training.run.train_config` or `measure_checkpoint` as JSON; what a test measured is
written to the file named by ``out``. The process ends when its parent does, so that a comparison that was killed leaves
nobody behind who writes into its folder.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from gemnet.errors import GemnetError
from gemnet.files import write_json
from gemnet.stopping import Stopped

STOPPED = 130
"""Exit code of a training that was asked to stop."""


def main() -> int:
    """Runs one; its standard input is a pipe that the parent holds open."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    command, arguments = sys.argv[1], json.loads(sys.argv[2])
    from gemnet.training.hooks import LossError
    from gemnet.training.run import measure_checkpoint, train_config

    try:
        if command == "train":
            train_config(**arguments)
        else:
            out = Path(arguments.pop("out"))
            write_json(out, measure_checkpoint(**arguments))
    except GemnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped:
        return STOPPED
    except LossError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever written: it returns when the other end is closed
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
