"""What other libraries search with, behind our ask and tell."""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import pytest

from gemnet.runtimes.packages import MissingPackageError, is_installed
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.spaces import make_space
from nas.spaces.base import SearchSpace, SpaceError
from nas.spaces.choices import ChoiceSpace
from nas.strategies import OF_LIBRARIES, HistoryStrategy, make_strategy
from nas.tables.space import TableSpace

PACKAGES = {"tpe": "optuna", "botorch": "botorch", "smac": "smac"}
QUICK: dict[str, dict[str, object]] = {"botorch": {"pool_size": 400}, "smac": {"pool_size": 400}}
FIDELITY = Fidelity(epochs=1)
OPS = ("identity", "mb3", "mb6")
LISTED = ChoiceSpace({**{f"layer{k}": OPS for k in range(5)}, "width": (8, 16, 32)})
ENDLESS = ChoiceSpace({f"layer{k}": OPS for k in range(20)})
PART = TableSpace("part", LISTED.all().take(np.arange(0, len(LISTED.all()), 2)), LISTED)
SPACES: dict[str, SearchSpace] = {"listed": LISTED, "part of a space": PART, "endless": ENDLESS}


SLOW = {each: [pytest.mark.slow, pytest.mark.contract] for each in ("botorch", "smac")}  # a minute of fitting each


@pytest.fixture(params=[pytest.param(each, marks=SLOW.get(each, [])) for each in sorted(OF_LIBRARIES)])
def name(request: pytest.FixtureRequest) -> str:
    if not is_installed(PACKAGES[request.param]):
        pytest.skip("pip install -e '.[rivals]'")
    return request.param


def worth(proposal: Proposal) -> float:
    macro = dict(proposal.candidate.macro)
    layers = [OPS.index(value) for key, value in macro.items() if key.startswith("layer")]
    return sum(layer * (1 + k / 10) for k, layer in enumerate(layers)) + macro.get("width", 0) / 16


def build(name: str, space: SearchSpace, seed: int = 0) -> HistoryStrategy:
    return make_strategy(name, space, seed, fidelity=FIDELITY, initial=6, **QUICK.get(name, {}))


def run(strategy: HistoryStrategy, queries: int) -> list[Evaluation]:
    done: list[Evaluation] = []
    while len(done) < queries:
        evaluations = [Evaluation(proposal, "ok", worth(proposal)) for proposal in strategy.ask(6)]
        strategy.tell(evaluations)
        done += evaluations
    return done


@cache
def whole(name: str, space: str) -> list[Evaluation]:
    """A short search, once for all that look at it."""
    return run(build(name, SPACES[space]), 30)


@pytest.mark.parametrize("space", SPACES)
def test_finds_better_than_random_search_does(name: str, space: str) -> None:
    found, drawn = ([e.accuracy or 0.0 for e in whole(each, space)[12:]] for each in (name, "random"))
    assert np.mean(found) > np.mean(drawn)


@pytest.mark.parametrize("space", SPACES)
def test_proposals_are_new_valid_and_numbered_without_gaps(name: str, space: str) -> None:
    done = whole(name, space)
    assert [e.proposal.number for e in done] == list(range(30))
    assert len({e.proposal.candidate.key() for e in done}) == 30
    for evaluation in done:
        SPACES[space].check(evaluation.proposal.candidate)


def test_resumed_search_proposes_what_an_uninterrupted_one_would(name: str) -> None:
    whole = build(name, LISTED)
    done = run(whole, 12)
    resumed = build(name, LISTED)
    resumed.tell(done)
    assert resumed.ask(4) == whole.ask(4)


def test_candidates_under_way_are_not_proposed_again(name: str) -> None:
    strategy = build(name, LISTED)
    run(strategy, 6)
    first = strategy.ask(3)
    second = strategy.ask(3, first)
    assert not {p.candidate.key() for p in first} & {p.candidate.key() for p in second}


def test_a_small_space_is_searched_to_its_end(name: str) -> None:
    space = ChoiceSpace({"a": (1, 2, 3), "b": ("x", "y")})
    strategy = make_strategy(name, space, 0, fidelity=FIDELITY, initial=3)
    found = []
    while proposals := strategy.ask(2):
        strategy.tell([Evaluation(p, "ok", float(len(found))) for p in proposals])
        found += proposals
    assert len({p.candidate.key() for p in found}) == 6


def test_cells_that_are_no_choices_are_refused(name: str) -> None:
    with pytest.raises(SpaceError, match="choices"):
        build(name, make_space("gemnet"))


@pytest.mark.parametrize("strategy", sorted(OF_LIBRARIES))
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[strategy], None)
    with pytest.raises(MissingPackageError, match=rf"{PACKAGES[strategy]}.*gemnet\[rivals\]"):
        build(strategy, LISTED)
