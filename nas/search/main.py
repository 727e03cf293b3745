"""A search from beginning to end: explore, confirm, train the found network, compare it.

This is the method section of the paper as code. Each part lives in a module of its own; what they have in common is the
ledger, which remembers every evaluation, so that each part can be begun again at any moment and does only what is
missing.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from gemnet.files import write_json
from gemnet.genome import Genome
from nas.evaluation.ledger import Ledger, SearchRecord
from nas.evaluation.networks import NetworkTrainer
from nas.evaluation.records import Evaluation
from nas.evaluation.tabular import TabularEvaluator
from nas.executors.monitor import Monitor, Stopwatch
from nas.graphs.effective import effective_cell
from nas.search.callbacks import Begun, Callbacks
from nas.search.config import SearchConfig
from nas.search.confirm import confirm
from nas.search.estimates import Estimates
from nas.search.explore import explore
from nas.search.folder import WorkFolder, open_work_folder
from nas.search.live import LivePage
from nas.search.outside import say_what_changed
from nas.search.parts import build_executor
from nas.search.preflight import ReadySearch, preflight
from nas.search.recorder import Recorder
from nas.search.report.pictures import draw_cell, draw_search
from nas.search.report.result import Chosen, SearchResult, summary
from nas.search.rivals import compare
from nas.spaces.base import Candidate
from nas.spaces.gemnet import GEMNetSpace
from nas.strategies.random import RandomSearch

FEW_STEPS = 100
"""Steps below which two seeds then hardly agree on which of two cells is better."""


def run_search(
    config: SearchConfig, path: Path, resume: bool = False, monitor: Monitor | None = None, command: str = ""
) -> SearchResult:
    """Runs a search, or what is left of it.

    Args:
        config: the search.
        path: its work folder.
        resume: whether the folder may hold this search, begun before.
        monitor: hears how it goes.
        command: what was typed, for the report.

    Raises:
        GemnetError: a name, option, data set, limit or folder that can't be used, before anything is evaluated or
            written; `SearchError` where every evaluation failed.
    """
    monitor, stopwatch = monitor or Monitor(), Stopwatch()
    ready = preflight(config, path, resume, monitor)
    with (
        open_work_folder(path, config, ready.fingerprint, resume) as folder,
        _open_ledger(ready, folder, monitor) as ledger,
        build_executor(config, ready.evaluator, folder.worker_log) as executor,
        Estimates(ready.space, folder.estimates) as estimates,
        Callbacks(ready.callbacks, monitor) as callbacks,
    ):
        callbacks.begin(
            Begun(folder.search_id, folder.path, config.to_dict(), ready.space, config.score, config.limits)
        )
        page = LivePage(folder.report, config, ready.space, stopwatch, command)
        retry = config.search.retry_failed
        recorder = Recorder(executor, ledger, ready.fingerprint, stopwatch, retry, estimates.complete)
        say_what_changed(ready, folder.outside, monitor)
        _say_what_is_not_measured(ready, monitor)
        _say_what_a_candidate_gets(ready, monitor)
        explored = explore(ready, folder, recorder, monitor, page, callbacks)
        chosen = confirm(ready, folder, recorder, monitor, explored.evaluations)
        genome = _keep(ready, folder, stopwatch, chosen, explored.evaluations)
        rows = () if genome is None else compare(ready, folder, recorder, monitor, genome)
        result = SearchResult(
            folder.path,
            explored.evaluations,
            chosen,
            genome,
            ready.space.in_chans if isinstance(ready.space, GEMNetSpace) else None,
            rows,
            explored.new,
            {**stopwatch.seconds, "total": stopwatch.total},
            None if ready.latency is None else ready.latency.device,
        )
        page.write("finished", result)
        write_json(folder.summary, summary(result))
        callbacks.end(result)
        return result


def _open_ledger(ready: ReadySearch, folder: WorkFolder, monitor: Monitor) -> Ledger:
    """The ledger with this search entered; from here on there is a log."""
    monitor.log_to(folder.log)
    if ready.latency is not None:
        ready.latency.save(folder.latency)
    if folder.died is not None:
        monitor.note(f"Takes over from {folder.died}, which died.")
    ledger = Ledger(ready.config.ledger or folder.ledger, say=monitor.note)
    try:
        ledger.keep_count(folder.recorded, folder.search_id, ready.fingerprint)
        ledger.enter(
            SearchRecord(
                folder.search_id,
                folder.path.absolute().name,
                socket.gethostname(),
                str(folder.path.absolute()),
                ready.fingerprint,
                ready.config.search.evaluations,
                datetime.now(timezone.utc).isoformat(timespec="seconds"),
            )
        )
    except BaseException:
        ledger.close()
        raise
    return ledger


def _say_what_is_not_measured(ready: ReadySearch, monitor: Monitor) -> None:
    """Notes, before hours go by, which figures there will not be, and what a table leaves open."""
    if isinstance(ready.evaluator, TabularEvaluator):
        for remark in ready.evaluator.table.remarks:
            monitor.note(remark)
    if ready.missing_test:
        monitor.note(f"No figures on test images, only on development images: {ready.missing_test}")
    if ready.latency is not None and not ready.measures_latency:
        monitor.note(
            f"This is not {ready.latency.device}: latencies are those estimated for it, and not measured in the end."
        )


def _say_what_a_candidate_gets(ready: ReadySearch, monitor: Monitor) -> None:
    """Notes how long candidates are trained, and warns where that tells nothing of them."""
    options, initial = ready.config.search, ready.strategy.initial
    if not isinstance(ready.strategy, RandomSearch) and options.proposed <= initial:
        drawn = "known or random" if ready.first else "random"
        monitor.note(
            f"All {options.evaluations} candidates will be {drawn}: the strategy learns after the first {initial} "
            "(strategy.initial). Evaluate more, or lower it."
        )
    if not isinstance(ready.evaluator, NetworkTrainer):
        return
    fidelity, trainer = ready.config.fidelity, ready.evaluator.evaluator
    steps = trainer.steps(fidelity)
    side = fidelity.resolution or trainer.images.resolution
    images = math.ceil(len(trainer.images.train) * fidelity.subset)
    monitor.note(
        f"A candidate is trained for {steps:,} steps: {fidelity.epochs} epochs of {images:,} images at {side}x{side}."
    )
    if steps < FEW_STEPS:
        monitor.note(
            f"So few steps tell little more than chance which network is better: raise fidelity.epochs or "
            f"fidelity.subset, or set search.steps={FEW_STEPS} or more."
        )
    if 3 * side <= trainer.images.resolution:
        monitor.note(
            f"Images of {trainer.images.resolution}x{trainer.images.resolution} are shrunk to {side}x{side} for this: "
            "a larger fidelity.resolution ranks better, and takes longer."
        )


def _keep(
    ready: ReadySearch, folder: WorkFolder, stopwatch: Stopwatch, chosen: Chosen, evaluations: Sequence[Evaluation]
) -> Genome | None:
    """Writes the genome of the chosen candidate, where it is a network, and the pictures."""
    config, candidate = ready.config, chosen.found.proposal.candidate
    genome = None
    if isinstance(ready.space, GEMNetSpace):
        origin = (
            f"{config.strategy.type} search on {_judged_on(config)}: best of {len(evaluations)} candidates, "
            f"seed {config.search.seed}"
        )
        genome = ready.space.genome(candidate, name="best", origin=origin)
        genome.save(folder.genome)
    with stopwatch("pictures"):
        if candidate.cell.ops:
            _draw(ready, folder, candidate)
        draw_search(evaluations, config.score, folder.search_picture, chosen.found, config.limits)
    return genome


def _judged_on(config: SearchConfig) -> object:
    """What candidates were judged on: the images, the detector, or the name of the evaluator."""
    if config.evaluator.type == "training":
        return config.data.get("source", "digits")
    return config.evaluator.options.get("config", config.evaluator.type)


def _draw(ready: ReadySearch, folder: WorkFolder, candidate: Candidate) -> None:
    """Pictures of the cell: what it computes, and where that differs, as it was sampled."""
    macro = ", ".join(f"{name} {value}" for name, value in candidate.macro)
    sampled = candidate.cell.canonical()
    cell, shares = effective_cell(sampled, ready.space.zero_ops, ready.space.identity_ops)
    title = f"{len(cell.ops)} nodes, {len(cell.edges)} edges, bold by their share in the output"
    ops = ready.space.vocabulary
    draw_cell(cell, folder.cell_picture, f"{title}; {macro}" if macro else title, shares, ops)
    if cell != sampled:
        title = f"as sampled: {len(sampled.ops)} nodes, {len(sampled.edges)} edges"
        draw_cell(sampled, folder.sampled_cell_picture, title, vocabulary=ops)
