"""Records a second of the ledger, beside a bare SQLite table with the same durability.

    python tools/measure/ledger_speed.py [--folder D] [--records N] [--url postgresql+psycopg2://...]

A record is on disk when `Ledger.record` returns, so the disk's time for a sync is the floor; the bare table shows it.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gemnet.cell_graph import CellGraph
from nas.evaluation.ledger import Ledger
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.spaces.base import Candidate


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the files are made (default: the system's temporary folder)")
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--url", help="measure this ledger instead of a new SQLite file")
    options = parser.parse_args()
    cell = CellGraph(("dw3x3_bn_act",) * 30, frozenset((i, j) for i in range(31) for j in range(i + 1, min(i + 4, 32))))
    candidate = Candidate(cell, (("width", 1.0), ("inner_ratio", 6)))
    proposals = [Proposal(n, candidate, Fidelity(5), training_seed=n) for n in range(options.records)]
    evaluations = [Evaluation(p, "ok", 90.0, 1e7, 1e5, 60.0, metrics={"loss": 0.5}) for p in proposals]
    evaluator = f"speed {os.getpid()}"
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        with Ledger(options.url or Path(folder) / "ledger.db") as ledger:
            report("ledger, record", options.records, lambda n: ledger.record(evaluations[n], evaluator))
            report("ledger, find", options.records, lambda n: ledger.find(proposals[n], evaluator))
        bare = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
        bare.execute("PRAGMA journal_mode=WAL")
        bare.execute("PRAGMA synchronous=FULL")
        bare.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
        report(
            "bare table, insert",
            options.records,
            lambda n: bare.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * 1000)),
        )
        bare.close()


def report(name: str, count: int, action: Callable[[int], object]) -> None:
    """Times ``action(0), action(1), ...`` and prints how many there are in a second."""
    start = time.perf_counter()
    for n in range(count):
        action(n)
    print(f"{name}: {count / (time.perf_counter() - start):,.0f} a second")


if __name__ == "__main__":
    main()
