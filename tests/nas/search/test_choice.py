"""A search ends with its best: known accuracies go in, from a table and from a stub, and one candidate comes out."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemnet.cell_graph import CellGraph
from nas.evaluation.records import Evaluation, Proposal
from nas.evaluation.tabular import TabularEvaluator
from nas.search.config import read_config
from nas.search.main import run_search
from nas.search.report.result import SearchError, SearchResult
from nas.spaces.limits import LimitsError

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

    def __call__(self, **changes: Any) -> SearchResult:
        config = {
            "space": {"type": "mine"},
            "strategy": {"type": "random", "initial": 4},
            "evaluator": {"type": "tabular", "path": str(self.table), "accuracy": "accuracy"},
            "fidelity": {"epochs": 1},
            "search": {"evaluations": len(CELLS), "batch": 4, "ahead": 0, "seed": 0},
            "workers": {"count": 0},
            "confirm": {"top": 0},
        }
        return run_search(read_config(config | changes), self.folder / "work")


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
