"""Isomorphic copies of a graph, for tests of what must not depend on the numbering."""

from __future__ import annotations

import numpy as np

from gemnet.cell_graph import CellGraph


def renumbered(graph: CellGraph, rng: np.random.Generator) -> CellGraph:
    """The same graph with its nodes in another topological order."""
    order, waiting = [0], set(range(1, graph.size - 1))
    while waiting:
        ready = [v for v in sorted(waiting) if not set(graph.predecessors(v)) & waiting]
        order.append(int(rng.choice(ready)))
        waiting.remove(order[-1])
    order.append(graph.size - 1)
    place = {v: k for k, v in enumerate(order)}
    return CellGraph(
        tuple(graph.labels[v] for v in order[1:-1]), frozenset((place[i], place[j]) for i, j in graph.edges)
    )
