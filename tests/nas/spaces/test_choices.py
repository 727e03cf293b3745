"""A space of named choices without a cell."""

from __future__ import annotations

import numpy as np
import pytest

from gemnet.cell_graph import CellGraph
from nas.spaces import make_space
from nas.spaces.base import Candidate, SpaceError
from nas.spaces.choices import EMPTY_CELL, ChoiceSpace
from nas.spaces.isomorphism import wl_hash

SPACE = ChoiceSpace(
    {"layer1": ["identity", "mb3", "mb6"], "size": ["small", "large"], "kernel": [7, 3, 5]}, ordinal=["size"]
)


def test_all_combinations_are_listed_once_and_told_apart() -> None:
    everything = SPACE.all()
    assert len(everything) == 18
    assert len(set(wl_hash(everything).tolist())) == 18
    for k in range(18):
        SPACE.check(SPACE.unpack(everything, k))
    assert ChoiceSpace({f"layer{k}": [1, 2, 3, 4] for k in range(9)}).all() is None


def test_samples_cover_the_space() -> None:
    drawn = SPACE.sample(500, np.random.default_rng(0))
    assert len(np.unique(drawn.macro, axis=0)) == 18


@pytest.mark.parametrize("edits", [1, 2, 3, 9])
def test_a_child_differs_in_as_many_choices_as_there_were_edits(edits: int) -> None:
    rng = np.random.default_rng(0)
    parents = SPACE.sample(200, rng)
    children = SPACE.mutate(parents, rng, edits)
    assert set((children.macro != parents.macro).sum(axis=1)) == {min(edits, 3)}
    assert ChoiceSpace({"only": [1]}).mutate(ChoiceSpace({"only": [1]}).sample(2, rng), rng).macro.tolist() == [
        [0],
        [0],
    ]


def test_neighbours_are_all_candidates_one_choice_away() -> None:
    own = SPACE.unpack(SPACE.all(), 4)
    near = SPACE.neighbours(own)
    assert len(near) == 2 + 1 + 2
    assert len(np.unique(near.macro, axis=0)) == 5
    assert set((near.macro != SPACE.pack([own]).macro).sum(axis=1)) == {1}


def test_numbers_and_what_is_declared_are_in_order() -> None:
    assert [SPACE.is_ordinal(name) for name in SPACE.macro_choices] == [False, True, True]


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (Candidate(EMPTY_CELL, (("layer1", "mb3"), ("size", "small"))), "'kernel' is missing"),
        (Candidate(EMPTY_CELL, (("layer1", "mb4"), ("size", "small"), ("kernel", 3))), "got 'mb4'"),
        (Candidate(CellGraph(("a",), frozenset({(0, 1), (1, 2)}))), "choices only"),
    ],
)
def test_what_is_not_of_the_space_is_named(candidate: Candidate, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        SPACE.check(candidate)


@pytest.mark.parametrize(
    "options",
    [
        {"choices": {}},
        {"choices": {"a": []}},
        {"choices": {"a": [1, 1]}},
        {"choices": {"a": [1, 1.0]}},
        {"choices": {"a": [0, False]}},
        {"choices": {"a": [1, "1"]}},
        {"choices": {"a": [[1], [2]]}},
        {"choices": {"a": list(range(40_000))}},
        {"choices": {"a": "xy"}},
        {"choices": {"a": [1]}, "ordinal": ["b"]},
    ],
)
def test_senseless_choices_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(SpaceError):
        make_space("choices", **options)
