"""Pictures of a search: best so far against evaluations, accuracy against a cost, and the cells it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Patch
from matplotlib.ticker import MaxNLocator

from gemnet.cell_graph import INPUT, OUTPUT, CellGraph
from gemnet.pareto import pareto_front
from gemnet.quoting import picture_text
from nas.evaluation.costs import COSTS
from nas.evaluation.records import Evaluation
from nas.evaluation.score import EfficiencyScore, compared_by
from nas.spaces.limits import Limits

DOT, BEST, FRONT, FAILED = "#9ecae1", "#08519c", "#d94801", "#cb181d"


def draw_search(
    evaluations: Sequence[Evaluation],
    score: EfficiencyScore,
    path: Path,
    chosen: Evaluation | None = None,
    limits: Limits | None = None,
) -> None:
    """Writes the picture of a search; beside its progress, accuracy against the cost that counts or else is known.

    Args:
        evaluations: all of it, in the order of their numbers.
        score: what it maximised.
        path: a file whose ending matplotlib knows, such as ``search.png``.
        chosen: the evaluation of the candidate that was chosen.
        limits: the hard limits; that on the cost is drawn where there is one.
    """
    limits = limits or Limits()
    good = [each for each in evaluations if each.accuracy is not None]
    known = {name: [each for each in good if each.cost(name)] for name in (compared_by(score, limits), *COSTS)}
    cost = next((name for name, with_cost in known.items() if with_cost), None)
    figure = Figure(figsize=(12 if cost else 6, 4.6), dpi=130, layout="constrained")
    axes = figure.subplots(1, 2 if cost else 1, squeeze=False)[0]
    _draw_progress(axes[0], evaluations, score, chosen)
    if cost is not None:
        _draw_costs(axes[1], known[cost], cost, chosen, getattr(limits, f"max_{cost}"))
    figure.savefig(path)


def _legend(axes: Axes) -> None:
    """Above the axes: inside it would lie over candidates, which look like its samples."""
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)


def _draw_progress(
    axes: Axes, evaluations: Sequence[Evaluation], score: EfficiencyScore, chosen: Evaluation | None
) -> None:
    numbers = np.array([each.proposal.number for each in evaluations if each.accuracy is not None])
    values = np.array([score.of(each) for each in evaluations if each.accuracy is not None])
    axes.scatter(numbers, values, s=14, color=DOT, label="candidate")
    if len(values):
        axes.step(numbers, np.maximum.accumulate(values), where="post", color=BEST, label="best so far")
        floor = float(values.min())
        failed = [each.proposal.number for each in evaluations if each.accuracy is None]
        if failed:
            axes.scatter(failed, [floor] * len(failed), marker="x", s=18, color=FAILED, label="failed")
        # Early failures to learn anything would squeeze all the rest into a line.
        low = float(np.percentile(values, 5))
        high = float(values.max())
        axes.set_ylim(low - 0.1 * (high - low + 1e-9) - 1e-6, high + 0.08 * (high - low) + 1e-6)
    if chosen is not None and chosen.accuracy is not None:
        point = (chosen.proposal.number, score.of(chosen))
        axes.scatter(*point, s=90, marker="*", color=FRONT, zorder=3, label="chosen")
    axes.set_xlabel("number of the evaluation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("efficiency score" if score.weight else "accuracy on the development split (%)")
    _legend(axes)


def _draw_costs(
    axes: Axes, evaluations: Sequence[Evaluation], name: str, chosen: Evaluation | None, limit: float | None
) -> None:
    cost = COSTS[name]
    costs = np.array([float(each.cost(name) or 0) for each in evaluations]) / cost.scale
    accuracy = np.array([float(each.accuracy or 0) for each in evaluations])
    order = [each.proposal.number for each in evaluations]
    dots = axes.scatter(costs, accuracy, s=16, c=order, cmap="viridis", label="candidate")
    front = pareto_front(costs, accuracy)
    axes.step(costs[front], accuracy[front], where="post", color=FRONT, label="Pareto front")
    axes.scatter(costs[front], accuracy[front], s=20, facecolors="none", edgecolors=FRONT)
    its = None if chosen is None else chosen.cost(name)
    if chosen is not None and its and chosen.accuracy is not None:
        axes.scatter(its / cost.scale, chosen.accuracy, s=90, marker="*", color=FRONT, zorder=3, label="chosen")
    if limit is not None:
        axes.axvline(limit / cost.scale, color="#888888", linestyle=":", label=f"max_{name}")
    low, high = float(np.percentile(accuracy, 5)), float(accuracy.max())
    axes.set_ylim(low - 0.1 * (high - low) - 1e-6, high + 0.08 * (high - low) + 1e-6)
    axes.set_xlabel(cost.title)
    axes.set_ylabel("accuracy on the development split (%)")
    _legend(axes)
    axes.figure.colorbar(dots, ax=axes, label="number of the evaluation", ticks=MaxNLocator(integer=True))


PALETTE = (
    *("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#eeca3b", "#9d755d", "#ff9da6", "#79706e"),
    *("#9ecae9", "#ffbf79", "#88d27a", "#b31b1b", "#1f6f6b", "#d6a5c9", "#b79a20", "#d8b5a5", "#d6619a", "#bab0ac"),
)  # Vega's tableau20, its repetitions told apart


ENDS_COLOUR = "#222222"


SWEEPS = 12  # of the ordering within layers; it settles sooner


def operation_colours(cell: CellGraph, vocabulary: Sequence[str] = ()) -> dict[str, str]:
    """A colour for each operation of a cell, the same in all cells of a space.

    Args:
        cell: the cell.
        vocabulary: the operations of its space; those of the cell that are not among them come after.
    """
    names = [*vocabulary, *sorted(set(cell.ops) - set(vocabulary))]
    return {name: PALETTE[k % len(PALETTE)] for k, name in enumerate(names) if name in cell.ops}


def draw_cell(
    cell: CellGraph,
    path: Path,
    title: str = "",
    shares: Mapping[tuple[int, int], float] = MappingProxyType({}),
    vocabulary: Sequence[str] = (),
) -> None:
    """Draws a cell from its input (left) to its output (right) and writes the picture.

    Args:
        cell: the cell.
        path: a file whose ending matplotlib knows, such as ``cell.png``.
        title: a line above.
        vocabulary: the operations of its space, for the same colours in all its cells.
        shares: each edge's share in the output, in [0, 1]: the greater, the bolder it is drawn.
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
                linewidth=0.4 + 2.4 * shares[i, j] if shares else 0.8,
                color="#999999",
                connectionstyle=f"arc3,rad={bend}",
                zorder=1,
            )
        )
    colour = operation_colours(cell, vocabulary)
    names = list(colour)
    colour |= dict.fromkeys((INPUT, OUTPUT), ENDS_COLOUR)
    for label, (x, y) in zip(cell.labels, position, strict=True):
        axes.scatter([x], [y], s=200, color=colour[label], edgecolors="white", zorder=2)
    for node, text in ((0, "in"), (cell.size - 1, "out")):
        axes.annotate(text, position[node], color="white", ha="center", va="center", fontsize=6.5, zorder=3)
    counts = {name: cell.ops.count(name) for name in names}
    handles = [Patch(color=colour[name], label=picture_text(f"{name} ({counts[name]})")) for name in names]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(4, len(handles)), fontsize=8, frameon=False
        )
    axes.set_title(picture_text(title), fontsize=10)
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
