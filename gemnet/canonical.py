"""Canonical order of a labelled DAG: individualisation and refinement with automorphism pruning.

Colour refinement alone (Weisfeiler and Lehman) does not tell every pair of graphs apart, so the search below follows
McKay's scheme (McKay and Piperno, "Practical graph isomorphism II", 2014) in its plainest form: refine, pick the
first class with more than one node, try each of its nodes as "first", refine again; the smallest adjacency among all
leaves is the canonical form. Two leaves with the same adjacency are an automorphism, and its orbits spare the search
every branch that could only repeat what is known, which is what keeps highly symmetric graphs (ten equal branches
side by side) polynomial in practice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def canonical_order(labels: Sequence[str], successors: Sequence[int]) -> list[int]:
    """The nodes in canonical order, which is also a topological order.

    Args:
        labels: label of every node.
        successors: bit mask of every node's successors; node numbers are a topological order.

    Returns:
        A permutation of the nodes. Applying it to isomorphic graphs gives equal labels and edges.
    """
    n = len(labels)
    predecessors = [0] * n
    for i, mask in enumerate(successors):
        for j in range(i + 1, n):
            if mask >> j & 1:
                predecessors[j] |= 1 << i
    search = _Search(n, list(successors), predecessors)
    search.run(_ranks(_initial_keys(labels, predecessors, n)))
    assert search.best_order is not None
    return search.best_order


def _initial_keys(labels: Sequence[str], predecessors: list[int], n: int) -> list[tuple[int, int, str]]:
    # Depth first: sorting by the longest path from a source makes every colour order a topological order. The output
    # goes last even where it reads nothing, so that it keeps its number.
    depth = [0] * n
    for j in range(n):
        for i in range(j):
            if predecessors[j] >> i & 1:
                depth[j] = max(depth[j], depth[i] + 1)
    return [((0 if v == 0 else 2 if v == n - 1 else 1), depth[v], labels[v]) for v in range(n)]


def _ranks(keys: Sequence[tuple[Any, ...]]) -> list[int]:
    """Colour of every node: how many nodes have a smaller key (so classes keep room for splitting)."""
    order = sorted(range(len(keys)), key=keys.__getitem__)
    ranks = [0] * len(keys)
    for place, v in enumerate(order):
        ranks[v] = ranks[order[place - 1]] if place and keys[v] == keys[order[place - 1]] else place
    return ranks


class _Search:
    def __init__(self, n: int, successors: list[int], predecessors: list[int]) -> None:
        self.n = n
        self.out = [[j for j in range(n) if mask >> j & 1] for mask in successors]
        self.into = [[i for i in range(n) if mask >> i & 1] for mask in predecessors]
        self.best: list[int] | None = None
        self.best_order: list[int] | None = None
        self.best_fixed: list[int] = []
        self.automorphisms: list[list[int]] = []

    def run(self, colours: list[int]) -> None:
        self._descend(self._refine(colours), [])

    def _refine(self, colours: list[int]) -> list[int]:
        classes = len(set(colours))
        while True:
            keys = [
                (
                    colours[v],
                    sorted(colours[u] for u in self.into[v]),
                    sorted(colours[u] for u in self.out[v]),
                )
                for v in range(self.n)
            ]
            colours = _ranks(keys)
            now = len(set(colours))
            if now == classes:
                return colours
            classes = now

    def _descend(self, colours: list[int], fixed: list[int]) -> int:
        """Searches below ``fixed``; returns the depth at which the search goes on."""
        members: dict[int, list[int]] = {}
        for v, colour in enumerate(colours):
            members.setdefault(colour, []).append(v)
        target = next((members[c] for c in sorted(members) if len(members[c]) > 1), None)
        depth = len(fixed)
        if target is None:
            return self._leaf(sorted(range(self.n), key=colours.__getitem__), fixed)
        tried: list[int] = []
        for v in target:
            if tried and v in self._orbits(tried, fixed):
                continue
            tried.append(v)
            # The chosen node keeps the class's rank, the others step behind it.
            split = [c + 1 if c == colours[v] and u != v else c for u, c in enumerate(colours)]
            resume = self._descend(self._refine(split), [*fixed, v])
            if resume < depth:
                return resume
        return depth

    def _orbits(self, seeds: list[int], fixed: list[int]) -> set[int]:
        """Nodes that known automorphisms, among those that hold ``fixed`` still, carry a seed to."""
        usable = [a for a in self.automorphisms if all(a[v] == v for v in fixed)]
        reached, frontier = set(seeds), list(seeds)
        while frontier:
            v = frontier.pop()
            for a in usable:
                if a[v] not in reached:
                    reached.add(a[v])
                    frontier.append(a[v])
        return reached

    def _leaf(self, order: list[int], fixed: list[int]) -> int:
        position = [0] * self.n
        for place, v in enumerate(order):
            position[v] = place
        form = [sum(1 << position[j] for j in self.out[v]) for v in order]
        if self.best is None or form < self.best:
            self.best, self.best_order, self.best_fixed = form, order, fixed
        elif form == self.best:
            assert self.best_order is not None
            there, back = [0] * self.n, [0] * self.n
            for a, b in zip(self.best_order, order, strict=True):
                there[a], back[b] = b, a
            self.automorphisms += [there, back]
            # All below the fork that leads to the best leaf is a mirror image of what was searched there.
            return next((k for k, (u, v) in enumerate(zip(fixed, self.best_fixed, strict=False)) if u != v), len(fixed))
        return len(fixed)
