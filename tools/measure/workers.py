"""How much sooner several workers finish a search than one does.

    python tools/measure/workers.py [--config cifar10] [--workers 2] [--evaluations 24]

The search runs with one worker and then with several, each candidate trained for one short epoch. What counts are the
seconds from the first result to the last: starting Python and reading images is no part of what workers can share. It
takes as many idle cores as there are workers, and about five minutes with CIFAR-10 and the defaults. Both searches must
have evaluated the same candidates with the same results.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from nas.evaluation.ledger import Ledger

OPTIONS = ("comparison=None", "confirm.top=0", "search.steps=100", "fidelity.epochs=1", "strategy.initial=16")
LOOK = 0.2


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="cifar10")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--evaluations", type=int, default=24)
    options = parser.parse_args(argv)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, options.workers):
            place = Path(folder) / str(workers)
            seconds = seconds_of(options.config, workers, options.evaluations, place)
            with Ledger(place / "ledger.db", read_only=True) as ledger:
                results = {each.proposal.candidate.key(): each.accuracy for each in ledger.evaluations()}
            found.append((seconds / (options.evaluations - workers), results))
            print(f"{workers} workers: {found[-1][0]:.2f} s a candidate", flush=True)
    print(f"{found[0][0] / found[1][0]:.2f} times as fast; same results: {found[0][1] == found[1][1]}")
    return 0


def seconds_of(config: str, workers: int, evaluations: int, folder: Path) -> float:
    """Seconds between the first result of ``workers`` that began together and the last of all."""
    command = [sys.executable, str(Path(__file__).resolve().parents[1] / "search.py"), config]
    command += ["--work-dir", str(folder), "--workers", str(workers), "--evaluations", str(evaluations)]
    process = subprocess.Popen([*command, "--cfg-options", *OPTIONS], stdout=subprocess.DEVNULL)
    log = folder / "search.log"
    try:
        while True:
            lines = log.read_text().splitlines() if log.is_file() else []
            times = [line.split(" search ")[0] for line in lines if " search " in line and f"/{evaluations}:" in line]
            if len(times) == evaluations:
                first, last = (_time(times[place]) for place in (workers - 1, -1))
                return (last - first).total_seconds()
            if process.poll() is not None:
                sys.exit(f"The search ended early: {' '.join(command)}")
            time.sleep(LOOK)
    finally:
        process.kill()
        process.wait()


def _time(text: str) -> datetime:
    return datetime.strptime(text.strip(), "%Y-%m-%d %H:%M:%S,%f")


if __name__ == "__main__":
    sys.exit(main())
