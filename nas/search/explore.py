"""Exploring: ask, evaluate, record, tell, until the evaluations planned are used up.

Proposals come in batches. A batch is asked for when all proposals but the last ``ahead`` are evaluated, and the
strategy is told exactly those evaluations, in the order of their numbers, however many more may have ended by then. So
what is proposed depends on results only, never on the number of workers or on who finished first, and a search that was
killed proposes, after its resumption, what it would have proposed. Workers meanwhile do the ``ahead`` last proposals.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from gemnet.machine import idle_cores, limited_threads, single_thread
from nas.evaluation.records import Evaluation, Proposal
from nas.executors import SerialExecutor
from nas.executors.jobs import Jobs
from nas.executors.monitor import Monitor
from nas.search.begin import earlier_evaluations, fitting
from nas.search.folder import WorkFolder
from nas.search.live import LivePage
from nas.search.preflight import ReadySearch
from nas.search.recorder import Recorder, evaluation_call
from nas.search.report.result import SearchError, figures_of
from nas.strategies.base import Strategy

OnResult = Callable[[Evaluation, bool], None]
"""Called with each evaluation, and whether it was known before."""
ENCODER_TICKS = 20
"""Steps in which the training of the encoder is shown."""


@dataclass(frozen=True)
class Explored:
    """What an exploration came to.

    Args:
        evaluations: by number.
        new: how many of them were evaluated in this run, and not before.
    """

    evaluations: tuple[Evaluation, ...]
    new: int


def explore(ready: ReadySearch, folder: WorkFolder, recorder: Recorder, monitor: Monitor, page: LivePage) -> Explored:
    """Asks the strategy, evaluates and tells it, as often as the config says.

    Args:
        ready: the search.
        folder: its work folder.
        recorder: evaluates what the ledger does not know.
        monitor: hears of each evaluation.
        page: is kept up to date.

    Raises:
        SearchError: every evaluation failed.
    """
    options, strategy = ready.config.search, ready.strategy
    asked = -(-options.evaluations // options.batch) * options.batch
    if asked > getattr(strategy, "initial", 0):  # else all are random, and nothing is to be learnt
        with recorder.stopwatch("strategy"):
            prepare_strategy(strategy, monitor)
    page.follow(strategy)
    if not recorder.ledger.proposals(folder.search_id):
        with recorder.stopwatch("ledger"):
            if options.start_from is not None:
                _start_from(options.start_from, ready, folder, recorder, monitor)
            if ready.first:
                _propose_first(ready, folder, recorder, monitor)
    best: tuple[float, Evaluation] | None = None
    new = 0

    def on_result(evaluation: Evaluation, known: bool) -> None:
        nonlocal best, new
        new += not known
        page.add(evaluation)
        score = ready.score(evaluation)
        if score > (float("-inf") if best is None else best[0]):
            best = score, evaluation
        shown = "" if best is None else f"best {figures_of(best[1])} (no. {best[1].proposal.number})"
        text = f"no. {evaluation.proposal.number} {figures_of(evaluation)}"
        monitor.step(f"{text} (from the ledger)" if known else text, shown)

    exploration = Exploration(folder.search_id, strategy, recorder, ready.config.time_limit)
    monitor.begin("search", options.evaluations)
    with recorder.stopwatch("explore"):
        evaluations = exploration.run(options.evaluations, options.batch, options.ahead, on_result)
    monitor.end()
    if len(evaluations) < options.evaluations:
        monitor.note(f"The space has no more than {len(evaluations)} candidates within the limits.")
    if best is None:
        reason = f" The first one: {evaluations[0].reason}" if evaluations else ""
        raise SearchError(f"All {len(evaluations)} evaluations failed.{reason} See {folder.log}.")
    return Explored(tuple(evaluations), new)


@dataclass(frozen=True)
class Exploration:
    """The loop.

    Args:
        search_id: names the search in the ledger.
        strategy: proposes.
        recorder: evaluates; its workers have a method ``evaluate(proposal) -> Evaluation``.
        time_limit: seconds after which an evaluation gives itself up; None for none.
    """

    search_id: str
    strategy: Strategy
    recorder: Recorder
    time_limit: float | None = None

    def run(self, evaluations: int, batch: int, ahead: int, on_result: OnResult) -> list[Evaluation]:
        """Evaluates proposals 0 to ``evaluations - 1``, or fewer where the space has no more.

        Args:
            evaluations: how many.
            batch: proposals asked for at a time. The last batch is asked for in full even if only some of it is
                evaluated now, so that a search resumed with more evaluations goes on as one begun with them.
            ahead: see above.
            on_result: hears of each evaluation.

        Returns:
            The evaluations by number.
        """
        recorder = self.recorder
        proposals = recorder.ledger.proposals(self.search_id)
        exhausted = len(proposals) % batch != 0
        told = submitted = finished = 0  # proposals below ``finished`` are all evaluated
        done: dict[int, Evaluation] = {}
        jobs = Jobs(recorder.executor)

        def go_on() -> None:
            """Submits what is proposed, and asks for more as soon as enough is evaluated."""
            nonlocal exhausted, told, submitted, finished
            while True:
                while submitted < min(len(proposals), evaluations):
                    proposal = proposals[submitted]
                    known = recorder.find(proposal)
                    if known is None:
                        jobs.submit(evaluation_call(submitted, proposal, self.time_limit))
                    else:
                        done[submitted] = known
                        on_result(known, True)
                    submitted += 1
                while finished in done:
                    finished += 1
                wanted = len(proposals) - ahead
                if len(proposals) >= evaluations or exhausted or finished < wanted:
                    return
                with recorder.stopwatch("tell"):
                    self.strategy.tell([done[number] for number in range(told, max(told, wanted))])
                told = max(told, wanted)
                with recorder.stopwatch("ask"), self._threads():
                    asked = self.strategy.ask(batch, pending=proposals[told:])
                with recorder.stopwatch("ledger"):
                    recorder.ledger.propose(self.search_id, asked)
                proposals.extend(asked)
                exhausted = len(asked) < batch

        go_on()
        for outcome in jobs:
            number = outcome.call.number
            done[number] = recorder.record(proposals[number], outcome)
            on_result(done[number], False)
            go_on()
        return [done[number] for number in range(finished)]

    def _threads(self) -> AbstractContextManager[Any]:
        """One compute thread for the strategy where workers keep the other cores busy; as many as it likes without."""
        return nullcontext() if isinstance(self.recorder.executor, SerialExecutor) else single_thread()


def prepare_strategy(strategy: Strategy, monitor: Monitor) -> None:
    """Lets the strategy train what it needs, such as an encoder, and shows how far it is."""
    shown: int | None = None  # ticks shown; None until a training turns out to be needed

    def show(step: int, steps: int, loss: float) -> None:
        nonlocal shown
        if shown is None:
            shown = 0
            monitor.note("The first search in this space trains its graph encoder; later ones find it in the cache.")
            monitor.begin("encoder", ENCODER_TICKS)
        while shown < ENCODER_TICKS * step // steps:
            shown += 1
            monitor.step(f"loss {loss:.3f}")

    with limited_threads(idle_cores()):
        strategy.prepare(show)
    if shown is not None:
        monitor.end()


def _start_from(path: str, ready: ReadySearch, folder: WorkFolder, recorder: Recorder, monitor: Monitor) -> None:
    """Makes the evaluations of an earlier search the first of this one, as if it had proposed them."""
    taken = ready.earlier
    if taken is None:  # this one was killed before it had proposed anything
        taken = fitting(earlier_evaluations(path), ready.config, ready.space, ready.fingerprint)
    for each in taken:
        recorder.ledger.record(each, ready.fingerprint)
    proposals = [replace(each.proposal, number=number) for number, each in enumerate(taken)]
    recorder.ledger.propose(folder.search_id, proposals)
    monitor.note(f"Begins with {len(taken)} evaluations of {path}.")


def _propose_first(ready: ReadySearch, folder: WorkFolder, recorder: Recorder, monitor: Monitor) -> None:
    """Makes the known candidates the first proposals; the strategy adds random ones up to a whole batch."""
    proposals = [Proposal(number, each, ready.config.fidelity) for number, each in enumerate(ready.first)]
    missing = -len(proposals) % ready.config.search.batch
    asked = ready.strategy.ask(missing, pending=proposals)
    recorder.ledger.propose(folder.search_id, [*proposals, *asked])
    monitor.note(f"Begins with {len(proposals)} known candidates.")
