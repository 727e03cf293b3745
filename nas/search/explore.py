"""The loop of a search: ask, evaluate, record, tell.

Proposals come in batches. A batch is asked for when all proposals but the last ``ahead`` are evaluated, and the
strategy is told exactly those evaluations, in the order of their numbers, however many more may have ended by then. So
what is proposed depends on results only, never on the number of workers or on who finished first, and a search that was
killed proposes, after its resumption, what it would have proposed. Workers meanwhile do the ``ahead`` last proposals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from gemnet.machine import single_thread
from nas.evaluation.ledger import Ledger
from nas.evaluation.records import Evaluation, Proposal
from nas.executors import Call, Executor, Outcome, SerialExecutor
from nas.executors.monitor import Stopwatch
from nas.strategies.base import Strategy

OnResult = Callable[[Evaluation, bool], None]
"""Called with each evaluation, and whether it was known before."""


@dataclass(frozen=True)
class Exploration:
    """What explores.

    Args:
        search_id: names the search in the ledger.
        strategy: proposes.
        executor: evaluates; its service has a method ``evaluate(proposal) -> Evaluation``.
        ledger: remembers.
        evaluator: fingerprint of the evaluator.
        time_limit: seconds an evaluation may take; None for any.
        stopwatch: counts the time of bookkeeping.
        retry_failed: whether evaluations that failed before this run are made again, once.
    """

    search_id: str
    strategy: Strategy
    executor: Executor
    ledger: Ledger
    evaluator: str
    time_limit: float | None
    stopwatch: Stopwatch
    retry_failed: bool = False

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
        proposals = self.ledger.proposals(self.search_id)
        exhausted = len(proposals) % batch != 0
        told = submitted = finished = 0  # proposals below ``finished`` are all evaluated
        done: dict[int, Evaluation] = {}
        while True:
            while submitted < min(len(proposals), evaluations):
                known = self._submit(proposals[submitted])
                if known is not None:
                    done[submitted] = known
                    on_result(known, True)
                submitted += 1
            while finished in done:
                finished += 1
            wanted = len(proposals) - ahead
            if len(proposals) < evaluations and not exhausted and finished >= wanted:
                with self.stopwatch("tell"):
                    self.strategy.tell([done[number] for number in range(told, max(told, wanted))])
                told = max(told, wanted)
                with self.stopwatch("ask"), self._threads():
                    asked = self.strategy.ask(batch, pending=proposals[told:])
                with self.stopwatch("ledger"):
                    self.ledger.propose(self.search_id, asked)
                proposals += asked
                exhausted = len(asked) < batch
                continue
            if finished == min(len(proposals), evaluations):
                return [done[number] for number in range(finished)]
            for outcome in self.executor.wait():
                evaluation = self._record(outcome)
                done[evaluation.proposal.number] = evaluation
                on_result(evaluation, False)

    def evaluate(self, proposals: Sequence[Proposal], on_result: OnResult) -> list[Evaluation]:
        """Evaluates given proposals, outside of any strategy; those the ledger knows are not evaluated again."""
        done: dict[int, Evaluation] = {}
        for proposal in proposals:
            known = self._submit(proposal)
            if known is not None:
                done[proposal.number] = known
                on_result(known, True)
        while len(done) < len(proposals):
            for outcome in self.executor.wait():
                evaluation = self._record(outcome)
                done[evaluation.proposal.number] = evaluation
                on_result(evaluation, False)
        return [done[proposal.number] for proposal in proposals]

    def _threads(self) -> AbstractContextManager[Any]:
        """One compute thread for the strategy where workers keep the other cores busy; as many as it likes without."""
        return nullcontext() if isinstance(self.executor, SerialExecutor) else single_thread()

    def _submit(self, proposal: Proposal) -> Evaluation | None:
        """Hands a proposal to the executor, unless the ledger knows its result."""
        with self.stopwatch("ledger"):
            known = self.ledger.find(proposal, self.evaluator)
        if known is not None and known.status == "failed" and self.retry_failed:
            known = None
        if known is None:
            self.executor.submit(Call(proposal.number, "evaluate", (proposal,), self.time_limit))
        return known

    def _record(self, outcome: Outcome) -> Evaluation:
        with self.stopwatch("ledger"):
            return self.ledger.record(evaluation_of(outcome), self.evaluator, self.retry_failed)


def evaluation_of(outcome: Outcome) -> Evaluation:
    """The evaluation in an outcome; where the call itself failed, a failed one with the reason."""
    proposal: Proposal = outcome.call.args[0]
    if not outcome.failure:
        return outcome.value
    return Evaluation(proposal, "failed", accuracy=None, seconds=outcome.seconds, reason=outcome.failure)
