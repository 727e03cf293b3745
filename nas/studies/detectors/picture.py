"""A comparison of backbones in detectors as a picture: losses and development figures on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gemnet.quoting import picture_text
from gemnet.training.child import curves
from nas.studies.detectors.report import figure_title
from nas.studies.detectors.run import DetectorComparison, DetectorEntry

COLOURS = ("#c0392b", "#2c3e50", "#2980b9", "#16a085", "#8e44ad", "#7f8c8d", "#d35400")


def draw_curves(comparison: DetectorComparison, path: Path) -> None:
    """Draws, for each detector, the training loss (left) and the development figure (right) of every training.

    Args:
        comparison: what to draw; the curves are read from the trainings' folders.
        path: a ``.png`` file.
    """
    methods = list(dict.fromkeys(entry.job.method for entry in comparison.entries))
    figure = Figure(figsize=(10, 3.4 * len(methods)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(methods), 2, squeeze=False)
    for method, (left, right) in zip(methods, rows, strict=True):
        own = [entry for entry in comparison.entries if entry.job.method == method]
        _draw(comparison, own, left, right)
        left.set_title(picture_text(method), loc="left", fontsize=10)
    rows[0][0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def _draw(comparison: DetectorComparison, entries: Sequence[DetectorEntry], left: Axes, right: Axes) -> None:
    metric = comparison.config.metric
    for number, backbone in enumerate(comparison.config.backbones):
        colour = COLOURS[number % len(COLOURS)]
        label = picture_text(backbone.title)
        for entry in (entry for entry in entries if entry.job.backbone == backbone):
            steps = list(curves(entry.job.folder))
            losses = np.array([(step, figures["loss"]) for step, figures in steps if "loss" in figures])
            found = np.array([(step, 100 * figures[metric]) for step, figures in steps if metric in figures])
            if len(losses):
                left.plot(losses[:, 0], losses[:, 1], color=colour, linewidth=1, label=label)
            if len(found):
                right.plot(found[:, 0], found[:, 1], "o-", color=colour, linewidth=1, markersize=3)
            label = ""
    left.set_xlabel("step")
    left.set_ylabel("training loss")
    right.set_xlabel("epoch")
    right.set_ylabel(picture_text(f"{figure_title(metric)} on development images (%)"))
    for axes in (left, right):
        axes.grid(alpha=0.25)
