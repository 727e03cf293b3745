"""What a search begins with: known candidates, evaluated first, before random ones fill up their batch."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import pytest

from gemnet.strict import ConfigError
from nas.evaluation.ledger import Ledger
from nas.evaluation.records import Evaluation, Proposal
from nas.executors.monitor import Monitor
from nas.search.begin import BeginningError, first_candidates, fitting
from nas.search.config import SearchConfig, read_config
from nas.search.main import run_search
from nas.search.parts import build_parts
from nas.spaces.base import Candidate

MACRO = {"width": 1.0, "inner_ratio": 2, "se_ratio": 0.0, "activation": "relu"}
SETTINGS: dict[str, Any] = {
    "space": {"type": "gemnet", "stage_widths": [8, 8, 8], "stage_depths": [1, 1, 1]},
    "strategy": {"type": "random", "initial": 4},
    "evaluator": {"type": "training"},
    "data": {"source": "digits", "dev_fraction": 0.5},
    "recipe": {"batch_size": 64},
    "fidelity": {"epochs": 1},
    "limits": {"max_macs": 1e6},
    "search": {"evaluations": 4, "batch": 2, "ahead": 0},
    "workers": {"count": 0},
    "confirm": {"top": 0},
    "final": None,
    "comparison": None,
}


def known(op: str, **macro: Any) -> dict[str, Any]:
    return {"cell": {"ops": [op], "edges": [[0, 1], [1, 2]]}, "macro": {**MACRO, **macro}}


def search(*first: dict[str, Any], **options: Any) -> SearchConfig:
    settings = copy.deepcopy(SETTINGS)
    settings["search"] |= {"first": list(first), **options}
    return read_config(settings)


def test_known_candidates_are_evaluated_first_and_random_ones_fill_up_their_batch(tmp_path) -> None:
    first = [known("dw3x3_bn_act"), known("conv3x3_bn_act"), known("dw5x5_bn_act", se_ratio=0.25)]
    run_search(search(*first), tmp_path / "work")
    with Ledger(tmp_path / "work" / "ledger.db") as ledger:
        evaluations = sorted(ledger.evaluations(), key=lambda each: each.proposal.number)
    assert [each.proposal.candidate.cell.ops for each in evaluations[:3]] == [
        ("dw3x3_bn_act",),
        ("conv3x3_bn_act",),
        ("dw5x5_bn_act",),
    ]
    assert dict(evaluations[2].proposal.candidate.macro)["se_ratio"] == 0.25
    assert len({each.proposal.candidate.key() for each in evaluations}) == 4


def test_known_candidates_that_fill_their_batches_are_followed_by_the_strategy(tmp_path) -> None:
    config = search(known("dw3x3_bn_act"), known("dw5x5_bn_act"))
    run_search(config, tmp_path / "work")
    identity = json.loads((tmp_path / "work" / "search.json").read_text())
    with Ledger(tmp_path / "work" / "ledger.db") as ledger:
        assert len(ledger.proposals(identity["search_id"])) == 4


def test_every_strategy_begins_with_the_same_candidates(tmp_path) -> None:
    begun = []
    for strategy in ("random", "evolution"):
        config = search(known("dw3x3_bn_act"))
        settings = {**config.to_dict(), "strategy": {"type": strategy, "initial": 4}}
        run_search(read_config(settings), tmp_path / strategy)
        with Ledger(tmp_path / strategy / "ledger.db") as ledger:
            evaluations = sorted(ledger.evaluations(), key=lambda each: each.proposal.number)
        begun.append([each.proposal.candidate.key() for each in evaluations])
    assert begun[0] == begun[1]


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ({"macro": MACRO}, r"search.first\[1\] has no 'cell'"),
        (known("dw3x3_bn_act", width=0.3), r"search.first\[1\].*'width' is one of"),
        (known("dw7x7_bn"), r"search.first\[1\].*dw7x7_bn"),
        (known("conv3x3_bn_act", inner_ratio=6, width=1.5), r"search.first\[1\] has .* MACs: more than limits"),
        (known("conv1x1_bn_act"), r"search.first\[1\] is a network that search.first already has"),
    ],
)
def test_a_known_candidate_that_does_not_fit_is_named_by_its_place(first: dict[str, Any], message: str) -> None:
    config = search(known("conv1x1_bn_act"), first)
    with pytest.raises(BeginningError, match=message):
        first_candidates(config, build_parts(config)[0])


class Heard(Monitor):
    """Keeps the notes of a search."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def opened(op: str, *choices: str) -> dict[str, Any]:
    """A known candidate that leaves choices open."""
    candidate = known(op)
    return {**candidate, "macro": {name: value for name, value in candidate["macro"].items() if name not in choices}}


def test_a_choice_left_open_is_as_large_as_the_limits_admit() -> None:
    config = search(opened("conv3x3_bn_act", "width"), opened("dw3x3_bn_act", "width", "inner_ratio"))
    space = build_parts(config)[0]
    found = first_candidates(config, space)
    macs = space.macs(space.pack(found))
    assert (macs <= 1e6).all()
    for candidate, names, cost in zip(found, (["width"], ["width", "inner_ratio"]), macs, strict=True):
        choices = [space.macro_choices[name] for name in names]
        others = [
            Candidate(candidate.cell, tuple((dict(candidate.macro) | dict(zip(names, values, strict=True))).items()))
            for values in itertools.product(*choices)
        ]
        costs = space.macs(space.pack(others))
        assert cost == costs[costs <= 1e6].max()


def test_what_fits_at_no_value_is_left_out_and_said(tmp_path) -> None:
    settings = copy.deepcopy(SETTINGS)
    settings["limits"] = {"max_macs": 0.1e6}
    settings["search"] |= {"first": [opened("dw3x3_bn_act", "width"), opened("conv3x3_bn_act", "width")]}
    config = read_config(settings)
    heard = Heard()
    run_search(config, tmp_path / "work", monitor=heard)
    assert [each.cell.ops for each in first_candidates(config, build_parts(config)[0])] == [("dw3x3_bn_act",)]
    assert any("Begins with 1 known candidates. 1 more are over the limits" in note for note in heard.notes)


def test_where_nothing_fits_the_limits_are_to_be_raised() -> None:
    settings = copy.deepcopy(SETTINGS)
    settings["limits"] = {"max_macs": 1e3}
    settings["search"] |= {"first": [opened("dw3x3_bn_act", "width")]}
    config = read_config(settings)
    with pytest.raises(BeginningError, match=r"None of the 1 candidates of search\.first is within the limits"):
        first_candidates(config, build_parts(config)[0])


def test_two_beginnings_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="both say how the search begins"):
        search(known("dw3x3_bn_act"), start_from="elsewhere")


def test_earlier_evaluations_of_another_space_are_left_out() -> None:
    settings = copy.deepcopy(SETTINGS)
    settings["space"] |= {"max_nodes": 3, "choices": {"width": [1.0], "se_ratio": [0.0]}}
    config = read_config(settings)
    chain = {"ops": ["dw3x3_bn_act"] * 4, "edges": [[k, k + 1] for k in range(5)]}
    candidates = [
        known("dw3x3_bn_act"),
        known("dw5x5_bn_act", width=1.25),
        known("dw5x5_bn_act", depth=2),
        known("nonsense"),
        {"cell": chain, "macro": MACRO},
        known("dw5x5_bn_act"),
    ]
    records = [
        (Evaluation(Proposal(k, Candidate.from_json(each), config.fidelity), "ok", 50.0), "e")
        for k, each in enumerate(candidates)
    ]
    taken = fitting(records, config, build_parts(config)[0], "e")
    assert [each.proposal.number for each in taken] == [0, 5]
