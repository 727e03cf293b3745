"""The figures of a search's page, as plotly.js reads them: plain dictionaries, without a colour of text or ground.

Colours of text, grid and ground come from the page, which knows whether it is dark. Names that come from files are
escaped, since plotly.js reads a few HTML tags.
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from gemnet.pareto import pareto_front
from nas.evaluation.costs import COSTS, LATENCY, costs_text
from nas.evaluation.records import Evaluation
from nas.evaluation.score import compared_by
from nas.search.report.facts import Floats, Report, best_so_far, expected_best

Figure = dict[str, Any]
DOT, BEST, CHANCE, GUIDE, FRONT, FAILED = "#5b8def", "#2563eb", "#a855f7", "#9a9a9a", "#f97316", "#dc2626"
COLOURS = "Viridis"


def progress_figure(report: Report) -> Figure:
    """Best so far against evaluations, beside what random search would have reached."""
    scores = report.scores()
    numbers = np.array([each.proposal.number + 1 for each in report.evaluations])
    good = np.isfinite(scores)
    traces: list[dict[str, Any]] = [
        _dots(report, good, numbers[good], scores[good], name="candidate", color=DOT),
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": _list(numbers),
            "y": _list(best_so_far(scores)),
            "line": {"color": BEST, "width": 3, "shape": "hv"},
            "hovertemplate": "after %{x}: %{y:.2f}<extra></extra>",
        },
    ]
    if report.initial > 1:
        counts = list(range(1, min(report.initial, len(scores)) + 1))
        means = expected_best(scores[: len(counts)], counts)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "random search, mean",
                "x": counts,
                "y": _list(means),
                "line": {"color": CHANCE, "width": 2.5, "dash": "dash"},
                "hovertemplate": "best of %{x} random: %{y:.2f}<extra></extra>",
            }
        )
    if not good.all() and good.any():
        floor = float(scores[good].min())
        failed = [each for each, fine in zip(report.evaluations, good, strict=True) if not fine]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "failed",
                "x": [each.proposal.number + 1 for each in failed],
                "y": [floor] * len(failed),
                "text": [escape(each.reason[:160]) for each in failed],
                "hovertemplate": "no. %{x} failed: %{text}<extra></extra>",
                "marker": {"color": FAILED, "symbol": "x", "size": 8},
            }
        )
    if report.chosen is not None and report.chosen.found.accuracy is not None:
        traces.append(_star(report, "chosen", report.chosen.found.proposal.number + 1, _score(report)))
    return {"data": traces, "layout": _axes("evaluations", _score_name(report))}


def cost_figure(report: Report) -> Figure | None:
    """Accuracy against each cost that is known, first that which networks are compared by, with the Pareto front."""
    views = []
    for key in dict.fromkeys((compared_by(report.score, report.limits), "macs", LATENCY)):
        costs = np.array([_cost(each, key) for each in report.evaluations], dtype=np.float64)
        if np.isfinite(costs).any():
            views.append((COSTS[key].title, key, costs))
    if not views:
        return None
    accuracy = np.array([np.nan if e.accuracy is None else e.accuracy for e in report.evaluations], dtype=np.float64)
    traces: list[dict[str, Any]] = []
    shown: list[int] = []
    for view, (_, key, costs) in enumerate(views):
        good = np.isfinite(costs) & np.isfinite(accuracy)
        front = np.flatnonzero(good)[pareto_front(costs[good], accuracy[good])]
        order = _list(np.array([each.proposal.number for each in report.evaluations])[good])
        dots = _dots(report, good, costs[good], accuracy[good], name="candidate", color=DOT)
        dots["marker"] |= {"color": order, "colorscale": COLOURS, "colorbar": {"title": "no.", "thickness": 10}}
        new = [
            dots,
            {
                "type": "scatter",
                "mode": "lines",
                "name": "Pareto front",
                "x": _list(costs[front]),
                "y": _list(accuracy[front]),
                "line": {"color": FRONT, "width": 2, "shape": "hv"},
                "hoverinfo": "skip",
            },
        ]
        chosen = report.chosen
        if chosen is not None and chosen.found.accuracy is not None and np.isfinite(_cost(chosen.found, key)):
            new.append(_star(report, "chosen", _cost(chosen.found, key), chosen.found.accuracy))
        limit = getattr(report.limits, f"max_{key}")
        if limit is not None:
            low = float(accuracy[good].min()) if good.any() else 0.0
            high = float(accuracy[good].max()) if good.any() else 100.0
            new.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": "limit",
                    "x": [limit / COSTS[key].scale] * 2,
                    "y": [low, high],
                    "line": {"color": GUIDE, "dash": "dash"},
                    "hovertemplate": f"limit: %{{x}} {COSTS[key].unit}<extra></extra>",
                }
            )
        for trace in new:
            trace["visible"] = view == 0
        traces += new
        shown += [view] * len(new)
    layout = _axes(views[0][0], "accuracy on development images (%)")
    if len(views) > 1:
        layout["updatemenus"] = [
            {
                "type": "buttons",
                "direction": "right",
                "x": 0,
                "y": 1.18,
                "xanchor": "left",
                "buttons": [
                    {
                        "label": label,
                        "method": "update",
                        "args": [{"visible": [place == view for place in shown]}, {"xaxis.title.text": label}],
                    }
                    for view, (label, _, _) in enumerate(views)
                ],
            }
        ]
    return {"data": traces, "layout": layout}


def map_figure(report: Report) -> Figure | None:
    """The embedding in two dimensions, coloured by score, with the path of the best so far."""
    if report.positions is None or not len(report.positions):
        return None
    scores = report.scores()
    good = np.isfinite(scores)
    if not good.any():
        return None
    at = report.positions
    dots = _dots(report, good, at[good, 0], at[good, 1], name="candidate", color=DOT)
    # Early failures to learn would take all colours.
    floor = float(np.percentile(scores[good], 10))
    dots["marker"] |= {
        "color": _list(scores[good]),
        "colorscale": COLOURS,
        "cmin": floor,
        "cmax": float(scores[good].max()),
        "size": 10,
        "colorbar": {"title": "score", "thickness": 10},
    }
    best = best_so_far(scores)
    steps = [
        k for k in np.flatnonzero(good).tolist() if scores[k] == best[k] and (k == 0 or not best[k - 1] >= best[k])
    ]
    path = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "path of the best so far",
        "x": _list(at[steps, 0]),
        "y": _list(at[steps, 1]),
        "line": {"color": FRONT, "width": 2},
        "marker": {"color": FRONT, "size": 5},
        "hoverinfo": "skip",
    }
    traces = [dots, path]
    if report.chosen is not None:
        number = report.chosen.found.proposal.number
        if number < len(at):
            traces.append(_star(report, "chosen", float(at[number, 0]), float(at[number, 1])))
    return {"data": traces, "layout": _axes("first principal component", "second principal component")}


def prediction_figure(report: Report) -> Figure | None:
    """Predicted against measured score, each batch before it was evaluated."""
    if not report.rounds:
        return None
    measured = np.concatenate([each.measured for each in report.rounds])
    predicted = np.concatenate([each.predicted for each in report.rounds])
    deviation = np.concatenate([each.deviation for each in report.rounds])
    numbers = [number for each in report.rounds for number in each.numbers]
    turn = [place + 1 for place, each in enumerate(report.rounds) for _ in each.numbers]
    low, high = float(min(measured.min(), predicted.min())), float(max(measured.max(), predicted.max()))
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "equal",
            "x": [low, high],
            "y": [low, high],
            "line": {"color": GUIDE, "dash": "dot"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "candidate",
            "x": _list(predicted),
            "y": _list(measured),
            "error_x": {"type": "data", "array": _list(deviation), "thickness": 0.7, "width": 0, "color": GUIDE},
            "customdata": [[number, place] for number, place in zip(numbers, turn, strict=True)],
            "hovertemplate": "no. %{customdata[0]}, round %{customdata[1]}<br>predicted %{x:.2f}, measured %{y:.2f}"
            "<extra></extra>",
            "marker": {
                "color": turn,
                "colorscale": COLOURS,
                "size": 9,
                "colorbar": {"title": "round", "thickness": 10, "tickformat": "d", "dtick": 1},
            },
        },
    ]
    return {"data": traces, "layout": _axes("predicted score", "measured score")}


def tau_figure(report: Report) -> Figure | None:
    """Kendall's tau of predictions, for each round and over all rounds up to it."""
    if len(report.rounds) < 2:
        return None
    turns = list(range(1, len(report.rounds) + 1))
    together = []
    for turn in turns:
        seen = report.rounds[:turn]
        predicted, measured = (np.concatenate([getattr(r, name) for r in seen]) for name in ("predicted", "measured"))
        together.append(float(kendalltau(predicted, measured).statistic) if len(predicted) > 1 else float("nan"))
    traces = [
        {
            "type": "bar",
            "name": "the round's batch",
            "x": turns,
            "y": _list(np.array([each.tau for each in report.rounds])),
            "marker": {"color": DOT, "opacity": 0.5},
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "all rounds so far",
            "x": turns,
            "y": _list(np.array(together)),
            "line": {"color": FRONT, "width": 2},
        },
    ]
    layout = _axes("round", "Kendall's tau")
    layout["yaxis"]["range"] = [-1.05, 1.05]
    return {"data": traces, "layout": layout}


def time_figure(report: Report) -> Figure | None:
    """Where the wall-clock time went."""
    parts = {part: seconds for part, seconds in report.seconds.items() if part != "total" and seconds > 0}
    total = report.seconds.get("total", 0.0)
    if not parts or not total:
        return None
    inside = ("ask", "tell", "ledger")
    names = sorted(parts, key=lambda part: parts[part])
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [round(parts[part], 2) for part in names],
        "y": [f"{part} (within explore)" if part in inside else part for part in names],
        "text": [f"{parts[part]:.1f} s, {parts[part] / total:.1%}" for part in names],
        "textposition": "auto",
        "hoverinfo": "skip",
        "marker": {"color": DOT},
    }
    layout = _axes("seconds", "")
    layout["yaxis"]["automargin"] = True
    return {"data": [trace], "layout": layout}


def _dots(report: Report, good: Any, x: Floats, y: Floats, name: str, color: str) -> dict[str, Any]:
    chosen = [each for each, fine in zip(report.evaluations, good, strict=True) if fine]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": _list(x),
        "y": _list(y),
        "text": [_hover(each) for each in chosen],
        "customdata": [each.proposal.number for each in chosen],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": color, "size": 8, "opacity": 0.85},
    }


def _star(report: Report, name: str, x: float, y: float) -> dict[str, Any]:
    assert report.chosen is not None
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [x],
        "y": [y],
        "text": [_hover(report.chosen.found)],
        "customdata": [report.chosen.found.proposal.number],
        "hovertemplate": "chosen: %{text}<extra></extra>",
        "marker": {"color": FRONT, "symbol": "star", "size": 16, "line": {"width": 1, "color": "white"}},
    }


def _hover(evaluation: Evaluation) -> str:
    candidate = evaluation.proposal.candidate
    lines = [f"no. {evaluation.proposal.number}"]
    if evaluation.accuracy is not None:
        lines.append(f"{evaluation.accuracy:.2f} %")
    lines += [text for text in (costs_text(evaluation),) if text]
    ops = ", ".join(f"{count} {escape(op)}" for op, count in _counts(candidate.cell.ops))
    macro = ", ".join(f"{escape(str(name))} {escape(str(value))}" for name, value in candidate.macro)
    return "<br>".join([", ".join(lines), *(text for text in (ops[:300], macro[:300]) if text)])


def _counts(ops: tuple[str, ...]) -> list[tuple[str, int]]:
    return sorted(((op, ops.count(op)) for op in set(ops)), key=lambda item: (-item[1], item[0]))


def _cost(evaluation: Evaluation, key: str) -> float:
    return (evaluation.cost(key) or float("nan")) / COSTS[key].scale


def _score(report: Report) -> float:
    assert report.chosen is not None
    found = report.chosen.found
    return report.score.of(found)


def _score_name(report: Report) -> str:
    return "efficiency score" if report.score.weight else "accuracy on development images (%)"


def _axes(x: str, y: str) -> dict[str, Any]:
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}


def _list(values: Any) -> list[float | None]:
    """JSON has no nan."""
    return [None if not np.isfinite(value) else value for value in np.asarray(values).tolist()]
