"""A cell as an SVG that takes its colours of text and lines from the page around it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from gemnet.cell_graph import INPUT, OUTPUT, CellGraph
from nas.search.report.pictures import layered_layout, operation_colours

STEP_X, STEP_Y, RADIUS, MARGIN, LEGEND = 46.0, 34.0, 9.0, 22.0, 18.0


def cell_svg(cell: CellGraph, title: str, vocabulary: Sequence[str] = ()) -> str:
    """The cell from its input (left) to its output (right), each operation a colour, with a legend below.

    Args:
        cell: the cell.
        title: what a screen reader says; may hold anything.
        vocabulary: the operations of its space, for the same colours in all its cells.

    Returns:
        One ``<svg>`` element; every name in it is escaped.
    """
    at = layered_layout(cell)
    top = min(y for _, y in at)
    place = [(MARGIN + STEP_X * x, MARGIN + STEP_Y * (y - top)) for x, y in at]
    colour = operation_colours(cell, vocabulary)
    names = list(colour)
    width = max(max(x for x, _ in place) + MARGIN, 170.0)
    height = max(y for _, y in place) + MARGIN
    lines = []
    for i, j in sorted(cell.edges):
        (x0, y0), (x1, y1) = place[i], place[j]
        # Edges that skip layers are bent, so that they don't run through the nodes between.
        bend = 0.0 if at[j][0] - at[i][0] <= 1 else STEP_Y * (0.55 if (i + j) % 2 else -0.55)
        lines.append(f'<path d="M{x0:.0f} {y0:.0f}Q{(x0 + x1) / 2:.0f} {(y0 + y1) / 2 + bend:.0f} {x1:.0f} {y1:.0f}"/>')
    nodes = []
    for label, (x, y) in zip(cell.labels, place, strict=True):
        ends = {INPUT: "in", OUTPUT: "out"}.get(label)
        fill = "currentColor" if ends else colour[label]
        nodes.append(
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{RADIUS:.0f}" fill="{fill}"><title>{escape(label)}</title></circle>'
        )
        if ends:
            nodes.append(f'<text x="{x:.0f}" y="{y + 3:.0f}" class="end">{ends}</text>')
    legend = []
    for k, name in enumerate(names):
        y = height + LEGEND * k
        legend.append(
            f'<circle cx="{MARGIN:.0f}" cy="{y:.0f}" r="5" fill="{colour[name]}"/>'
            f'<text x="{MARGIN + 12:.0f}" y="{y + 4:.0f}">{escape(name)} ({cell.ops.count(name)})</text>'
        )
    total = height + LEGEND * len(names)
    return (
        f'<svg class="cell" role="img" viewBox="0 0 {width:.0f} {total:.0f}" width="{width:.0f}" height="{total:.0f}">'
        f"<title>{escape(title)}</title>"
        f'<g class="edges">{"".join(lines)}</g>{"".join(nodes)}<g class="legend">{"".join(legend)}</g></svg>'
    )
