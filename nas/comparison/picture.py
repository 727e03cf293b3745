"""A comparison as a picture: accuracy against MACs."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nas.comparison.run import Comparison, Contender

REFERENCE, PEER = "#c0392b", "#2c3e50"
GROUPS = ("#7f8c8d", "#2980b9", "#16a085", "#8e44ad")
CROWDED = 12  # names beside more points than this can't be read


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Draws every network's mean accuracy and, as bars, the standard deviation of one training.

    Test accuracy where the test images were opened, else development accuracy.

    Args:
        comparison: what to draw.
        path: a ``.png`` file.
    """
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    test = bool(comparison.contenders[0].test_accuracies)
    points = [(one, *_mean_and_spread(one, test)) for one in comparison.contenders]
    points = [point for point in points if not math.isnan(point[1])]
    groups = list(dict.fromkeys(one.network.group for one, _, _ in points if one.network.group))
    labelled = [point for point in points if not point[0].network.group]
    for one, mean, spread in points:
        is_reference, group = one is comparison.contenders[0], one.network.group
        colour = GROUPS[groups.index(group) % len(GROUPS)] if group else REFERENCE if is_reference else PEER
        axes.errorbar(
            one.network.macs / 1e6,
            mean,
            yerr=None if math.isnan(spread) else spread,
            fmt="o" if group else "*" if is_reference else "s",
            markersize=13 if is_reference else 5,
            color=colour,
            alpha=0.7 if group else 1.0,
            capsize=3,
            zorder=3 if is_reference else 2,
        )
    for number, group in enumerate(groups):
        count = sum(one.network.group == group for one, _, _ in points)
        axes.plot([], [], "o", color=GROUPS[number % len(GROUPS)], label=f"{count} {group}")
    if groups:
        axes.legend(loc="best", frameon=False)
    axes.margins(x=0.12, y=0.12)
    if len(labelled) <= CROWDED:
        _name_points([(one.network.macs / 1e6, mean, one.network.name) for one, mean, _ in labelled], figure, axes)
    axes.set_xlabel("million MACs")
    axes.set_ylabel(f"{'test' if test else 'development'} top-1 (%)")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(alpha=0.25)
    seeds = len(comparison.config.seeds)
    trained = f"{comparison.config.epochs} epochs, {seeds} seed{'s' if seeds > 1 else ''}"
    axes.set_title(
        f"{comparison.config.data.source.rstrip('/').rpartition('/')[2]}, {trained}; bars: ± 1 sd", fontsize=10
    )
    figure.savefig(path, dpi=150)


def _mean_and_spread(one: Contender, test: bool) -> tuple[float, float]:
    values = [v for v in (one.test_accuracies if test else one.accuracies).values() if not math.isnan(v)]
    if not values:
        return math.nan, math.nan
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _name_points(points: list[tuple[float, float, str]], figure: Figure, axes: object) -> None:
    """Writes each name at the first of several places beside its point where it covers no other name or point."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    figure.draw_without_rendering()
    pixels = [axes.transData.transform((x, y)) for x, y, _ in points]
    middle = axes.transAxes.transform((0.5, 0.5))[0]
    taken: list[tuple[float, float, float, float]] = [(x - 6, y - 6, x + 6, y + 6) for x, y in pixels]
    for (x, y, name), (left, _) in zip(points, pixels, strict=True):
        places = [(9, dy) for dy in (-4, 8, -16, 20, -28)] + [(-9, dy) for dy in (-4, 8, -16, 20, -28)]
        if left > middle:
            places = places[5:] + places[:5]
        for place in places:
            side = "left" if place[0] > 0 else "right"
            text = axes.annotate(name, (x, y), place, textcoords="offset points", ha=side, fontsize=8)
            box = text.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
            if not any(box.x0 < t[2] and t[0] < box.x1 and box.y0 < t[3] and t[1] < box.y1 for t in taken):
                break
            if place is not places[-1]:
                text.remove()
        taken.append((box.x0, box.y0, box.x1, box.y1))
