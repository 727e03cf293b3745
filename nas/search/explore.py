"""Exploring: ask, evaluate, record, tell, until the evaluations planned are used up.

Proposals come in batches. A batch is asked for when all proposals but the last ``ahead`` are evaluated, and the
strategy is told exactly those evaluations, in the order of their numbers, however many more may have ended by then. So
what is proposed depends on results only, never on the number of workers or on who finished first, and a search that was
killed proposes, after its resumption, what it would have proposed. Workers meanwhile do the ``ahead`` last proposals,
and the driver, which leaves the asking to a thread, goes on handing them out and recording what ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gemnet.machine import idle_cores, limited_threads, single_thread
from nas.evaluation.records import Evaluation, Proposal
from nas.executors import SerialExecutor
from nas.executors.jobs import Jobs
from nas.executors.monitor import Monitor
from nas.search.begin import earlier_evaluations, fitting
from nas.search.callbacks import Callbacks
from nas.search.folder import WorkFolder
from nas.search.live import LivePage
from nas.search.preflight import ReadySearch
from nas.search.recorder import Recorder, evaluation_call
from nas.search.report.result import SearchError, figures_of
from nas.strategies.base import Strategy

OnResult = Callable[[Evaluation, bool], None]
"""Called with each evaluation, and whether it was known before."""
LOOK = 0.05
"""Seconds between looks at whether an ask has ended, while results are waited for."""
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


def explore(
    ready: ReadySearch,
    folder: WorkFolder,
    recorder: Recorder,
    monitor: Monitor,
    page: LivePage,
    callbacks: Callbacks,
) -> Explored:
    """Asks the strategy, evaluates and tells it, as often as the config says.

    Args:
        ready: the search.
        folder: its work folder.
        recorder: evaluates what the ledger does not know.
        monitor: hears of each evaluation.
        page: is kept up to date.
        callbacks: hear of each evaluation, too.

    Raises:
        SearchError: every evaluation failed.
    """
    options, strategy = ready.config.search, ready.strategy
    if options.proposed > strategy.initial:  # else all are random, and nothing is to be learnt
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
        callbacks.evaluated(evaluation, score)
        if score > (float("-inf") if best is None else best[0]):
            best = score, evaluation
        shown = "" if best is None else f"best {figures_of(best[1])} (no. {best[1].proposal.number})"
        text = f"no. {evaluation.proposal.number} {figures_of(evaluation)}"
        monitor.step(f"{text} (from the ledger)" if known else text, shown, known=known)

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
        with ThreadPoolExecutor(1, "ask") as thread:  # leaving it waits for an ask under way
            return self._run(evaluations, batch, ahead, on_result, thread)

    def _run(
        self, evaluations: int, batch: int, ahead: int, on_result: OnResult, thread: ThreadPoolExecutor
    ) -> list[Evaluation]:
        recorder = self.recorder
        proposals = recorder.ledger.proposals(self.search_id)
        before = recorder.find_all(proposals[:evaluations])  # what a resumed search has, read at once
        exhausted = len(proposals) % batch != 0
        told = submitted = finished = 0  # proposals below ``finished`` are all evaluated
        done: dict[int, Evaluation] = {}
        jobs = Jobs(recorder.executor)
        asked: Future[list[Proposal]] | None = None

        def go_on() -> None:
            """Submits what is proposed, and has more asked for as soon as enough is evaluated."""
            nonlocal told, submitted, finished, asked
            while submitted < min(len(proposals), evaluations):
                proposal = proposals[submitted]
                known = before[submitted] if submitted < len(before) else recorder.find(proposal)
                if known is None:
                    jobs.submit(evaluation_call(submitted, proposal, self.time_limit))
                else:
                    done[submitted] = known
                    on_result(known, True)
                submitted += 1
            while finished in done:
                finished += 1
            wanted = len(proposals) - ahead
            if asked is not None or len(proposals) >= evaluations or exhausted or finished < wanted:
                return
            new = [done[number] for number in range(told, max(told, wanted))]
            told += len(new)
            asked = self._begin(thread, partial(self._ask, new, batch, proposals[told:]))

        go_on()
        while jobs.left or asked is not None:
            if asked is not None and (asked.done() or not jobs.left):
                more, asked = asked.result(), None
                with recorder.stopwatch("ledger"):
                    recorder.ledger.propose(self.search_id, more)
                proposals.extend(more)
                exhausted = len(more) < batch
            else:
                ended = jobs.ended(None if asked is None else LOOK)
                recorded = recorder.record([(proposals[outcome.call.number], outcome) for outcome in ended])
                for outcome, evaluation in zip(ended, recorded, strict=True):
                    done[outcome.call.number] = evaluation
                    on_result(evaluation, False)
            go_on()
        return [done[number] for number in range(finished)]

    def _ask(self, new: Sequence[Evaluation], batch: int, pending: Sequence[Proposal]) -> list[Proposal]:
        with self.recorder.stopwatch("tell"):
            self.strategy.tell(new)
        with self.recorder.stopwatch("ask"), self._threads():
            return self.strategy.ask(batch, pending=pending)

    def _begin(self, thread: ThreadPoolExecutor, ask: Callable[[], list[Proposal]]) -> Future[list[Proposal]]:
        """Has it asked in the thread; at once where evaluations run in this process and may share what they use."""
        if not isinstance(self.recorder.executor, SerialExecutor):
            return thread.submit(ask)
        asked: Future[list[Proposal]] = Future()
        asked.set_result(ask())
        return asked

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
    recorder.ledger.record_all(taken, ready.fingerprint)
    proposals = [replace(each.proposal, number=number) for number, each in enumerate(taken)]
    recorder.ledger.propose(folder.search_id, proposals)
    monitor.note(f"Begins with {len(taken)} evaluations of {path}.")


def _propose_first(ready: ReadySearch, folder: WorkFolder, recorder: Recorder, monitor: Monitor) -> None:
    """Makes the known candidates the first proposals; the strategy adds random ones up to a whole batch."""
    proposals = [Proposal(number, each, ready.config.fidelity) for number, each in enumerate(ready.first)]
    missing = -len(proposals) % ready.config.search.batch
    asked = ready.strategy.ask(missing, pending=proposals)
    recorder.ledger.propose(folder.search_id, [*proposals, *asked])
    left_out = len(ready.config.search.first) - len(proposals)
    beyond = f" {left_out} more are over the limits, however small." if left_out else ""
    monitor.note(f"Begins with {len(proposals)} known candidates.{beyond}")
