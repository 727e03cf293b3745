"""Several cells that lie side by side in a graph, taken apart again."""

from __future__ import annotations

from gemnet.cell_graph import CellGraph
from nas.spaces.several_cells import MARK, operation_of


def split_cells(graph: CellGraph) -> dict[str, CellGraph]:
    """What `nas.spaces.several_cells.join_cells` joined; a cell without operations is missing."""
    found: dict[str, list[int]] = {}
    for node, label in enumerate(graph.ops, start=1):
        found.setdefault(label.partition(MARK)[0], []).append(node)
    cells = {}
    for name, nodes in found.items():
        place = {0: 0, len(graph.ops) + 1: len(nodes) + 1} | {node: k + 1 for k, node in enumerate(nodes)}
        inside = {(i, j) for i, j in graph.edges if i in place and j in place and (i, j) != (0, len(graph.ops) + 1)}
        cells[name] = CellGraph(
            tuple(operation_of(graph.ops[node - 1]) for node in nodes),
            frozenset((place[i], place[j]) for i, j in inside),
        )
    return cells
