"""Trainings and tests in processes of their own: ``python -m gemnet.training.child train|test ARGUMENTS``.

mmengine keeps loggers and visualizers for a process's life, so each training gets a fresh one. ARGUMENTS are those of
`gemnet.training.run.train_config` or `measure_checkpoint` as JSON; what a test measured is written to the file named by
``out``. The process ends when its parent does, so that a killed parent leaves nobody behind who writes into its folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gemnet.errors import GemnetError
from gemnet.files import write_json
from gemnet.stopping import Stopped
from gemnet.strict_json import parse_json

STOPPED = 130
"""Exit code of a training that was asked to stop."""


class ChildError(GemnetError):
    """A training or test that failed in its process."""


def run_apart(command: str, log: Path, /, **arguments: Any) -> None:
    """Runs ``train`` or ``test`` of a config in a process of its own.

    Args:
        command: which of the two.
        log: file that its output is appended to.
        **arguments: see the module.

    Raises:
        Stopped: it was asked to stop.
        ChildError: it failed; with its last error.
    """
    line = [sys.executable, "-m", "gemnet.training.child", command, json.dumps(arguments)]
    with open(log, "ab") as output:
        child = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
        code = child.wait()
    if code == STOPPED:
        raise Stopped("It stopped, as it was asked to.")
    if code:
        reason = _last_error(log) if code > 0 else f"the process died of {signal.Signals(-code).name}"
        raise ChildError(f"{reason} ({log})")


def curves(folder: Path) -> Iterator[tuple[int, Mapping[str, float]]]:
    """What a training wrote down in its work folder: (step, figures), losses and measured figures alike, in order."""
    seen: dict[tuple[int, bool], Mapping[str, float]] = {}
    for file in sorted(folder.glob("*/vis_data/scalars.json")):  # one a start of the training
        for line in file.read_text(encoding="utf-8").splitlines():
            figures = parse_json(line)
            seen[int(figures["step"]), "loss" in figures] = figures
    yield from ((step, figures) for (step, _), figures in sorted(seen.items(), key=lambda item: item[0]))


def last_measured(folder: Path) -> tuple[int, Mapping[str, float]] | None:
    """The last of the measured figures of `curves`, with their epoch; None where nothing was measured."""
    measured = [(step, figures) for step, figures in curves(folder) if "loss" not in figures]
    return measured[-1] if measured else None


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
    except LossError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except GemnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped:
        return STOPPED
    return 0


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever written: it returns when the other end is closed
    os._exit(1)


def _last_error(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if "error:" in line.lower()]
    return (told or lines or ["no output"])[-1]


if __name__ == "__main__":
    sys.exit(main())
