"""Evaluations that are made once: what the ledger knows is not evaluated again, and what ends is recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nas.evaluation.ledger import Ledger
from nas.evaluation.records import Evaluation, EvaluationError, Proposal, checked
from nas.executors import Call, Executor, Outcome
from nas.executors.jobs import Jobs
from nas.executors.monitor import Stopwatch

LIMIT_SLACK = 30.0
"""Seconds beyond ``time_limit``, at which trainings give up by themselves, until their worker is killed."""


@dataclass(frozen=True)
class Recorder:
    """Who evaluates and where it is written down.

    Args:
        executor: evaluates.
        ledger: remembers.
        evaluator: fingerprint of the evaluator.
        stopwatch: counts the time of bookkeeping.
        retry_failed: whether evaluations that failed before this run are made again, once.
        complete: adds to what was evaluated the costs that this search knows of it; they are not recorded.
    """

    executor: Executor
    ledger: Ledger
    evaluator: str
    stopwatch: Stopwatch
    retry_failed: bool = False
    complete: Callable[[Evaluation], Evaluation] = lambda evaluation: evaluation

    def find(self, proposal: Proposal) -> Evaluation | None:
        """What the ledger knows of a proposal, and need not be evaluated again."""
        with self.stopwatch("ledger"):
            return self._usable(self.ledger.find(proposal, self.evaluator))

    def find_all(self, proposals: Sequence[Proposal]) -> list[Evaluation | None]:
        """As `find`, for many at once."""
        with self.stopwatch("ledger"):
            return [self._usable(known) for known in self.ledger.find_all(proposals, self.evaluator)]

    def _usable(self, known: Evaluation | None) -> Evaluation | None:
        if known is None or (known.status == "failed" and self.retry_failed):
            return None
        return self.complete(known)

    def record(self, ended: Sequence[tuple[Proposal, Outcome]]) -> list[Evaluation]:
        """Writes evaluations down, all at once; where the call failed or returned none, a failed one with the reason.

        They are of the proposals given, not of a worker's copies: a long search holds each candidate once.
        """
        evaluations = [_evaluation(proposal, outcome) for proposal, outcome in ended]
        with self.stopwatch("ledger"):
            recorded = self.ledger.record_all(evaluations, self.evaluator, self.retry_failed)
            return [self.complete(each) for each in recorded]

    def run(
        self,
        proposals: Sequence[Proposal],
        calls: Sequence[Call],
        on_result: Callable[[int, Evaluation, bool], None],
        suffices: Callable[[int, Evaluation], bool] = lambda number, known: True,
    ) -> list[Evaluation]:
        """Evaluates given proposals; returns their evaluations in the same order.

        Args:
            proposals: what the evaluations are of.
            calls: for each, how it is evaluated; their numbers are its place.
            on_result: hears of each evaluation: its place, itself, and whether it was known before.
            suffices: whether what the ledger knows of a place will do.
        """
        done: dict[int, Evaluation] = {}
        jobs = Jobs(self.executor)
        for number, (proposal, call) in enumerate(zip(proposals, calls, strict=True)):
            known = self.find(proposal)
            if known is not None and suffices(number, known):
                done[number] = known
                on_result(number, known, True)
            else:
                jobs.submit(call)
        while jobs.left:
            ended = jobs.ended()
            recorded = self.record([(proposals[outcome.call.number], outcome) for outcome in ended])
            for outcome, evaluation in zip(ended, recorded, strict=True):
                done[outcome.call.number] = evaluation
                on_result(outcome.call.number, evaluation, False)
        return [done[number] for number in range(len(proposals))]


def _evaluation(proposal: Proposal, outcome: Outcome) -> Evaluation:
    reason = outcome.failure
    if not reason:
        try:
            return replace(checked(outcome.value), proposal=proposal)
        except EvaluationError as error:
            reason = str(error)
    return Evaluation(proposal, "failed", None, seconds=outcome.seconds, reason=reason)


def evaluation_call(number: int, proposal: Proposal, time_limit: float | None) -> Call:
    """The call that evaluates a proposal; it is given up some seconds after it should have given up itself."""
    return Call(number, "evaluate", (proposal,), None if time_limit is None else time_limit + LIMIT_SLACK)
