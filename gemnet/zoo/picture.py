"""The zoo as one picture: accuracy against time, a panel for each data set, with the front."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from gemnet.files import write_text
from gemnet.pareto import pareto_front
from gemnet.point_labels import write_names
from gemnet.quoting import picture_text
from gemnet.zoo.results import CLASSIFICATION, Result

PICTURE = "accuracy_time.svg"
OURS, PEER = "#c0392b", "#2c3e50"


def drawn(result: Result) -> bool:
    """Whether a row has what the picture shows: a classifier whose time was measured."""
    return result.task == CLASSIFICATION and result.speed is not None


def usual_epochs(rows: Sequence[Result]) -> int:
    """The number of epochs that most rows were trained for; of equally many, the largest."""
    counts = Counter(row.epochs for row in rows)
    return max(counts, key=lambda epochs: (counts[epochs], epochs))


def draw_zoo(results: Sequence[Result], path: Path) -> None:
    """Draws it, as SVG. Rows of another number of epochs than most of their panel are hollow, and out of the front.

    Args:
        results: all rows.
        path: the file.
    """
    shown = [result for result in results if drawn(result)]
    panels = list(dict.fromkeys((row.data, row.resolution) for row in shown)) or [("", 0)]
    with rc_context({"svg.hashsalt": "gemnet", "svg.fonttype": "none"}):
        figure = Figure(figsize=(5.2 * len(panels), 4.2), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        drawings = list(zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True))
        names = [
            _panel([row for row in shown if (row.data, row.resolution) == panel], axes) for axes, panel in drawings
        ]
        for (axes, (data, side)), points in zip(drawings, names, strict=True):
            axes.set_title(picture_text(f"{data}, {side}x{side}"), fontsize=10)
            write_names(points, axes, figure)  # last, since they are placed by where everything else has come to lie
        draft = path.with_name(f"{path.name}.drawing")
        try:
            figure.savefig(draft, format="svg", metadata={"Date": None, "Description": _digest(results)})
            write_text(path, "".join(f"{line.rstrip()}\n" for line in draft.read_text(encoding="utf-8").splitlines()))
        finally:
            draft.unlink(missing_ok=True)


def is_current(results: Sequence[Result], path: Path) -> bool:
    """Whether a picture is of just these results."""
    return path.is_file() and _digest(results) in path.read_text(encoding="utf-8")


def _panel(rows: Sequence[Result], axes: Axes) -> list[tuple[float, float, str]]:
    """Draws the rows of a data set; returns where each one's name belongs."""
    if not rows:
        return []
    deployed = all(row.speed is not None and row.speed.onnx_single is not None for row in rows)
    usual = usual_epochs(rows)
    points = []
    for row in rows:
        colour = PEER if row.peer else OURS
        axes.errorbar(
            _milliseconds(row, deployed),
            row.mean,
            yerr=row.spread,
            fmt="s" if row.peer else "*",
            markersize=6 if row.peer else 12,
            color=colour,
            markerfacecolor=colour if row.epochs == usual else "white",
            capsize=3,
        )
        points.append((_milliseconds(row, deployed), row.mean, row.network))
    alike = np.array([point[:2] for point, row in zip(points, rows, strict=True) if row.epochs == usual])
    front = alike[pareto_front(alike[:, 0], alike[:, 1])]
    axes.step(front[:, 0], front[:, 1], where="post", color="#95a5a6", linewidth=1, zorder=0)
    others = sorted({row.epochs for row in rows} - {usual})
    note = f"{usual} epochs" + (f"; hollow: {', '.join(map(str, others))}" if others else "")
    runtime = "onnxruntime, one image" if deployed else "PyTorch, batches of 32"
    axes.set_xscale("log")
    axes.set_xlabel(f"CPU time of an image, ms ({runtime})")
    axes.set_ylabel(f"top-1 (%), {note}")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.margins(x=0.2, y=0.2)
    axes.grid(alpha=0.25)
    return points


def _milliseconds(row: Result, deployed: bool) -> float:
    assert row.speed is not None
    seconds = row.speed.onnx_single if deployed else row.speed.seconds
    assert seconds is not None
    return 1000 * seconds


def _digest(results: Sequence[Result]) -> str:
    known = [
        [row.name, row.data, row.resolution, row.peer, row.epochs, row.values, row.speed and vars(row.speed)]
        for row in results
        if drawn(row)
    ]
    return f"results {hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]}"
