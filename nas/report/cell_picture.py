"""A cell drawn as a graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Patch

from gemnet.cell_graph import INPUT, OUTPUT, CellGraph

PALETTE = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#eeca3b", "#9d755d", "#ff9da6", "#79706e")
ENDS_COLOUR = "#222222"
SWEEPS = 12  # of the ordering within layers; it settles sooner


def draw_cell(cell: CellGraph, path: Path, title: str = "") -> None:
    """Draws a cell from its input (left) to its output (right) and writes the picture.

    Args:
        cell: the cell.
        path: a file whose ending matplotlib knows, such as ``cell.png``.
        title: a line above.
    """
    position = layered_layout(cell)
    width = max(x for x, _ in position) + 1
    height = max(y for _, y in position) - min(y for _, y in position) + 1
    figure = Figure(figsize=(min(1.1 * width + 2.2, 24), min(0.62 * height + 1.6, 16)), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.axis("off")
    for i, j in sorted(cell.edges):
        (x0, y0), (x1, y1) = position[i], position[j]
        # Edges that skip layers are bent, so that they don't run through the nodes between.
        bend = 0.0 if x1 - x0 <= 1 else 0.14 if (i + j) % 2 else -0.14
        axes.add_patch(
            FancyArrowPatch(
                (x0, y0),
                (x1, y1),
                arrowstyle="-|>",
                mutation_scale=8,
                shrinkA=8,
                shrinkB=8,
                linewidth=0.8,
                color="#999999",
                connectionstyle=f"arc3,rad={bend}",
                zorder=1,
            )
        )
    names = sorted(set(cell.ops))
    colour = {name: PALETTE[k % len(PALETTE)] for k, name in enumerate(names)} | dict.fromkeys(
        (INPUT, OUTPUT), ENDS_COLOUR
    )
    for label, (x, y) in zip(cell.labels, position, strict=True):
        axes.scatter([x], [y], s=200, color=colour[label], edgecolors="white", zorder=2)
    for node, text in ((0, "in"), (cell.size - 1, "out")):
        axes.annotate(text, position[node], color="white", ha="center", va="center", fontsize=6.5, zorder=3)
    counts = {name: cell.ops.count(name) for name in names}
    handles = [Patch(color=colour[name], label=f"{name} ({counts[name]})") for name in names]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(4, len(handles)), fontsize=8, frameon=False
        )
    axes.set_title(title, fontsize=10)
    axes.margins(0.06, 0.12)
    figure.savefig(path)


def layered_layout(cell: CellGraph) -> list[tuple[float, float]]:
    """(x, y) of every node: x is its longest distance from the input, y spreads the nodes of one x.

    Nodes of a layer are ordered by the mean position of their neighbours, swept to and fro (Sugiyama et al., 1981).
    """
    depth = [0] * cell.size
    for j in range(1, cell.size):
        depth[j] = max((depth[i] + 1 for i in cell.predecessors(j)), default=1)
    depth[-1] = max(depth[:-1]) + 1
    layers = [[v for v in range(cell.size) if depth[v] == d] for d in range(max(depth) + 1)]
    y = np.zeros(cell.size)
    for layer in layers:
        y[layer] = np.arange(len(layer)) - (len(layer) - 1) / 2
    for sweep in range(SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            around = cell.predecessors if sweep % 2 == 0 else cell.successors
            wish = {v: float(np.mean(y[list(around(v))])) if around(v) else float(y[v]) for v in layer}
            ordered = sorted(layer, key=lambda v: (wish[v], v))
            y[ordered] = np.arange(len(layer)) - (len(layer) - 1) / 2
    return [(float(depth[v]), float(y[v])) for v in range(cell.size)]
