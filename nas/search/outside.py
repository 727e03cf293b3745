"""What a config names but does not hold: files of parts of one's own, and what a memory remembers.

Where these change, a resumed search is another one. That is said; the ledger tells only evaluators apart.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from gemnet.files import stored_json, write_json
from nas.executors.monitor import Monitor
from nas.search.preflight import ReadySearch
from nas.strategies.nasgem import Nasgem


def say_what_changed(ready: ReadySearch, file: Path, monitor: Monitor) -> None:
    """Notes what has changed since the search was begun, and keeps what is there now.

    Args:
        ready: the search.
        file: keeps digests; there is none where the config names nothing of the kind.
        monitor: hears of it.
    """
    now, before = _digests(ready), stored_json(file)
    changed = [name for name, digest in now.items() if before.get(name, digest) != digest]
    if changed:
        monitor.note(
            f"Changed since the search was begun: {', '.join(changed)}. Its earlier evaluations and proposals are of "
            "what was there before. For a search of what is there now choose another --work-dir."
        )
    if now and now != before:
        write_json(file, now)


def _digests(ready: ReadySearch) -> dict[str, str]:
    modules = {type(part).__module__ for part in (ready.space, ready.evaluator, ready.strategy)}
    files = [
        getattr(sys.modules[name], "__file__", None) for name in sorted(modules) if name.partition(".")[0] != "nas"
    ]
    found = {file: _digest(Path(file).read_bytes()) for file in files if file}  # a notebook's classes have none
    if isinstance(ready.strategy, Nasgem) and ready.strategy.memory is not None:
        scores = b"".join(task.scores.tobytes() for task in ready.strategy.memory.tasks)
        found["what is remembered (strategy.memory)"] = _digest(scores)
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
