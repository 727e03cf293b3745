"""Controls: was it the search that found the network, and does the wiring of its cell matter?

Random cells of the same cost say what one gets without a search. Cells with the same operations, the same number of
edges and the same cost but other wiring say what the wiring is worth.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gemnet.cell_graph import CellGraph
from gemnet.errors import GemnetError
from gemnet.genome import Genome
from gemnet.macs import macs
from gemnet.sources import Images
from nas.spaces.gemnet import GEMNetSpace

WITHIN = 0.02
"""Controls cost what the reference costs, give or take this share."""
SAMPLES, ROUNDS = 4_000, 50
"""Random candidates drawn at a time, and how often at most."""
REWIRINGS = 2_000
"""Rewirings tried at most."""
MOVES = 30
"""Edges moved in a rewiring, for each edge there is: the graph it began with is forgotten."""


class ControlError(GemnetError):
    """Controls that don't exist in the number asked for."""


def random_cells(space: GEMNetSpace, target: float, count: int, seed: int) -> list[Genome]:
    """Networks of random candidates whose MACs are the reference's within 2 %, no two alike.

    Args:
        space: where from; its MACs are counted at the images of the comparison.
        target: the reference's MACs.
        count: how many.
        seed: draws them.

    Raises:
        ControlError: too few of 200,000 samples cost that.
    """
    rng = np.random.default_rng([seed, 0xC011])
    found: dict[str, Genome] = {}
    for _ in range(ROUNDS):
        batch = space.sample(SAMPLES, rng)
        for index in np.flatnonzero(np.abs(space.macs(batch) / target - 1) <= WITHIN).tolist():
            genome = space.genome(space.unpack(batch, index), origin="random cell")
            found.setdefault(genome.fingerprint, genome)
            if len(found) == count:
                return list(found.values())
    raise ControlError(
        f"Only {len(found)} of {SAMPLES * ROUNDS:,} random cells cost {target:,.0f} MACs within {WITHIN:.0%}; {count} "
        "are wanted. Check that space.form and space.size are those the reference was searched in."
    )


def rewired_cells(genome: Genome, images: Images, count: int, seed: int) -> list[Genome]:
    """The network with its cells rewired at random: same operations, same number of edges, same MACs within 2 %.

    Args:
        genome: the reference.
        images: what MACs are counted at.
        count: how many, no two alike and none like the reference; fewer where a small cell has no more.
        seed: draws them.

    Raises:
        ControlError: there are none.
    """
    rng = np.random.default_rng([seed, 0x3E31])

    def cost(genome: Genome) -> int:
        return macs(genome, images.side, images.classes, images.channels)

    target = cost(genome)
    seen, found = {genome.fingerprint}, []
    for _ in range(REWIRINGS):
        cells = {name: replace(spec, graph=rewire(spec.graph, rng)) for name, spec in genome.cells.items()}
        other = genome.replace(cells=cells, origin=f"{genome.name or 'a network'}, rewired at random")
        if other.fingerprint in seen:
            continue
        seen.add(other.fingerprint)
        if abs(cost(other) / target - 1) <= WITHIN:
            found.append(other)
            if len(found) == count:
                return found
    if not found:
        raise ControlError(
            f"No rewiring of {genome.name or 'the reference'} differs from it: its cell has too few nodes. Leave the "
            "entry out."
        )
    return found


def rewire(graph: CellGraph, rng: np.random.Generator) -> CellGraph:
    """A random graph with the same operations and number of edges and without dead nodes.

    Operations are dealt out anew; then edges are moved one by one to random places, wherever no node dies by it. A move
    is as likely as its reverse, so each wiring that can be reached becomes equally likely (Metropolis et al., 1953).

    Args:
        graph: a graph without dead nodes.
        rng: source of the randomness.
    """
    last = graph.size - 1
    edges = sorted(graph.edges)
    present = set(edges)
    reads, is_read = [0] * graph.size, [0] * graph.size
    for source, target in edges:
        is_read[source] += 1
        reads[target] += 1
    moves = MOVES * len(edges)
    places = rng.integers(0, len(edges), moves)
    ends = rng.integers(0, [[last + 1], [last]], (2, moves))
    ends[1] += ends[1] >= ends[0]  # two different nodes
    for place, source, target in zip(places.tolist(), *np.sort(ends, axis=0).tolist(), strict=True):
        old_source, old_target = edges[place]
        if (source, target) in present or is_read[old_source] + (source == old_source) == 1:
            continue
        if reads[old_target] + (target == old_target) == 1:
            continue
        present.remove((old_source, old_target))
        present.add((source, target))
        edges[place] = (source, target)
        is_read[old_source] -= 1
        reads[old_target] -= 1
        is_read[source] += 1
        reads[target] += 1
    ops = [graph.ops[k] for k in rng.permutation(len(graph.ops))]
    return CellGraph(tuple(ops), frozenset(present))
