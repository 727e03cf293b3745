"""Plots of benchmark results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

from gemnet.quoting import picture_text
from nas.evaluation.statistics import Interval

matplotlib.use("Agg")  # files only: a benchmark runs where there is no screen
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure


@dataclass(frozen=True)
class StrategySummary:
    """All runs of one strategy on one metric.

    Args:
        metric, strategy: which.
        curves: regret after each query, (seeds, queries).
        seeds: seed of each curve.
        regret: mean regret at the checkpoints.
        found_best, found_near: query that found the best cell (or a near one), infinite where none did; (seeds,).
        difference: paired difference of regret with the reference strategy at the checkpoints; empty for the reference.
        seconds: mean CPU time of a run.
    """

    metric: str
    strategy: str
    curves: NDArray[np.float64]
    seeds: tuple[int, ...]
    regret: Mapping[int, Interval]
    found_best: NDArray[np.float64]
    found_near: NDArray[np.float64]
    difference: Mapping[int, Interval]
    seconds: float


FLOOR = 0.01  # points; a regret of zero has no place on a logarithmic axis
# One colour for each strategy in every plot (Okabe and Ito's palette, told apart by the colour-blind).
COLOURS = {
    "nasgem": "#D55E00",
    "structural": "#0072B2",
    "wl_gp": "#009E73",
    "bananas": "#CC79A7",
    "evolution": "#E69F00",
    "local_search": "#56B4E9",
    "random": "#7F7F7F",
}


def plot_regret(summaries: Sequence[StrategySummary], path: Path, title: str) -> None:
    """Mean regret against queries, one panel for each metric, with the middle half of the seeds shaded."""
    metrics = list(dict.fromkeys(summary.metric for summary in summaries))
    figure, panels = plt.subplots(1, len(metrics), figsize=(5.2 * len(metrics), 4), squeeze=False, layout="constrained")
    for axes, metric in zip(panels[0], metrics, strict=True):
        for summary in summaries:
            if summary.metric == metric:
                _curve(axes, summary.curves, summary.strategy)
        axes.set(title=picture_text(metric), xlabel="queries", yscale="log", ylim=(FLOOR, None))
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("regret (points below the best cell)")
    panels[0][-1].legend(frameon=False, fontsize=9)
    figure.suptitle(picture_text(title))
    _save(figure, path)


def plot_tau(results: Mapping[str, Mapping[int, Interval]], path: Path, title: str) -> None:
    """Kendall's tau against the number of training cells, one line for each predictor, intervals shaded."""
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    for name, points in results.items():
        sizes = sorted(points)
        line = axes.plot(
            sizes, [points[k].mean for k in sizes], marker="o", ms=3, label=picture_text(name), color=COLOURS.get(name)
        )[0]
        axes.fill_between(
            sizes,
            [points[k].low for k in sizes],
            [points[k].high for k in sizes],
            alpha=0.2,
            color=line.get_color(),
            lw=0,
        )
    axes.set(xscale="log", xlabel="training cells", ylabel="Kendall's tau", title=picture_text(title))
    axes.set_xticks(sorted({k for points in results.values() for k in points}))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def plot_hypervolume(curves: Mapping[str, NDArray[np.float64]], every: int, path: Path, title: str) -> None:
    """Hypervolume after every so many queries, one line for each strategy, the middle half of the seeds shaded."""
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    for name, values in curves.items():
        queries = every * np.arange(1, values.shape[1] + 1)
        line = axes.plot(queries, values.mean(axis=0), label=picture_text(name), color=COLOURS.get(name))[0]
        low, high = np.quantile(values, (0.25, 0.75), axis=0)
        axes.fill_between(queries, low, high, alpha=0.15, color=line.get_color(), lw=0)
    axes.set(xlabel="queries", ylabel="hypervolume (share of the whole front's)", title=picture_text(title))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def plot_differences(results: Mapping[str, Mapping[str, Interval]], label: str, path: Path) -> None:
    """Differences with their intervals, a panel for each figure, a row for each variant; bold where clear of zero."""
    variants = list(dict.fromkeys(variant for points in results.values() for variant in points))
    size = (4.2 + 2.6 * len(results), 1.2 + 0.24 * len(variants))
    figure, panels = plt.subplots(1, len(results), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axes, (title, points) in zip(panels[0], results.items(), strict=True):
        for variant, value in points.items():
            colour = COLOURS["nasgem"] if value.clear_of_zero else COLOURS["random"]
            row = variants.index(variant)
            axes.plot([value.low, value.high], [row, row], color=colour, lw=2)
            axes.plot(value.mean, row, "o", color=colour, ms=4)
        axes.axvline(0, color="black", lw=0.8)
        axes.set(title=picture_text(title), xlabel=picture_text(label))
        axes.title.set_size(9)
        axes.grid(axis="x", alpha=0.3)
    panels[0][0].set_yticks(range(len(variants)), [picture_text(name) for name in variants])
    panels[0][0].invert_yaxis()
    _save(figure, path)


def _curve(axes: Axes, curves: NDArray[np.float64], name: str) -> None:
    queries = np.arange(1, curves.shape[1] + 1)
    line = axes.plot(
        queries, np.maximum(curves.mean(axis=0), FLOOR), label=picture_text(name), color=COLOURS.get(name)
    )[0]
    low, high = np.quantile(curves, (0.25, 0.75), axis=0)
    axes.fill_between(
        queries, np.maximum(low, FLOOR), np.maximum(high, FLOOR), alpha=0.12, color=line.get_color(), lw=0
    )


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
