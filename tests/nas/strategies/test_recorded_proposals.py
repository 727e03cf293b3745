"""Strategies propose what they proposed before they were rebuilt: work folders of then go on alike.

``recorded_proposals.json`` holds, for each search below, a digest of every batch. It was written before
`Nasgem.rank` was put together from parts, by ``python tests/nas/strategies/test_recorded_proposals.py``; a change that
is meant to change proposals writes it anew and says so. Searches that see structural features were written anew when
skips became a group of them; those in the GEMNet space, and the trees', when copies of the input were left out of cells
and trees were given less of the skips; the one with an embedding when the packaged encoders were trained anew;
those in the GEMNet space once more when weights of means came to be written in one way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.evaluation.score import EfficiencyScore
from nas.spaces.base import Candidate, SearchSpace
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import Limits
from nas.spaces.nasbench101 import NASBench101
from nas.spaces.nasbench201 import NASBench201
from nas.strategies import HistoryStrategy, make_strategy

RECORDED = Path(__file__).with_name("recorded_proposals.json")
FIDELITY = Fidelity(epochs=200)
SPACES: dict[str, Callable[[], SearchSpace]] = {
    "nasbench201": NASBench201,
    "nasbench101": NASBench101,
    "gemnet": cache(lambda: GEMNetSpace(form="cifar", size="a", max_nodes=8)),
    "gemnet of 30 nodes": cache(lambda: GEMNetSpace(form="cifar", size="a")),
}


@dataclass(frozen=True)
class Search:
    """A strategy in a space, ``told`` random evaluations first, then ``batches`` of five."""

    strategy: str
    space: str
    options: dict[str, Any] = field(default_factory=dict)
    told: int = 0
    batches: int = 5
    fail_every: int = 0


def _edges(candidates: Sequence[Candidate], fidelity: Fidelity) -> np.ndarray:
    return np.array([[len(each.cell.edges)] for each in candidates], dtype=np.float32)


PLAIN = {"encoder": None}
SMALL = {"encoder": None, "pool_size": 300}
SEARCHES = {
    "listed": Search("nasgem", "nasbench201", PLAIN, batches=3),
    "listed, failures": Search("nasgem", "nasbench201", PLAIN, fail_every=4, batches=3),
    "listed, forests": Search("nasgem", "nasbench201", {**PLAIN, "boosters": 1, "pool_size": 2000}, batches=3),
    "listed, best few": Search("nasgem", "nasbench201", {**PLAIN, "spread": False, "beta": 1.0}, batches=2),
    "listed, limits": Search("nasgem", "nasbench201", {**PLAIN, "limits": Limits(max_params=0.4e6)}, batches=2),
    "listed, two objectives": Search("nasgem", "nasbench201", {**PLAIN, "cost": "size"}, batches=3),
    "listed, cheap first": Search("nasgem", "nasbench201", {**PLAIN, "cheap_epochs": 12, "cheap": 15}, batches=5),
    "listed, 300 told": Search("nasgem", "nasbench201", PLAIN, told=300, batches=2),
    "sampled": Search("nasgem", "gemnet", SMALL, fail_every=6, batches=4),
    "sampled, signals": Search("nasgem", "gemnet", {**SMALL, "measure": _edges, "signals": 20}, batches=3),
    "sampled, weighed": Search(
        "nasgem", "gemnet", {**SMALL, "score": EfficiencyScore(target_macs=5e6, weight=2.0)}, batches=3
    ),
    "sampled, 300 told": Search("nasgem", "gemnet", {**SMALL, "initial": 4}, told=300, batches=2),
    "embedded": Search("nasgem", "gemnet of 30 nodes", {"pool_size": 200}, told=20, batches=2),
    "trees, listed": Search("structural", "nasbench201", {"trees": 20}, batches=3),
    "trees, sampled": Search("structural", "gemnet", {"trees": 20, "pool_size": 300}, fail_every=5),
    "WL process, listed": Search("wl_gp", "nasbench201", fail_every=5, batches=3),
    # A fourth batch is another one on another processor: the likelihood is flat, and where its ascent ends differs.
    "WL process, sampled": Search("wl_gp", "nasbench101", {"pool_size": 300}, batches=3),
    "bananas": Search("bananas", "gemnet", {"epochs": 20, "mutations": 40}, batches=3),
    "evolution": Search("evolution", "gemnet", {"cost": "size"}, batches=8),
    "local search": Search("local_search", "nasbench201", batches=8, fail_every=5),
}


def proposed(search: Search) -> list[str]:
    """A digest of each batch of a search."""
    space = SPACES[search.space]()
    strategy = make_strategy(search.strategy, space, 7, **{"fidelity": FIDELITY, **search.options})
    if search.told:
        batch = space.sample(search.told, np.random.default_rng(3))
        told = [Proposal(k, space.unpack(batch, k), FIDELITY) for k in range(search.told)]
        strategy.tell([_evaluate(proposal, space, search) for proposal in told])
    digests = []
    for number in range(search.batches):
        asked = strategy.ask(5)
        ahead = strategy.ask(3, pending=asked) if number % 2 else []
        digests.append(_digest(strategy, [*asked, *ahead]))
        strategy.tell([_evaluate(proposal, space, search) for proposal in [*asked, *ahead]])
    return digests


def _evaluate(proposal: Proposal, space: SearchSpace, search: Search) -> Evaluation:
    if search.fail_every and proposal.number % search.fail_every == 1:
        return Evaluation(proposal, "failed", None, reason="NaN loss")
    cell, macro = proposal.candidate.cell, proposal.candidate.macro
    gain = sum(("3x3" in op) * (2 + k % 3) for k, op in enumerate(cell.ops)) - len(cell.edges) ** 2 / 40
    gain += sum(len(str(value)) for _, value in macro) + proposal.number * 7919 % 101 / 100
    packed = space.pack([proposal.candidate])
    macs, params = space.macs(packed), space.params(packed)
    size = float(len(cell.edges)) if params is None else float(params[0])
    return Evaluation(proposal, "ok", 60 + gain, macs=None if macs is None else float(macs[0]), metrics={"size": size})


def _digest(strategy: HistoryStrategy, proposals: Sequence[Proposal]) -> str:
    keys = [(proposal.number, proposal.fidelity.epochs, proposal.candidate.key()) for proposal in proposals]
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", SEARCHES)
def test_proposals_are_those_of_before(name: str) -> None:
    assert proposed(SEARCHES[name]) == json.loads(RECORDED.read_text(encoding="utf-8"))[name]


if __name__ == "__main__":
    found = {name: proposed(search) for name, search in SEARCHES.items()}
    RECORDED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
