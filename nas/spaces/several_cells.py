"""Several cells as one graph: a normal and a reduction cell, or a cell for each stage.

They lie side by side between one input and one output, and an operation's name says whose it is: ``normal/conv3x3``. So
kernel, encoder and structural features work on them as on any cell, and none mixes the cells up.
"""

from __future__ import annotations

from collections.abc import Mapping

from gemnet.cell_graph import MAX_INNER_NODES, CellGraph
from gemnet.errors import GraphError

MARK = "/"
PASS = "identity"


def join_cells(cells: Mapping[str, CellGraph]) -> CellGraph:
    """The graph of several cells, in the order of their names; together they have at most 30 inner nodes.

    An edge from a cell's input to its output would be nobody's: it goes through a node ``<cell>/identity``.

    Raises:
        GraphError: no cells, too many nodes, or a ``/`` in a name.
    """
    names = sorted(cells)
    if not names:
        raise GraphError("Several cells are a mapping of names to cells; got none.")
    cells = {name: _own_edges(cells[name]) for name in names}
    total = sum(len(cell.ops) for cell in cells.values())
    if total > MAX_INNER_NODES:
        raise GraphError(f"Cells {', '.join(names)} have {total} inner nodes; {MAX_INNER_NODES} is the most together.")
    ops: list[str] = []
    edges: set[tuple[int, int]] = set()
    for name in names:
        cell, first = cells[name], len(ops)
        for text in (name, *cell.ops):
            if not text or MARK in text:
                raise GraphError(f"{text!r} is no name for a cell or for an operation of several cells: no {MARK!r}.")
        last = len(cell.ops) + 1
        place = {0: 0, last: total + 1} | {node: first + node for node in range(1, last)}
        edges |= {(place[i], place[j]) for i, j in cell.edges}
        ops += [f"{name}{MARK}{op}" for op in cell.ops]
    return CellGraph(tuple(ops), frozenset(edges))


def _own_edges(cell: CellGraph) -> CellGraph:
    last = len(cell.ops) + 1
    if (0, last) not in cell.edges:
        return cell
    edges = {(i, j + (j == last)) for i, j in cell.edges if (i, j) != (0, last)}
    return CellGraph((*cell.ops, PASS), frozenset({*edges, (0, last), (last, last + 1)}))


def operation_of(label: str) -> str:
    """The operation that a label names: ``conv3x3`` of ``normal/conv3x3``, or the label itself."""
    return label.rpartition(MARK)[2]
