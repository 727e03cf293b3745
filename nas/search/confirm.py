"""Confirming: the best of many noisy evaluations is flattered, so the best few are evaluated again with fresh seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gemnet.files import stored_json, write_json
from nas.evaluation.costs import with_latency
from nas.evaluation.latency import LatencyOptions, measure
from nas.evaluation.records import Evaluation, Proposal
from nas.executors.monitor import Monitor
from nas.search.folder import WorkFolder
from nas.search.preflight import ReadySearch
from nas.search.recorder import Recorder, evaluation_call
from nas.search.report.result import Chosen, SearchError, figures_of
from nas.spaces.gemnet import GEMNetSpace


def confirm(
    ready: ReadySearch, folder: WorkFolder, recorder: Recorder, monitor: Monitor, evaluations: Sequence[Evaluation]
) -> Chosen:
    """Evaluates the best again, with fresh seeds, and chooses by these alone.

    Args:
        ready: the search.
        folder: its work folder.
        recorder: evaluates what the ledger does not know.
        monitor: hears of each evaluation.
        evaluations: those of the exploration.

    Raises:
        SearchError: each of the best failed, or none keeps a limit on latency when it is measured.
    """
    config = ready.config
    options = config.confirm
    scores = np.array([ready.score(evaluation) for evaluation in evaluations])
    # Cheaper evaluations, which some strategies begin with, don't compare with real ones.
    real = np.array([evaluation.proposal.fidelity == config.fidelity for evaluation in evaluations])
    if np.isfinite(scores[real]).any():
        scores = np.where(real, scores, -np.inf)
    order = sorted(np.flatnonzero(np.isfinite(scores)).tolist(), key=lambda k: (-scores[k], k))
    ranked = [evaluations[k] for k in order]
    finalists, latencies = zip(*_finalists(ready, folder, monitor, ranked, max(options.top, 1)), strict=True)
    if options.top == 0:
        return Chosen(finalists[0], (), ready.score(with_latency(finalists[0], latencies[0])), latencies[0])
    fidelity = replace(config.fidelity, epochs=options.epochs or config.fidelity.epochs)
    proposals = [
        Proposal(
            number=len(evaluations) + place * options.seeds + seed,
            candidate=finalist.proposal.candidate,
            fidelity=fidelity,
            training_seed=finalist.proposal.training_seed + 1 + seed,
        )
        for place, finalist in enumerate(finalists)
        for seed in range(options.seeds)
    ]

    def on_result(number: int, evaluation: Evaluation, known: bool) -> None:
        text = f"{evaluation.proposal.candidate.cell.canonical_hash()[:8]} {figures_of(evaluation)}"
        monitor.step(text, known=known)

    monitor.begin("confirm", len(proposals))
    calls = [evaluation_call(number, each, config.time_limit) for number, each in enumerate(proposals)]
    fresh = recorder.run(proposals, calls, on_result)
    monitor.end()
    choices = []
    for place, finalist in enumerate(finalists):
        own = tuple(with_latency(each, latencies[place]) for each in fresh[place * options.seeds :][: options.seeds])
        values = np.array([ready.score(evaluation) for evaluation in own])
        if np.isfinite(values).all():
            choices.append(Chosen(finalist, own, float(values.mean()), latencies[place]))
    if not choices:
        raise SearchError(f"Each of the best {len(finalists)} candidates failed when trained again. See {folder.log}.")
    return max(choices, key=lambda choice: (choice.score, -choice.found.proposal.number))


def _finalists(
    ready: ReadySearch, folder: WorkFolder, monitor: Monitor, ranked: Sequence[Evaluation], count: int
) -> list[tuple[Evaluation, float | None]]:
    """The first ``count`` of ``ranked`` that keep a limit on latency as measured, and what was measured.

    The search had estimates only. What is measured is written down, workers being idle: another measurement, by the
    same search resumed, would come to other figures, and perhaps to another network. Where latencies are neither
    limited nor charged nothing is measured, nor on another device than it began on.
    """
    if ready.latency is None:
        return [(evaluation, None) for evaluation in ranked[:count]]
    limit = ready.config.limits.max_latency or np.inf
    milliseconds: dict[str, float] = stored_json(folder.finalists).get("milliseconds", {})
    kept: list[tuple[Evaluation, float | None]] = []
    for evaluation in ranked:
        number = str(evaluation.proposal.number)
        if number not in milliseconds:
            if not ready.measures_latency:
                kept.append((evaluation, None))
            else:
                milliseconds[number] = _measured(ready, monitor, evaluation, limit)
        if number in milliseconds and milliseconds[number] <= limit:
            kept.append((evaluation, milliseconds[number]))
        if len(kept) == count:
            break
    if not kept:  # and nothing is written down: the next time may be a better one
        raise SearchError(
            f"None of the {len(ranked)} networks keeps max_latency={limit:g} as measured now; the fastest takes "
            f"{min(milliseconds.values()):.3g} ms. Is something else running? --resume, which trains nothing "
            "again, when the machine is idle; or search with a higher limit."
        )
    write_json(folder.finalists, {"milliseconds": milliseconds})
    return kept


def _measured(ready: ReadySearch, monitor: Monitor, evaluation: Evaluation, limit: float) -> float:
    """Milliseconds an image takes; says so where that is over the limit."""
    space, options = ready.space, ready.config.latency or LatencyOptions()
    assert isinstance(space, GEMNetSpace)
    genome = space.genome(evaluation.proposal.candidate)
    latency: float = measure([genome], options, space.template.input_size, space.in_chans)[0]
    if latency > limit:  # once more: a hiccup of the machine hits all turns of one network
        latency = min(latency, *measure([genome], options, space.template.input_size, space.in_chans))
    if latency > limit:
        monitor.note(
            f"Left out: no. {evaluation.proposal.number}, {figures_of(evaluation)}. As measured an image takes "
            f"it {latency:.3g} ms, {latency / limit - 1:.0%} over the limit."
        )
    return latency
