"""A search ends with its best: known accuracies go in, from a table and from a stub, and one candidate comes out."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gemnet.cell_graph import CellGraph
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.evaluation.score import EfficiencyScore
from nas.evaluation.tabular import TabularEvaluator
from nas.executors import Call, SerialExecutor
from nas.executors.monitor import Monitor
from nas.search import confirm as confirm_module
from nas.search.config import ConfirmOptions, read_config
from nas.search.main import run_search
from nas.search.recorder import LIMIT_SLACK
from nas.search.report.result import Chosen, SearchError, SearchResult
from nas.spaces.base import Candidate
from nas.spaces.limits import Limits, LimitsError

CELLS = [CellGraph(ops, frozenset({(0, 1), (1, 2), (2, 3)})) for ops in product("abcd", repeat=2)]
ACCURACIES = [50.0 + (7 * k) % len(CELLS) for k in range(len(CELLS))]  # all different, 50 to 65
MACS = [1e6 * (1 + k) for k in range(len(CELLS))]
BEST = ACCURACIES.index(max(ACCURACIES))

Answer = Callable[[int, int], float | None]
"""From a cell's number and the training seed to an accuracy; None for a failure."""


def number_of(cell: CellGraph) -> int:
    return next(k for k, each in enumerate(CELLS) if each.canonical_hash() == cell.canonical_hash())


class Run:
    """Searches whose table of 16 cells is evaluated whole, and what was asked of the evaluator.

    Args:
        folder: for the table and the work folder.
        answer: stands in for the table; None asks the table.
        monkeypatch: puts it in.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer | None = None) -> None:
        self.folder, self.asked = folder, list[tuple[int, int]]()
        self.table = folder / "table.csv"
        with open(self.table, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["graph", "accuracy", "macs"])
            writer.writerows(
                [json.dumps(cell.to_json()), accuracy, macs]
                for cell, accuracy, macs in zip(CELLS, ACCURACIES, MACS, strict=True)
            )
        if answer is not None:
            monkeypatch.setattr(TabularEvaluator, "evaluate", lambda _, proposal: self._evaluate(proposal, answer))

    def _evaluate(self, proposal: Proposal, answer: Answer) -> Evaluation:
        cell = number_of(proposal.candidate.cell)
        self.asked.append((cell, proposal.training_seed))
        accuracy = answer(cell, proposal.training_seed)
        if accuracy is None:
            return Evaluation(proposal, "failed", None, macs=MACS[cell], reason="The loss became nan.")
        return Evaluation(proposal, "ok", accuracy, macs=MACS[cell])

    def __call__(self, work: str = "work", resume: bool = False, **changes: Any) -> SearchResult:
        config = {
            "space": {"type": "mine"},
            "strategy": {"type": "random", "initial": 4},
            "evaluator": {"type": "tabular", "path": str(self.table), "accuracy": "accuracy"},
            "fidelity": {"epochs": 1},
            "search": {"evaluations": len(CELLS), "batch": 4, "ahead": 0, "seed": 0},
            "workers": {"count": 0},
            "confirm": {"top": 0},
        }
        return run_search(read_config(config | changes), self.folder / work, resume)


def cell_of(result: SearchResult) -> int:
    return number_of(result.chosen.found.proposal.candidate.cell)


@pytest.mark.parametrize("strategy", ["random", "evolution", "local_search", "structural", "wl_gp"])
def test_the_best_cell_of_a_table_is_chosen(tmp_path, monkeypatch, strategy) -> None:
    result = Run(tmp_path, monkeypatch)(strategy={"type": strategy, "initial": 4})
    assert cell_of(result) == BEST
    assert result.chosen.score == max(ACCURACIES)
    assert len(result.evaluations) == len(CELLS)


def test_the_score_decides_and_not_the_accuracy(tmp_path, monkeypatch) -> None:
    score = {"target_macs": 1e6, "weight": 10.0}
    result = Run(tmp_path, monkeypatch)(score=score)
    scores = np.array(ACCURACIES) - 10 * np.log2(np.array(MACS) / 1e6)
    assert cell_of(result) == int(np.argmax(scores)) != BEST
    assert result.chosen.score == pytest.approx(scores.max())


def test_the_first_of_equals_is_chosen(tmp_path, monkeypatch) -> None:
    result = Run(tmp_path, monkeypatch, lambda cell, seed: 60.0)()
    assert result.chosen.found.proposal.number == 0


def test_the_best_few_are_trained_again_and_fresh_accuracies_alone_decide(tmp_path, monkeypatch) -> None:
    ranked = sorted(range(len(CELLS)), key=lambda k: -ACCURACIES[k])
    fresh = {ranked[0]: (40.0, 50.0), ranked[1]: (70.0, 40.0), ranked[2]: (59.0, 53.0), ranked[3]: (99.0, 99.0)}
    run = Run(tmp_path, monkeypatch, lambda cell, seed: ACCURACIES[cell] if seed == 0 else fresh[cell][seed - 1])
    result = run(confirm={"top": 3, "seeds": 2})
    assert {(cell, seed) for cell, seed in run.asked if seed} == {
        (cell, seed) for cell in ranked[:3] for seed in (1, 2)
    }
    assert cell_of(result) == ranked[2]  # by the mean, 56; not by its best or its first figure
    assert [each.accuracy for each in result.chosen.fresh] == [59.0, 53.0]
    assert result.chosen.score == 56.0


def test_a_confirmation_trains_as_long_as_it_says(tmp_path, monkeypatch) -> None:
    run = Run(tmp_path, monkeypatch, lambda cell, seed: ACCURACIES[cell])
    chosen = run(confirm={"top": 1, "seeds": 2, "epochs": 7}).chosen
    assert [each.proposal.fidelity.epochs for each in (chosen.found, *chosen.fresh)] == [1, 7, 7]


def test_of_equals_in_the_confirmation_the_first_proposed_is_chosen(tmp_path, monkeypatch) -> None:
    run = Run(tmp_path, monkeypatch, lambda cell, seed: ACCURACIES[cell] if seed == 0 else 60.0)
    result = run(confirm={"top": 3, "seeds": 1})
    best = sorted(result.evaluations, key=lambda each: -(each.accuracy or 0))[:3]
    assert result.chosen.found.proposal.number == min(each.proposal.number for each in best)


def test_confirmation_by_score_charges_macs(tmp_path, monkeypatch) -> None:
    run = Run(tmp_path, monkeypatch, lambda cell, seed: 60.0)
    result = run(confirm={"top": len(CELLS), "seeds": 1}, score={"target_macs": 1e6, "weight": 0.1})
    assert cell_of(result) == 0  # the cheapest


def test_failed_candidates_are_neither_chosen_nor_trained_again(tmp_path, monkeypatch) -> None:
    run = Run(tmp_path, monkeypatch, lambda cell, seed: None if cell == BEST else ACCURACIES[cell])
    result = run(confirm={"top": 2, "seeds": 1})
    second = sorted(range(len(CELLS)), key=lambda k: -ACCURACIES[k])[1]
    assert cell_of(result) == second
    assert (BEST, 1) not in run.asked
    assert sum(each.status == "failed" for each in result.evaluations) == 1


def test_one_failure_with_a_fresh_seed_disqualifies(tmp_path, monkeypatch) -> None:
    def answer(cell: int, seed: int) -> float | None:
        return None if (cell, seed) == (BEST, 2) else ACCURACIES[cell]

    result = Run(tmp_path, monkeypatch, answer)(confirm={"top": 3, "seeds": 2})
    assert cell_of(result) == sorted(range(len(CELLS)), key=lambda k: -ACCURACIES[k])[1]


def test_a_search_of_failures_is_an_error_that_says_the_first_reason(tmp_path, monkeypatch) -> None:
    with pytest.raises(SearchError, match=r"All 16 evaluations failed\. The first one: The loss became nan"):
        Run(tmp_path, monkeypatch, lambda cell, seed: None)()


def test_a_confirmation_of_failures_is_an_error(tmp_path, monkeypatch) -> None:
    with pytest.raises(SearchError, match="2 candidates failed"):
        Run(tmp_path, monkeypatch, lambda cell, seed: 50.0 if seed == 0 else None)(confirm={"top": 2, "seeds": 1})


def test_candidates_that_failed_with_one_seed_each_are_no_choice(tmp_path, monkeypatch) -> None:
    with pytest.raises(SearchError, match="2 candidates failed"):
        Run(tmp_path, monkeypatch, lambda cell, seed: None if seed == 2 else 50.0)(confirm={"top": 2, "seeds": 2})


@pytest.mark.parametrize("strategy", ["random", "evolution", "structural"])
def test_a_limit_admits_what_is_equal_to_it_and_nothing_above(tmp_path, monkeypatch, strategy) -> None:
    limit = MACS[BEST]
    run = Run(tmp_path, monkeypatch)
    result = run(limits={"max_macs": limit}, strategy={"type": strategy, "initial": 4})
    assert cell_of(result) == BEST
    assert sorted(each.macs for each in result.evaluations) == [macs for macs in MACS if macs <= limit]


def test_a_limit_below_the_cheapest_is_refused(tmp_path, monkeypatch) -> None:
    with pytest.raises(LimitsError, match="Raise max_macs"):
        Run(tmp_path, monkeypatch)(limits={"max_macs": MACS[0] - 1})
    assert not (tmp_path / "work").exists()


def test_a_search_over_few_of_the_cells_ends_with_the_best_of_these(tmp_path, monkeypatch) -> None:
    result = Run(tmp_path, monkeypatch)(search={"evaluations": 6, "batch": 4, "ahead": 2, "seed": 3})
    assert len(result.evaluations) == 6
    assert result.chosen.found.accuracy == max(each.accuracy for each in result.evaluations)


def test_known_candidates_come_first_and_the_strategy_fills_up_their_batch(tmp_path, monkeypatch) -> None:
    first = [{"cell": CELLS[5].to_json()}, {"cell": CELLS[2].to_json()}, {"cell": CELLS[11].to_json()}]
    search = {"evaluations": 8, "batch": 8, "ahead": 0, "seed": 0, "first": first}
    result = Run(tmp_path, monkeypatch)(search=search)
    cells = [number_of(each.proposal.candidate.cell) for each in result.evaluations]
    assert cells[:3] == [5, 2, 11]
    assert len(set(cells)) == 8
    assert [each.proposal.number for each in result.evaluations] == list(range(8))


def test_earlier_evaluations_within_the_limits_are_the_first_of_a_search(tmp_path, monkeypatch) -> None:
    run = Run(tmp_path, monkeypatch)
    earlier = run("earlier").evaluations
    search = {"evaluations": 8, "batch": 4, "ahead": 0, "seed": 1, "start_from": str(tmp_path / "earlier")}
    result = run(search=search, limits={"max_macs": MACS[7]})
    within = [each.proposal.candidate for each in earlier if (each.macs or 0) <= MACS[7]]
    assert [each.proposal.candidate for each in result.evaluations] == within
    assert [each.proposal.number for each in result.evaluations] == list(range(8))
    assert result.evaluated == 0


def test_a_search_says_how_many_it_evaluated_itself(tmp_path, monkeypatch) -> None:
    run = Run(tmp_path, monkeypatch)
    search = {"batch": 4, "ahead": 0, "seed": 0}
    assert run(search={**search, "evaluations": 8}).evaluated == 8
    assert run(resume=True, search={**search, "evaluations": 12}).evaluated == 4
    assert run(resume=True, search={**search, "evaluations": 12}).evaluated == 0


def test_every_evaluation_has_the_time_limit(tmp_path, monkeypatch) -> None:
    calls, submit = list[Call](), SerialExecutor.submit

    def heard(self: SerialExecutor, call: Call) -> None:
        calls.append(call)
        submit(self, call)

    monkeypatch.setattr(SerialExecutor, "submit", heard)
    Run(tmp_path, monkeypatch, lambda cell, seed: ACCURACIES[cell])(time_limit=5.0, confirm={"top": 2, "seeds": 1})
    assert [call.time_limit for call in calls] == [5.0 + LIMIT_SLACK] * (len(CELLS) + 2)


class Confirmed:
    """`confirm` alone, on evaluations that are given.

    Args:
        folder: takes what was measured.
        score: by which is chosen.
        limits: what networks may cost.
        measured: milliseconds by number; None where time is no matter.
    """

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        score: EfficiencyScore | None = None,
        limits: Limits | None = None,
        measured: dict[int, float] | None = None,
    ) -> None:
        self.folder = SimpleNamespace(finalists=folder / "finalists.json", log=folder / "search.log")
        self.score, self.limits, self.timed = score or EfficiencyScore(), limits or Limits(), measured is not None
        self.measured = list[int]()

        def measure(ready: Any, monitor: Monitor, evaluation: Evaluation, limit: float) -> float:
            assert measured is not None
            self.measured.append(evaluation.proposal.number)
            return measured[evaluation.proposal.number]

        monkeypatch.setattr(confirm_module, "_measured", measure)

    def run(self, proposals: list[Proposal], calls: list[Call], on_result: Any) -> list[Evaluation]:
        """Stands for a recorder whose every fresh training comes to 60 %, and estimates 1 ms."""
        return [Evaluation(each, "ok", 60.0, metrics={"latency": 1.0}) for each in proposals]

    def __call__(self, evaluations: list[Evaluation], **options: int) -> Chosen:
        def score(evaluation: Evaluation) -> float:
            return float(np.nan_to_num(self.score.of(evaluation), nan=-np.inf))

        config = SimpleNamespace(
            confirm=ConfirmOptions(**options), fidelity=Fidelity(5), time_limit=None, limits=self.limits
        )
        latency = object() if self.timed else None
        ready: Any = SimpleNamespace(config=config, score=score, latency=latency, measures_latency=self.timed)
        folder: Any = self.folder
        recorder: Any = self
        return confirm_module.confirm(ready, folder, recorder, Monitor(), evaluations)


def evaluated(number: int, accuracy: float | None, epochs: int = 5) -> Evaluation:
    proposal = Proposal(number, Candidate(CELLS[number]), Fidelity(epochs))
    return Evaluation(proposal, "failed" if accuracy is None else "ok", accuracy, metrics={"latency": 1.0})


def test_a_cheap_evaluation_is_chosen_only_where_every_real_one_failed(tmp_path, monkeypatch) -> None:
    confirmed = Confirmed(tmp_path, monkeypatch)
    cheap = [evaluated(0, 90.0, epochs=1), evaluated(1, 95.0, epochs=1)]
    real = [evaluated(2, 60.0), evaluated(3, None), evaluated(4, 70.0)]
    assert confirmed([*cheap, *real], top=0).found.proposal.number == 4
    assert confirmed([*cheap, *real], top=4, seeds=1).found.proposal.number == 2  # of equals the first real one
    assert confirmed([*cheap, evaluated(2, None)], top=0).found.proposal.number == 1


def test_as_many_are_trained_again_as_keep_the_limit_on_latency_when_measured(tmp_path, monkeypatch) -> None:
    measured = {0: 0.5, 1: 0.5, 2: 2.0, 3: 2.001, 4: 1.0}
    confirmed = Confirmed(tmp_path, monkeypatch, limits=Limits(max_latency=2.0), measured=measured)
    best_last = [evaluated(number, 50.0 + number) for number in range(5)]
    chosen = confirmed(best_last, top=2, seeds=1)
    assert confirmed.measured == [4, 3, 2]  # and not those that aren't needed
    assert json.loads((tmp_path / "finalists.json").read_text()) == {"milliseconds": {"4": 1.0, "3": 2.001, "2": 2.0}}
    assert (chosen.found.proposal.number, chosen.latency) == (2, 2.0)  # what is equal to the limit keeps it
    confirmed(best_last, top=3, seeds=1)
    assert confirmed.measured == [4, 3, 2, 1]


def test_where_time_is_charged_it_is_that_measured_and_not_that_estimated(tmp_path, monkeypatch) -> None:
    score = EfficiencyScore(weight=10.0, cost="latency", target_latency=1.0)
    found = [evaluated(0, 60.0), evaluated(1, 61.0), evaluated(2, 62.0)]
    confirmed = Confirmed(tmp_path, monkeypatch, score, measured={0: 2.0, 1: 0.5, 2: 4.0})
    chosen = confirmed(found, top=3, seeds=2)
    assert (chosen.found.proposal.number, chosen.score) == (1, 70.0)
    assert confirmed(found, top=0).score == 42.0
