"""Whole searches with real trainings: how workers share them, and what a search survives."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
SEARCH = ["--cfg-options", "strategy.type=evolution", "comparison=None", "final.epochs=1", "confirm.top=0"]


def start(folder: Path, workers: int, *options: str) -> subprocess.Popen:
    tool = str(REPOSITORY / "tools" / "search.py")
    return subprocess.Popen(
        [sys.executable, tool, "--work-dir", str(folder), "--workers", str(workers), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def evaluated(folder: Path) -> list[tuple]:
    """What the ledger holds, in an order of its own: cell, choices, seed, status, accuracy."""
    from nas.evaluation.ledger import Ledger

    with Ledger(folder / "ledger.db") as ledger:
        return sorted(
            (
                each.proposal.candidate.cell.canonical_hash(),
                str(sorted(each.proposal.candidate.macro)),
                each.proposal.training_seed,
                each.status,
                each.accuracy,
            )
            for each in ledger.evaluations()
        )


def children(pid: int) -> list[int]:
    """Worker processes of a driver (the resource tracker of multiprocessing is not one)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                command = (entry / "cmdline").read_bytes()
            except (OSError, IndexError):
                continue
            if parent == pid and b"spawn_main" in command:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_two_workers_finish_a_search_at_least_1_6_times_as_fast_as_one(tmp_path) -> None:
    """Wants two idle cores."""
    seconds = {}
    for workers in (1, 2):
        process = start(tmp_path / str(workers), workers, "--budget", "24", *SEARCH)
        assert process.wait(timeout=1800) == 0
        log = (tmp_path / str(workers) / "search.log").read_text().splitlines()
        # From the first result to the last: starting Python is no part of what workers can share.
        times = [line.split(" search ")[0] for line in log if " search " in line and "/24:" in line]
        first, last = (_seconds(text) for text in (times[workers - 1], times[-1]))
        seconds[workers] = (last - first) / (24 - workers)
    assert evaluated(tmp_path / "1") == evaluated(tmp_path / "2")
    assert seconds[1] / seconds[2] >= 1.6


@pytest.mark.slow
def test_search_whose_workers_and_driver_are_killed_ends_as_if_nothing_had_happened(tmp_path) -> None:
    budget = ["--budget", "14", *SEARCH]
    reference = start(tmp_path / "reference", 2, *budget)
    assert reference.wait(timeout=1800) == 0
    dice = random.Random(0)
    for turn in range(4):
        process = start(tmp_path / "killed", 2, *budget, "--resume")
        end = time.monotonic() + dice.uniform(10, 25)
        while process.poll() is None and (turn == 3 or time.monotonic() < end):
            time.sleep(dice.uniform(3, 6))
            workers = children(process.pid)
            if workers and dice.random() < 0.4:
                os.kill(dice.choice(workers), signal.SIGKILL)
        if turn < 3:
            process.kill()
        code = process.wait(timeout=600)
    assert code == 0
    # A worker may have been killed twice under the same candidate, which then counts as its own doing.
    same = [
        mine == theirs
        for mine, theirs in zip(evaluated(tmp_path / "killed"), evaluated(tmp_path / "reference"), strict=True)
        if mine[3] == "ok" or theirs[3] != "ok"
    ]
    assert all(same)
    assert len(same) >= 13
    summary = json.loads((tmp_path / "killed" / "summary.json").read_text())
    assert summary["evaluations"] == 14


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.strptime(text.strip(), "%Y-%m-%d %H:%M:%S,%f").timestamp()
