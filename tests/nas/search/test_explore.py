"""The loop: same proposals whoever finishes first, nothing twice, and resumption at any moment."""

from __future__ import annotations

import copy
import random
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import search_doubles
import torch
from fork_server import fork_server
from search_doubles import FIDELITY, FormulaEvaluator, ShuffledExecutor, TimedExecutor, exploration, small_space

from nas.evaluation.ledger import Ledger
from nas.evaluation.records import Evaluation, Proposal
from nas.executors import SerialExecutor
from nas.search.recorder import evaluation_call

BATCH, AHEAD, EVALUATIONS = 6, 3, 40


def ignore(evaluation, known) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(evaluations, proposals) of a search that was left alone."""
    with (
        Ledger(tmp_path_factory.mktemp("reference") / "ledger.db") as ledger,
        SerialExecutor(FormulaEvaluator) as executor,
    ):
        evaluations = exploration(ledger, executor).run(EVALUATIONS, BATCH, AHEAD, ignore)
        return evaluations, ledger.proposals("search")


def test_reference_search_is_one_worth_comparing(uninterrupted) -> None:
    evaluations, proposals = uninterrupted
    assert [each.proposal.number for each in evaluations] == list(range(EVALUATIONS))
    assert len(proposals) == 42  # the last batch is asked for in full
    assert any(each.status == "failed" for each in evaluations)
    keys = {proposal.candidate.key() for proposal in proposals}
    assert len(keys) == len(proposals)
    late = [each.accuracy for each in evaluations[20:] if each.accuracy]
    early = [each.accuracy for each in evaluations[:8] if each.accuracy]
    assert np.mean(late) > np.mean(early)  # it learns, so proposals do depend on results


def test_results_are_recorded_and_calls_handed_out_while_the_strategy_is_asked(tmp_path) -> None:
    ended_meanwhile = threading.Event()
    with Ledger(tmp_path / "ledger.db") as ledger:
        made = exploration(ledger, ShuffledExecutor(FormulaEvaluator(), 1, np.random.default_rng(0)))
        ask, waited = made.strategy.ask, []

        def slow(n, pending=()):
            if pending:  # the first ask has nothing to wait for
                waited.append(ended_meanwhile.wait(timeout=600))
            return ask(n, pending)

        made.strategy.ask = slow

        def heard(evaluation, known) -> None:
            if len(ledger.evaluations()) > BATCH - AHEAD:  # after what the second ask was told of
                ended_meanwhile.set()

        made.run(2 * BATCH, BATCH, AHEAD, heard)
    assert waited == [True]


def test_each_candidate_is_held_once_though_workers_return_copies(tmp_path) -> None:
    class Copying(SerialExecutor):
        def wait(self, timeout=None):
            return [replace(each, value=copy.deepcopy(each.value)) for each in super().wait(timeout)]

    with Ledger(tmp_path / "ledger.db") as ledger, Copying(FormulaEvaluator) as executor:
        made = exploration(ledger, executor)
        ask, asked = made.strategy.ask, []

        def remembered(n, pending=()):
            asked.extend(ask(n, pending))
            return asked[-n:]

        made.strategy.ask = remembered
        found = made.run(2 * BATCH, BATCH, AHEAD, ignore)
    assert [each.proposal for each in found] == asked
    assert all(each.proposal is proposal for each, proposal in zip(found, asked, strict=True))


def test_error_of_the_strategy_ends_the_search(tmp_path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        made = exploration(ledger, ShuffledExecutor(FormulaEvaluator(), 2, np.random.default_rng(0)))
        made.strategy.ask = lambda n, pending=(): 1 / 0
        with pytest.raises(ZeroDivisionError):
            made.run(EVALUATIONS, BATCH, AHEAD, ignore)


@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize("order", [0, 1])
def test_proposals_do_not_depend_on_workers_or_on_who_finishes_first(tmp_path, uninterrupted, workers, order) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        executor = ShuffledExecutor(FormulaEvaluator(), workers, np.random.default_rng(order))
        evaluations = exploration(ledger, executor).run(EVALUATIONS, BATCH, AHEAD, ignore)
        assert (evaluations, ledger.proposals("search")) == uninterrupted


@pytest.mark.parametrize("first", [0, 1, 7, 20, 33])
def test_resumed_search_equals_uninterrupted_one(tmp_path, uninterrupted, first) -> None:
    log, rng, calls = tmp_path / "begun", np.random.default_rng(first), 0
    for stop in (first, 4, 9, None):
        with Ledger(tmp_path / "ledger.db") as ledger:
            executor = ShuffledExecutor(FormulaEvaluator(log), 3, rng, stop)
            try:
                evaluations = exploration(ledger, executor).run(EVALUATIONS, BATCH, AHEAD, ignore)
            except KeyboardInterrupt:
                evaluations = []
            calls += executor.calls
            proposals = ledger.proposals("search")
    assert (evaluations, proposals) == uninterrupted
    assert calls == EVALUATIONS  # each was evaluated once
    assert sorted(int(line) for line in log.read_text().split()) == list(range(EVALUATIONS))


def test_search_resumed_with_more_evaluations_equals_one_begun_with_them(tmp_path, uninterrupted) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger, SerialExecutor(FormulaEvaluator) as executor:
        for evaluations in (10, 11, 27, EVALUATIONS):
            result = exploration(ledger, executor).run(evaluations, BATCH, AHEAD, ignore)
            assert len(result) == evaluations
        assert (result, ledger.proposals("search")) == uninterrupted


def test_batches_ahead_are_asked_for_without_what_is_not_needed(tmp_path, monkeypatch) -> None:
    """With ``ahead`` the strategy is told all but the last three proposals, even when these are done."""
    with Ledger(tmp_path / "ledger.db") as ledger, SerialExecutor(FormulaEvaluator) as executor:
        search = exploration(ledger, executor)
        told: list[int] = []
        pending: list[list[int]] = []
        tell, ask = search.strategy.tell, search.strategy.ask

        def listen(evaluations) -> None:
            told.extend(each.proposal.number for each in evaluations)
            tell(evaluations)

        def watch(n, pending_now=(), **keywords):
            waiting = keywords.get("pending", pending_now)
            pending.append([proposal.number for proposal in waiting])
            assert told == list(range(len(told)))
            assert pending[-1] == list(range(len(told), len(told) + len(pending[-1])))
            return ask(n, waiting)

        monkeypatch.setattr(search.strategy, "tell", listen)
        monkeypatch.setattr(search.strategy, "ask", watch)
        search.run(20, BATCH, AHEAD, ignore)
    assert [len(numbers) for numbers in pending] == [0, 3, 3, 3]


def test_strategy_has_one_thread_beside_workers_and_all_without(tmp_path, monkeypatch) -> None:
    import torch

    seen = {}
    before = torch.get_num_threads()
    for name, executor in (
        ("workers", ShuffledExecutor(FormulaEvaluator(), 2, np.random.default_rng(0))),
        ("none", SerialExecutor(FormulaEvaluator)),
    ):
        with Ledger(tmp_path / f"{name}.db") as ledger:
            search = exploration(ledger, executor, "random")
            ask = search.strategy.ask

            def watch(n, pending=(), ask=ask, name=name):
                seen[name] = torch.get_num_threads()
                return ask(n, pending)

            monkeypatch.setattr(search.strategy, "ask", watch)
            search.run(2, 2, 0, ignore)
    assert seen == {"workers": 1, "none": before}
    assert torch.get_num_threads() == before


def test_a_space_that_runs_out_ends_the_search_and_resumes_as_ended(tmp_path) -> None:
    class Exhausted:
        """Has ten candidates."""

        def __init__(self) -> None:
            space = small_space()
            batch = space.sample(10, np.random.default_rng(0))
            self.candidates = [space.unpack(batch, row) for row in range(10)]
            self.told = 0

        def ask(self, n, pending=()):
            first = self.told + len(pending)
            chosen = self.candidates[first : first + n]
            return [Proposal(first + k, candidate, FIDELITY) for k, candidate in enumerate(chosen)]

        def tell(self, evaluations) -> None:
            self.told += len(evaluations)

    for _ in range(2):
        with Ledger(tmp_path / "ledger.db") as ledger, SerialExecutor(FormulaEvaluator) as executor:
            search = exploration(ledger, executor)
            object.__setattr__(search, "strategy", Exhausted())
            assert len(search.run(EVALUATIONS, 6, 3, ignore)) == 10


def test_failed_call_is_recorded_with_its_reason_and_not_tried_again(tmp_path) -> None:
    class Broken:
        calls = 0

        def evaluate(self, proposal):
            Broken.calls += 1
            raise MemoryError("no room")

    for _ in range(2):
        with Ledger(tmp_path / "ledger.db") as ledger, SerialExecutor(Broken) as executor:
            evaluations = exploration(ledger, executor, "random").run(4, 4, 0, ignore)
            assert [each.reason for each in evaluations] == ["MemoryError: no room"] * 4
    assert Broken.calls == 4


def _returned(tmp_path: Path, answer) -> Evaluation:
    """What the ledger has of an evaluator's answer."""

    class Answers:
        def evaluate(self, proposal):
            return answer(proposal)

    with Ledger(tmp_path / "ledger.db") as ledger, SerialExecutor(Answers) as executor:
        (told,) = exploration(ledger, executor, "random").run(1, 1, 0, ignore)
        (recorded,) = ledger.evaluations()
    assert told == recorded
    return recorded


def test_figures_of_other_libraries_are_recorded_as_numbers(tmp_path) -> None:
    figures = np.float32(90.5), torch.tensor(7.0), np.int64(5), np.array(2.5)
    found = _returned(tmp_path, lambda each: Evaluation(each, "ok", *figures, metrics={"latency": np.float32(1.5)}))
    assert (found.accuracy, found.macs, found.params, found.seconds) == (90.5, 7.0, 5.0, 2.5)
    assert found.metrics == {"latency": 1.5}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            lambda each: Evaluation(each, "ok", float("nan")),
            "the evaluator returned accuracy nan, expected a finite number",
        ),
        (
            lambda each: Evaluation(each, "ok", np.float32("inf")),
            "the evaluator returned accuracy inf, expected a finite number",
        ),
        (lambda each: Evaluation(each, "ok", None), "the evaluator returned accuracy None, expected a finite"),
        (lambda each: Evaluation(each, "ok", "90"), "accuracy '90' of class str, expected a finite number"),
        (
            lambda each: Evaluation(each, "ok", np.ones(2)),
            "accuracy '[1. 1.]' of class ndarray, expected a finite number",
        ),
        (
            lambda each: Evaluation(each, "ok", 9.0, metrics={"ms": None}),
            "metrics['ms'] None, expected a finite number",
        ),
        (
            lambda each: Evaluation(each, "ok", 9.0, metrics={"ms": float("inf")}),
            "metrics['ms'] inf, expected",
        ),
        (lambda each: Evaluation(each, "ok", 9.0, float("nan")), "macs nan, expected a finite"),
        (lambda each: Evaluation(each, "ok", 9.0, metrics=[1.0]), "metrics '[1.0]' of class list, expected a dict"),
        (lambda each: Evaluation(each, "done", 9.0), "status 'done', expected 'ok' or 'failed'"),
        (lambda each: None, "the evaluator returned None, expected a nas.Evaluation"),
        (lambda each: 90.0, "the evaluator returned '90.0' of class float, expected a nas.Evaluation"),
    ],
)
def test_what_is_no_evaluation_is_a_failed_one_that_says_so(answer, reason, tmp_path) -> None:
    found = _returned(tmp_path, answer)
    assert (found.status, found.accuracy) == ("failed", None)
    assert reason in found.reason


def test_known_results_are_not_evaluated_again_in_confirmations(tmp_path, uninterrupted) -> None:
    wanted = [each.proposal for each in uninterrupted[0][:5]]
    heard = []
    with Ledger(tmp_path / "ledger.db") as ledger, SerialExecutor(FormulaEvaluator) as executor:
        recorder = exploration(ledger, executor).recorder
        calls = [evaluation_call(place, each, None) for place, each in enumerate(wanted)]
        for _ in range(2):
            got = recorder.run(wanted, calls, lambda place, evaluation, known: heard.append(known))
            assert got == uninterrupted[0][:5]
    assert heard == [False] * 5 + [True] * 5


@pytest.mark.slow
@pytest.mark.contract
def test_killed_at_random_moments_and_resumed_equals_uninterrupted(tmp_path, uninterrupted) -> None:
    """kill -9 of the whole program, twice, with two worker processes; then it may finish."""
    started = fork_server()
    moments, log = random.Random(0), tmp_path / "begun.log"
    for turn in range(3):
        recorded = _recorded(tmp_path)
        begun_before = len(_lines(log))
        process = started.Process(target=search_doubles.drive, args=(tmp_path, EVALUATIONS))
        process.start()
        if turn < 2:
            goal = begun_before + moments.randint(1, 9)
            while len(_lines(log)) < goal and process.is_alive():
                time.sleep(0.005)
            time.sleep(moments.random() * 0.08)
            process.kill()
        process.join()
        assert process.exitcode == (-signal.SIGKILL if turn < 2 else 0)
        if turn < 2:
            assert not (tmp_path / "finished").exists()
        again = {int(line) for line in _lines(log)[begun_before:]} & recorded
        assert not again, "evaluated although the ledger knew the result"
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert ledger.proposals("search") == uninterrupted[1]
        known = [ledger.find(proposal, FormulaEvaluator.fingerprint) for proposal in uninterrupted[1][:EVALUATIONS]]
    for mine, theirs in zip(known, uninterrupted[0], strict=True):
        assert mine is not None
        assert (mine.proposal, mine.status, mine.accuracy) == (theirs.proposal, theirs.status, theirs.accuracy)


def test_two_workers_are_almost_twice_as_fast_as_one(tmp_path) -> None:
    """What is lost here is lost to the loop, to starts of batches and to their ends."""
    seconds = {}
    for workers in (1, 2):
        executor = TimedExecutor(FormulaEvaluator(), workers)
        with Ledger(tmp_path / f"{workers}.db") as ledger:
            exploration(ledger, executor, "random").run(24, BATCH, AHEAD, ignore)
        seconds[workers] = executor.now
    assert seconds[1] / seconds[2] > 1.6


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def _recorded(folder: Path) -> set[int]:
    """Numbers of the proposals whose results the ledger holds."""
    if not (folder / "ledger.db").exists():
        return set()
    with Ledger(folder / "ledger.db") as ledger:
        return {p.number for p in ledger.proposals("search") if ledger.find(p, FormulaEvaluator.fingerprint)}
