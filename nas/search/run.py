"""A search from beginning to end: explore, confirm, train the found network, compare it.

This is the method section of the paper as code. Each part lives in a module of its own; what they have in common is the
ledger, which remembers every evaluation, so that each part can be begun again at any moment and does only what is
missing.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemnet.data.datasets import DataSpec, missing_test_images
from gemnet.files import read_json, write_json
from gemnet.fitting import BLOCKS, BaselineError, block_genome, fit_width
from gemnet.genome import Genome
from gemnet.macs import macs
from gemnet.strict import make
from nas.evaluation.latency import LatencyModel, LatencyOptions, measure
from nas.evaluation.ledger import Ledger, SearchRecord
from nas.evaluation.networks import holds_weights, network_proposal
from nas.evaluation.records import Evaluation, Proposal
from nas.evaluation.training import BALANCED
from nas.executors import Call, Executor
from nas.executors.monitor import Monitor, Stopwatch
from nas.graphs.effective import effective_cell
from nas.search.begin import earlier_evaluations, first_candidates, fitting
from nas.search.config import SearchConfig
from nas.search.explore import Exploration
from nas.search.folder import LATENCY, WorkFolder, check_work_folder, open_work_folder
from nas.search.parts import (
    Parts,
    build_executor,
    build_parts,
    build_strategy,
    check_config,
    check_strategy,
    prepare_encoder,
    prepare_latency,
)
from nas.search.pictures import draw_cell, draw_search
from nas.search.report.live import LivePage
from nas.search.result import Chosen, Row, SearchError, SearchResult
from nas.search.rivals import random_candidates
from nas.spaces.base import Candidate
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import check_limits
from nas.strategies.base import Strategy

BOOKKEEPING = ("strategy", "ask", "tell", "ledger", "pictures", "report")
LIMIT_SLACK = 30.0
"""Seconds beyond ``time_limit``, at which trainings give up by themselves, until their worker is killed."""
NETWORK_SEED = 1000
"""First seed of the longer trainings: none that the network was chosen by."""
FOUND, RANDOM_CELLS = "found network", "random cells"


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
    check_config(config)
    parts = build_parts(config)
    fingerprint = parts.evaluator.fingerprint
    begun = check_work_folder(path, config, fingerprint, resume)
    check_limits(parts.space, replace(config.limits, max_latency=None))
    check_strategy(config, parts)
    if config.ledger is not None:
        Ledger(config.ledger).close()  # a wrong URL is to be found out before the folder is made
    records = None if begun or config.search.start_from is None else earlier_evaluations(config.search.start_from)
    latency = prepare_latency(config, parts.space, path / LATENCY, monitor)
    check_limits(parts.space, config.limits)
    first = first_candidates(config, parts.space)
    earlier = None if records is None else fitting(records, config, parts.space, fingerprint)
    with open_work_folder(path, config, fingerprint, resume) as folder:
        monitor.log_to(folder.log)
        if latency is not None:
            latency.save(folder.latency)
        page = LivePage(folder.report, config, parts.space, stopwatch, command)
        if folder.died is not None:
            monitor.note(f"Takes over from {folder.died}, which died.")
        with Ledger(config.ledger or folder.ledger, say=monitor.note) as ledger:
            ledger.keep_count(folder.recorded, folder.search_id, fingerprint)
            ledger.enter(
                SearchRecord(
                    folder.search_id,
                    path.absolute().name,
                    socket.gethostname(),
                    str(path.absolute()),
                    fingerprint,
                    config.search.evaluations,
                    datetime.now(timezone.utc).isoformat(timespec="seconds"),
                )
            )
            with build_executor(config, parts, folder.worker_log) as executor:
                search = _Search(
                    config, parts, folder, ledger, executor, monitor, stopwatch, first, earlier, latency, page
                )
                search.say_what_is_not_measured()
                evaluations = search.explore()
                chosen = search.choose(evaluations)
                genome = search.keep(chosen, evaluations)
                rows = search.compare(genome) if genome is not None and config.final is not None else ()
            result = SearchResult(
                folder.path,
                tuple(evaluations),
                chosen,
                genome,
                parts.space.in_chans if isinstance(parts.space, GEMNetSpace) else None,
                tuple(rows),
                search.evaluated,
                {**stopwatch.seconds, "total": stopwatch.total},
                None if latency is None else latency.device,
            )
            page.write("finished", result)
            write_json(folder.summary, summary(result))
            return result


@dataclass(frozen=True)
class _Training:
    """A longer training of a whole network, and the line of the comparison it belongs to."""

    line: str
    genome: Genome
    seed: int
    epochs: int
    weights: Path | None = None

    @property
    def proposal(self) -> Proposal:
        return network_proposal(self.genome, self.epochs, self.seed)

    def has_its_weights(self) -> bool:
        """Whether nothing is to be kept of it, or what is to be kept is there (and not of another network)."""
        return self.weights is None or holds_weights(self.weights, self.genome, self.epochs, self.seed)


class _Search:
    """The parts of one run; each method is one paragraph of the method section."""

    def __init__(
        self,
        config: SearchConfig,
        parts: Parts,
        folder: WorkFolder,
        ledger: Ledger,
        executor: Executor,
        monitor: Monitor,
        stopwatch: Stopwatch,
        first: Sequence[Candidate] = (),
        earlier: Sequence[Evaluation] | None = None,
        latency: LatencyModel | None = None,
        page: LivePage | None = None,
    ) -> None:
        self.page = page
        self.config, self.parts, self.folder = config, parts, folder
        self.first, self.earlier, self.latency = first, earlier, latency
        self.ledger, self.executor = ledger, executor
        self.monitor, self.stopwatch = monitor, stopwatch
        self.fingerprint = parts.evaluator.fingerprint
        self.measures_latency = latency is not None and latency.is_of(config.latency or LatencyOptions())
        self.missing_test = ""
        self.best: tuple[float, Evaluation] | None = None
        self.evaluated = 0

    def say_what_is_not_measured(self) -> None:
        """Notes, before hours go by, which figures there will not be."""
        options = self.config.comparison
        if self.config.final is not None and options is not None and options.test:
            self.missing_test = missing_test_images(make(DataSpec, self.config.data, "data"))
            if self.missing_test:
                self.monitor.note(f"No figures on test images, only on development images: {self.missing_test}")
        if self.latency is not None and not self.measures_latency:
            self.monitor.note(
                f"This is not {self.latency.device}: max_latency is kept as estimated, and not measured in the end."
            )

    def explore(self) -> list[Evaluation]:
        """Asks the strategy, evaluates, tells, until the budget of evaluations is used up."""
        options = self.config.search
        with self.stopwatch("strategy"):
            prepare_encoder(self.config, self.parts.space, self.monitor)
            strategy = build_strategy(self.config, self.parts)
        if self.page is not None:
            self.page.follow(strategy)
        if not self.ledger.proposals(self.folder.search_id):
            with self.stopwatch("ledger"):
                if self.config.search.start_from is not None:
                    self._start_from(self.config.search.start_from)
                if self.first:
                    self._propose_first(strategy)
        self.exploration = Exploration(
            self.folder.search_id,
            strategy,
            self.executor,
            self.ledger,
            self.fingerprint,
            None if self.config.time_limit is None else self.config.time_limit + LIMIT_SLACK,
            self.stopwatch,
            options.retry_failed,
        )
        self.monitor.begin("search", options.evaluations)
        with self.stopwatch("explore"):
            evaluations = self.exploration.run(options.evaluations, options.batch, options.ahead, self._on_result)
        self.monitor.end()
        if len(evaluations) < options.evaluations:
            self.monitor.note(f"The space has no more than {len(evaluations)} candidates within the limits.")
        if self.best is None:
            reason = f" The first one: {evaluations[0].reason}" if evaluations else ""
            raise SearchError(f"All {len(evaluations)} evaluations failed.{reason} See {self.folder.log}.")
        return evaluations

    def _start_from(self, path: str) -> None:
        """Makes the evaluations of an earlier search the first of this one, as if it had proposed them."""
        taken = self.earlier
        if taken is None:  # this one was killed before it had proposed anything
            taken = fitting(earlier_evaluations(path), self.config, self.parts.space, self.fingerprint)
        for each in taken:
            self.ledger.record(each, self.fingerprint)
        self.ledger.propose(
            self.folder.search_id, [replace(each.proposal, number=number) for number, each in enumerate(taken)]
        )
        self.monitor.note(f"Begins with {len(taken)} evaluations of {path}.")

    def _propose_first(self, strategy: Strategy) -> None:
        """Makes the known candidates the first proposals; the strategy adds random ones up to a whole batch."""
        proposals = [Proposal(number, each, self.config.fidelity) for number, each in enumerate(self.first)]
        missing = -len(proposals) % self.config.search.batch
        self.ledger.propose(self.folder.search_id, [*proposals, *strategy.ask(missing, pending=proposals)])
        self.monitor.note(f"Begins with {len(proposals)} known candidates.")

    def choose(self, evaluations: Sequence[Evaluation]) -> Chosen:
        """Evaluates the best again, with fresh seeds, and chooses by these alone: the old figures are flattered."""
        options = self.config.confirm
        scores = self._scores(evaluations)
        # Cheaper evaluations, which some strategies begin with, don't compare with real ones.
        real = np.array([evaluation.proposal.fidelity == self.config.fidelity for evaluation in evaluations])
        if np.isfinite(scores[real]).any():
            scores = np.where(real, scores, -np.inf)
        order = sorted(np.flatnonzero(np.isfinite(scores)).tolist(), key=lambda k: (-scores[k], k))
        finalists, latencies = zip(*self._finalists([evaluations[k] for k in order], max(options.top, 1)), strict=True)
        if options.top == 0:
            return Chosen(finalists[0], (), self._score(finalists[0]), latencies[0])
        fidelity = self.config.fidelity
        fidelity = replace(fidelity, epochs=options.epochs or fidelity.epochs)
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
        self.monitor.begin("confirm", len(proposals))
        fresh = self.exploration.evaluate(proposals, self._on_confirmation)
        self.monitor.end()
        choices = []
        for place, finalist in enumerate(finalists):
            own = tuple(fresh[place * options.seeds : (place + 1) * options.seeds])
            values = self._scores(own)
            if np.isfinite(values).all():
                choices.append(Chosen(finalist, own, float(values.mean()), latencies[place]))
        if not choices:
            raise SearchError(
                f"Each of the best {len(finalists)} candidates failed when trained again. See {self.folder.log}."
            )
        return max(choices, key=lambda choice: (choice.score, -choice.found.proposal.number))

    def _finalists(self, ranked: Sequence[Evaluation], count: int) -> list[tuple[Evaluation, float | None]]:
        """The first ``count`` of ``ranked`` that keep the limit on latency as measured, and what was measured.

        The search had estimates only. What is measured is written down, workers being idle: another measurement, by
        the same search resumed, would come to other figures, and perhaps to another network. Without a limit nothing
        is measured, nor on another device than it began on.
        """
        limit = self.config.limits.max_latency
        if limit is None:
            return [(evaluation, None) for evaluation in ranked[:count]]
        milliseconds: dict[str, float] = read_json(self.folder.finalists).get("milliseconds", {})
        kept: list[tuple[Evaluation, float | None]] = []
        for evaluation in ranked:
            number = str(evaluation.proposal.number)
            if number not in milliseconds:
                if not self.measures_latency:
                    kept.append((evaluation, None))
                else:
                    milliseconds[number] = self._measured(evaluation, limit)
            if milliseconds.get(number, np.inf) <= limit:
                kept.append((evaluation, milliseconds[number]))
            if len(kept) == count:
                break
        if not kept:  # and nothing is written down: the next time may be a better one
            raise SearchError(
                f"None of the {len(ranked)} networks keeps max_latency={limit:g} as measured now; the fastest takes "
                f"{min(milliseconds.values()):.3g} ms. Is something else running? --resume, which trains nothing "
                "again, when the machine is idle; or search with a higher limit."
            )
        write_json(self.folder.finalists, {"milliseconds": milliseconds})
        return kept

    def _measured(self, evaluation: Evaluation, limit: float) -> float:
        """Milliseconds an image takes; says so where that is over the limit."""
        space, options = self.parts.space, self.config.latency or LatencyOptions()
        assert isinstance(space, GEMNetSpace)
        genome = space.genome(evaluation.proposal.candidate)
        latency = np.inf
        for _ in range(2):  # once more where it fails: a hiccup of the machine hits all turns of one network
            if latency > limit:
                latency = min(latency, *measure([genome], options, space.template.input_size, space.in_chans))
        if latency > limit:
            self.monitor.note(
                f"Left out: no. {evaluation.proposal.number}, {_figures(evaluation)}. As measured an image takes "
                f"it {latency:.3g} ms, {latency / limit - 1:.0%} over the limit."
            )
        return latency

    def keep(self, chosen: Chosen, evaluations: Sequence[Evaluation]) -> Genome | None:
        """Writes the genome of the chosen candidate, and the pictures."""
        candidate = chosen.found.proposal.candidate
        genome = None
        if isinstance(self.parts.space, GEMNetSpace):
            source = self.config.data.get("source", "digits")
            origin = (
                f"{self.config.strategy.type} search on {source}: best of {len(evaluations)} candidates, "
                f"seed {self.config.search.seed}"
            )
            genome = self.parts.space.genome(candidate, name="best", origin=origin)
            genome.save(self.folder.genome)
        with self.stopwatch("pictures"):
            macro = ", ".join(f"{name} {value}" for name, value in candidate.macro)
            sampled = candidate.cell.canonical()
            cell, shares = effective_cell(sampled, self.parts.space.zero_ops, self.parts.space.identity_ops)
            title = f"{len(cell.ops)} nodes, {len(cell.edges)} edges, bold by their share in the output"
            draw_cell(cell, self.folder.cell_picture, f"{title}; {macro}" if macro else title, shares)
            if cell != sampled:
                title = f"as sampled: {len(sampled.ops)} nodes, {len(sampled.edges)} edges"
                draw_cell(sampled, self.folder.sampled_cell_picture, title)
            draw_search(
                evaluations, self.config.score, self.folder.search_picture, chosen.found, self.config.limits.max_macs
            )
        return genome

    def compare(self, genome: Genome) -> list[Row]:
        """Trains the found network longer, and beside it random cells and hand-made blocks at no more than its MACs."""
        final, options = self.config.final, self.config.comparison
        assert final is not None
        trainings = [_Training(FOUND, genome, NETWORK_SEED, final.epochs, self.folder.weights)]
        if options is not None:
            epochs = options.epochs or final.epochs
            if epochs != final.epochs:
                trainings[0] = replace(trainings[0], line=f"{FOUND}, {final.epochs} epochs")
                trainings.append(_Training(FOUND, genome, NETWORK_SEED, epochs))
            trainings += [_Training(FOUND, genome, NETWORK_SEED + k, epochs) for k in range(1, options.seeds)]
            trainings += [
                _Training(line, rival, NETWORK_SEED + k, epochs)
                for line, rival, seeds in self._rivals(genome)
                for k in range(seeds)
            ]
        done = self._train(trainings)
        if done[0].accuracy is None:
            raise SearchError(
                f"The found network's longer training failed: {done[0].reason} See {self.folder.log}. It is recorded "
                f"and not repeated. Train {self.folder.genome} with tools/train.py, or search on in another folder "
                f"with other settings and search.start_from={self.folder.path}."
            )
        lines = dict.fromkeys(training.line for training in trainings)
        return [
            _row(line, [done[k] for k, training in enumerate(trainings) if training.line == line]) for line in lines
        ]

    def _rivals(self, genome: Genome) -> list[tuple[str, Genome, int]]:
        """(line, network, trainings) of everything the found network is compared with."""
        space, options = self.parts.space, self.config.comparison
        assert isinstance(space, GEMNetSpace)
        assert options is not None
        limit = float(macs(genome, in_chans=space.in_chans))
        batch = random_candidates(space, options.random_cells, limit, self.config.search.seed)
        entries = [(RANDOM_CELLS, space.genome(space.unpack(batch, row)), 1) for row in range(len(batch))]
        entries += [(BLOCKS[block][2], block_genome(block, genome), options.seeds) for block in options.blocks]
        rivals = []
        for line, network, trainings in entries:
            try:
                rivals.append((line, fit_width(network, limit, space.in_chans), trainings))
            except BaselineError as error:
                self.monitor.note(f"Left out of the comparison: {line}. {error}")
        return rivals

    def _train(self, trainings: Sequence[_Training]) -> list[Evaluation]:
        """Trains whole networks; what the ledger knows is not trained again (unless its weights are missing)."""
        assert self.config.final is not None
        options = self.config.comparison
        test_log = self.folder.test_log if options is not None and options.test and not self.missing_test else None
        done: dict[int, Evaluation] = {}
        self.monitor.begin("train", len(trainings))
        for number, training in enumerate(trainings):
            known = self.ledger.find(training.proposal, self.fingerprint)
            if known is not None and (known.status == "failed" or training.has_its_weights()):
                done[number] = known
                self.monitor.step(f"{training.line} {_figures(known)}")
                continue
            limit = self.config.final.time_limit
            arguments = (training.genome, training.epochs, training.seed, training.weights, test_log, limit)
            kill = None if limit is None else limit + LIMIT_SLACK
            self.executor.submit(Call(number, "train_network", arguments, kill))
        while len(done) < len(trainings):
            for outcome in self.executor.wait():
                number, evaluation = outcome.call.number, outcome.value
                if outcome.failure:
                    proposal = trainings[number].proposal
                    evaluation = Evaluation(proposal, "failed", None, seconds=outcome.seconds, reason=outcome.failure)
                done[number] = self.ledger.record(evaluation, self.fingerprint)
                self.monitor.step(f"{trainings[number].line} {_figures(evaluation)}")
        self.monitor.end()
        return [done[number] for number in range(len(trainings))]

    def _scores(self, evaluations: Sequence[Evaluation]) -> NDArray[np.float64]:
        return np.array([self._score(evaluation) for evaluation in evaluations], dtype=np.float64)

    def _score(self, evaluation: Evaluation) -> float:
        """Efficiency score; minus infinity for a failed evaluation."""
        if evaluation.status != "ok" or evaluation.accuracy is None:
            return -np.inf
        return float(self.config.score(evaluation.accuracy, evaluation.macs))

    def _on_result(self, evaluation: Evaluation, known: bool) -> None:
        self.evaluated += not known
        if self.page is not None:
            self.page.add(evaluation)
        score = self._score(evaluation)
        if np.isfinite(score) and (self.best is None or score > self.best[0]):
            self.best = (score, evaluation)
        best = ""
        if self.best is not None:
            best = f"best {_figures(self.best[1])} (no. {self.best[1].proposal.number})"
        text = f"no. {evaluation.proposal.number} {_figures(evaluation)}"
        self.monitor.step(f"{text} (from the ledger)" if known else text, best)

    def _on_confirmation(self, evaluation: Evaluation, known: bool) -> None:
        proposal = evaluation.proposal
        self.monitor.step(f"{proposal.candidate.cell.canonical_hash()[:8]} {_figures(evaluation)}")


def summary(result: SearchResult) -> dict[str, Any]:
    """The result as JSON holds it: the comparison, what was chosen and where the time went."""
    chosen = result.chosen
    return {
        "evaluations": len(result.evaluations),
        "failed": sum(evaluation.status == "failed" for evaluation in result.evaluations),
        "chosen": {
            "number": chosen.found.proposal.number,
            "candidate": chosen.found.proposal.candidate.to_json(),
            "accuracy": chosen.found.accuracy,
            "macs": chosen.found.macs,
            "params": chosen.found.params,
            "fresh_accuracies": [evaluation.accuracy for evaluation in chosen.fresh],
            "score": chosen.score,
            "latency_ms": chosen.latency,
        },
        "comparison": [asdict(row) for row in result.rows],
        "evaluations_per_hour": round(evaluations_per_hour(result), 1),
        "seconds": {part: round(seconds, 3) for part, seconds in result.seconds.items()},
        "bookkeeping_share": round(bookkeeping_share(result.seconds), 4),
    }


def bookkeeping_share(seconds: Mapping[str, float]) -> float:
    """Share of a search's wall-clock time that went into anything but evaluating."""
    return sum(seconds.get(part, 0.0) for part in BOOKKEEPING) / max(seconds["total"], 1e-9)


def evaluations_per_hour(result: SearchResult) -> float:
    """How fast this run explored; 0 where it only read the ledger."""
    return 3600 * result.evaluated / max(result.seconds["explore"], 1e-9)


def _row(name: str, evaluations: Sequence[Evaluation]) -> Row:
    good = [each for each in evaluations if each.accuracy is not None]
    return Row(
        name=name,
        accuracies=tuple(float(each.accuracy or 0.0) for each in good),
        test_accuracies=_metric(good, "test_accuracy"),
        macs=float(np.mean([each.macs or np.nan for each in good])) if good else float("nan"),
        params=float(np.mean([each.params or np.nan for each in good])) if good else float("nan"),
        failed=len(evaluations) - len(good),
        balanced=_metric(good, BALANCED),
        test_balanced=_metric(good, f"test_{BALANCED}"),
    )


def _metric(evaluations: Sequence[Evaluation], name: str) -> tuple[float, ...]:
    return tuple(each.metrics[name] for each in evaluations if name in each.metrics)


def _figures(evaluation: Evaluation) -> str:
    if evaluation.accuracy is None:
        return f"failed: {evaluation.reason}"
    macs = f" at {_millions(evaluation.macs)} M MACs" if evaluation.macs else ""
    return f"{evaluation.accuracy:.2f} %{macs}"


def _millions(macs: float) -> str:
    """Millions with three digits, or all digits of more: 0.49, 5.98, 3,412."""
    millions = macs / 1e6
    return f"{millions:.3g}" if millions < 999.5 else f"{millions:,.0f}"
