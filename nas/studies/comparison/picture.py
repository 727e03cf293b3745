"""A comparison as a picture: accuracy against MACs, and by how much the reference leads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from gemnet.point_labels import write_names
from gemnet.quoting import picture_text
from nas.studies.comparison.report import Line, lines
from nas.studies.comparison.run import Comparison

REFERENCE, PEER = "#c0392b", "#2c3e50"
GROUPS = ("#7f8c8d", "#2980b9", "#16a085", "#8e44ad")
CROWDED = 12  # names beside more points than this can't be read
WIDE = 4  # where the largest network costs so many times the smallest, MACs get a logarithmic axis


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Draws every network's accuracy (bars: standard deviation of one training) and the reference's lead over it.

    Accuracy is that on the test images where they were opened, else on the development images. A group of controls is
    a cloud on the left and one line, the mean over its cells, on the right.

    Args:
        comparison: what to draw.
        path: a ``.png`` file.
    """
    found = lines(comparison)
    test = found[0].test is not None
    groups = list(dict.fromkeys(line.group for line in found if line.group))
    colours = {group: GROUPS[number % len(GROUPS)] for number, group in enumerate(groups)}
    figure = Figure(figsize=(11, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_leads([line for line in found[1:] if line.is_mean or not line.group], test, colours, right)
    right.set_xlabel(picture_text(f"{comparison.config.reference} leads by (points, 95 % interval)"))
    seeds = len(comparison.config.seeds)
    source = picture_text(comparison.config.data.source.rstrip("/").rpartition("/")[2])
    figure.suptitle(
        f"{source}, {comparison.config.epochs} epochs, {seeds} seed{'s' if seeds > 1 else ''}, one recipe", fontsize=10
    )
    # Last, since names are placed by where everything else has come to lie.
    _draw_accuracy([line for line in found if not line.is_mean], test, colours, left, figure)
    figure.savefig(path)


def _draw_accuracy(found: Sequence[Line], test: bool, colours: dict[str, str], axes: Axes, figure: Figure) -> None:
    names = []
    for number, line in enumerate(found):
        figures = line.test if test else line.dev
        if figures is None or math.isnan(figures.mean):
            continue
        axes.errorbar(
            line.macs / 1e6,
            figures.mean,
            yerr=None if math.isnan(figures.sd) else figures.sd,
            fmt="o" if line.group else "s" if number else "*",
            markersize=5 if number else 13,
            color=colours.get(line.group, PEER if number else REFERENCE),
            alpha=0.6 if line.group else 1.0,
            capsize=3,
            zorder=2 if number else 3,
        )
        if not line.group:
            names.append((line.macs / 1e6, figures.mean, line.name))
    for group, colour in colours.items():
        axes.plot(
            [], [], "o", color=colour, label=picture_text(f"{sum(line.group == group for line in found)} {group}")
        )
    if colours:
        axes.legend(loc="best", frameon=False)
    costs = [line.macs for line in found]
    if max(costs) > WIDE * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.margins(x=0.15, y=0.12)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("million MACs")
    axes.set_ylabel(f"{'test' if test else 'development'} top-1 (%), ± 1 sd of a training")
    axes.grid(alpha=0.25)
    if len(names) <= CROWDED:
        write_names(names, axes, figure)


def _draw_leads(found: Sequence[Line], test: bool, colours: dict[str, str], axes: Axes) -> None:
    shown: list[str] = []
    for line in found:
        figures = line.test if test else line.dev
        if figures is None or figures.lead is None:
            continue
        lead = figures.lead
        axes.errorbar(
            lead.mean,
            len(shown),
            xerr=None if math.isnan(lead.low) else (lead.high - lead.low) / 2,
            fmt="o" if line.group else "s",
            color=colours.get(line.group, PEER),
            capsize=3,
            markersize=5,
        )
        shown.append(line.name)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [picture_text(name) for name in shown], fontsize=8)
    axes.set_ylim(max(len(shown), 1) - 0.5, -0.5)
    axes.grid(alpha=0.25, axis="x")
