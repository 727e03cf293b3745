"""A search as one HTML file that needs no network: the answer first, then how it came about."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from gemnet.files import write_text
from nas.evaluation.costs import COSTS
from nas.evaluation.statistics import mean_interval
from nas.search.report.cell_drawing import cell_svg
from nas.search.report.facts import Report, failures_of
from nas.search.report.figures import (
    Figure,
    cost_figure,
    map_figure,
    prediction_figure,
    progress_figure,
    tau_figure,
    time_figure,
)
from nas.search.report.result import Row, figures_of

BEST_CELLS = 6
REFRESH = 10
"""Seconds between two loads of the page of a search that runs."""


def write_page(report: Report, path: Path) -> None:
    """Writes the page of a search, whole or not at all.

    Args:
        report: the search.
        path: the ``.html`` file.
    """
    write_text(path, page(report))


def page(report: Report) -> str:
    """The page of a search: HTML in which everything that comes from files is escaped."""
    figures = [entry for entry in _figures(report) if entry["figure"] is not None]
    data = {"plots": {entry["id"]: entry["figure"] for entry in figures}, "rebuild": report.rebuild}
    return _template().render(
        report=report,
        refresh=REFRESH,
        made=len(report.evaluations),
        failed=sum(each.status == "failed" for each in report.evaluations),
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        answer=answer(report),
        table=[_row(row) for row in report.rows],
        tested=any(row.test_accuracies for row in report.rows),
        timed=any(row.milliseconds is not None for row in report.rows),
        figures=figures,
        cells=_cells(report),
        failures=failures_of(report.evaluations),
        plotly=_plotly(),
        # Inside a script element only "</" and "<!--" could end or change it.
        data=Markup(json.dumps(data, allow_nan=False).replace("<", "\\u003c")),
    )


def answer(report: Report) -> list[str]:
    """What the search came to, in a sentence or three."""
    scores = report.scores()
    if not np.isfinite(scores).any():
        return ["Nothing has been evaluated yet." if not len(scores) else "Every evaluation failed."]
    best = report.evaluations[int(np.nanargmax(scores))]
    if report.chosen is None:
        return [f"Best so far: no. {best.proposal.number} with {figures_of(best)}."]
    chosen = report.chosen
    fresh = [each.accuracy for each in chosen.fresh if each.accuracy is not None]
    lines = [
        f"Chosen: no. {chosen.found.proposal.number} of {len(scores)}, {chosen.found.accuracy:.2f} % in the search"
        + (
            f" and {np.mean(fresh):.2f} % when trained again with {len(fresh)} fresh seed{'s' * (len(fresh) != 1)}"
            if fresh
            else ""
        )
        + (f", {COSTS['macs'].text(chosen.found.macs)}" if chosen.found.macs else "")
        + (f", {chosen.latency:.3g} ms an image" if chosen.latency is not None else "")
        + "."
    ]
    if len(report.rows) > 1:
        tested = all(row.test_accuracies for row in report.rows)
        found, *others = report.rows
        values = {row.name: float(np.mean(_accuracies(row, tested))) for row in report.rows if _accuracies(row, tested)}
        if found.name in values:
            leads = [f"{values[found.name] - values[o.name]:+.2f} against {o.name}" for o in others if o.name in values]
            images = "test" if tested else "development"
            lines.append(
                f"Trained longer it reaches {values[found.name]:.2f} % on {images} images: points {', '.join(leads)}."
            )
    return lines


def _accuracies(row: Row, tested: bool) -> tuple[float, ...]:
    return row.test_accuracies if tested else row.accuracies


def _row(row: Row) -> dict[str, str]:
    return {
        "name": row.name,
        "trainings": f"{len(row.accuracies)}" + (f" (+{row.failed} failed)" if row.failed else ""),
        "accuracy": _mean(row.accuracies),
        "test": _mean(row.test_accuracies),
        "macs": f"{row.macs / 1e6:.3g}" if np.isfinite(row.macs) else "",
        "params": f"{row.params / 1e3:.1f}" if np.isfinite(row.params) else "",
        "milliseconds": "" if row.milliseconds is None else f"{row.milliseconds:.3g}",
    }


def _mean(values: tuple[float, ...]) -> str:
    if not values:
        return "-"
    found = mean_interval(values)
    return f"{found.mean:.2f}" + ("" if found.n < 2 else f" [{max(found.low, 0):.1f}, {min(found.high, 100):.1f}]")


def _figures(report: Report) -> list[dict[str, Any]]:
    click = "Hover shows a candidate; a click copies the command that writes its genome." if report.rebuild else ""

    def entry(name: str, title: str, figure: Figure | None, caption: str) -> dict[str, Any]:
        return {"id": name, "title": title, "figure": figure, "caption": caption}

    return [
        entry(
            "progress",
            "Best so far",
            progress_figure(report),
            "Dashed: the mean best of so many random candidates, from the random ones that the search began with.",
        ),
        entry("costs", "Accuracy against cost", cost_figure(report), click),
        entry(
            "map",
            "Map of the candidates",
            map_figure(report),
            "The encoder's vectors, projected on their first two principal components. Neighbours are similar graphs.",
        ),
        entry(
            "predicted",
            "Predicted and measured",
            prediction_figure(report),
            "What a predictor fitted on the evaluations before a batch expects of it; bars: one standard deviation.",
        ),
        entry("tau", "How well it ranks", tau_figure(report), "1: the predicted order is the measured one; 0: chance."),
        entry("time", "Where the time went", time_figure(report), "Wall-clock seconds of this run."),
    ]


def _cells(report: Report) -> list[dict[str, Any]]:
    scores = report.scores()
    order = [k for k in np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable") if np.isfinite(scores[k])]
    cells = []
    for k in order[:BEST_CELLS]:
        evaluation = report.evaluations[k]
        candidate, number = evaluation.proposal.candidate, evaluation.proposal.number
        macro = "".join(f", {name} {value}" for name, value in candidate.macro)
        caption = f"no. {number}: {figures_of(evaluation)}"
        drawn = cell_svg(candidate.cell.canonical(), f"cell of no. {number}", report.vocabulary)
        cells.append({"svg": Markup(drawn), "caption": caption + macro})
    return cells


@lru_cache(maxsize=1)
def _template() -> Template:
    loader = PackageLoader("nas.search.report", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("page.html.j2")


@lru_cache(maxsize=1)
def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
