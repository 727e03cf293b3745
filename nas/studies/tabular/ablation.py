"""What each part of nasgem is worth: the predictor and the search without it, or with something else in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as TextTable

from gemnet.errors import nearest
from nas.evaluation.statistics import Interval, interval_columns, mean_interval, paired_difference
from nas.studies.tabular.models import ABLATIONS
from nas.studies.tabular.plots import plot_differences
from nas.studies.tabular.predictors import COLUMNS as PREDICTOR_COLUMNS
from nas.studies.tabular.predictors import KEY as PREDICTOR_KEY
from nas.studies.tabular.predictors import PredictorTask, check_predictor_tasks, run_predictor
from nas.studies.tabular.runs import BenchmarkError, RunRow, Study, text_table
from nas.studies.tabular.search import COLUMNS, KEY, SearchTask, check_tasks, run_task, text_to_steps
from nas.studies.tabular.sources import DEFAULT_METRICS, DEFAULT_TARGET, metrics_of, open_table

WHOLE = "nasgem"
DEFAULT_SIZES = {"nasbench201": (50, 156, 469), "nasbench101": (100, 424)}
CHECKPOINTS = (25, 50, 100)


@dataclass(frozen=True)
class Worth:
    """One figure of one variant.

    Args:
        variant: its name; `WHOLE` for nasgem as it is.
        figure: ``tau from N cells`` or ``regret after N queries``.
        value: its mean.
        difference: what the variant has more than the whole, pair by pair; None for the whole.
    """

    variant: str
    figure: str
    value: Interval
    difference: Interval | None


def report_ablation(
    console: Console,
    *,
    space: str | None,
    path: str | None,
    metric: str | None,
    search_metric: str | None,
    parts: Sequence[str] | None,
    sizes: Sequence[int] | None,
    seeds: int,
    workers: int | None,
    folder: Path,
) -> list[Worth]:
    """The ablation: runs, prints, writes ``ablation_tau.csv``, ``ablation_search.csv``, a summary and a picture.

    Args:
        console: where progress and tables go.
        space, path: see `open_table`.
        metric: what is predicted; None takes the space's usual target.
        search_metric: what is searched for; None takes the last of the space's usual ones, the hardest.
        parts: names in `ABLATIONS`; None takes all.
        sizes: numbers of training cells; None takes the space's usual ones.
        seeds: training sets of each size, and searches.
        workers: processes; None takes all cores.
        folder: where the files go.

    Raises:
        BenchmarkError: an unknown part, or nothing named where there is no usual choice.
        TableError: a table or metric that is not there.
    """
    names = list(parts or ABLATIONS)
    for name in names:
        if name not in ABLATIONS:
            raise BenchmarkError(f"There is no part {name!r}.{nearest(name, ABLATIONS)}")
    table = open_table(space, path)
    study = Study(console, table, partial(open_table, space, path), workers, folder)
    target = metrics_of(table, None, _one(metric, DEFAULT_TARGET.get(space or "")))[0]
    searched = metrics_of(table, None, _one(search_metric, DEFAULT_METRICS.get(space or "", (target,))[-1]))[0]
    if not sizes and space not in DEFAULT_SIZES:
        raise BenchmarkError("Name the numbers of training cells with --train-sizes.")
    chosen = tuple(sizes or DEFAULT_SIZES[space or ""])
    models = [WHOLE, *(name for name in names if ABLATIONS[name].model is not None)]
    options: dict[str, Mapping[str, Any]] = {WHOLE: {}}
    options |= {name: given for name in names if (given := ABLATIONS[name].options) is not None}
    queries = max(CHECKPOINTS)
    predictions = [PredictorTask(target, model, size, s) for s in range(seeds) for model in models for size in chosen]
    searches = [
        SearchTask(searched, "nasgem", seed, queries, options=given)
        for seed in range(seeds)
        for given in options.values()
    ]
    check_predictor_tasks(table, predictions)
    check_tasks(table, searches)
    predicted = study.run(
        "ablation_tau.csv",
        PREDICTOR_KEY,
        PREDICTOR_COLUMNS,
        predictions,
        run_predictor,
        lambda task: f"{task.predictor}, {task.size} cells, seed {task.seed}",
    )
    found = study.run(
        "ablation_search.csv",
        KEY,
        COLUMNS,
        searches,
        run_task,
        lambda task: f"search, seed {task.seed}",
    )
    worths = [*_taus(predicted, chosen), *_regrets(found, searches, list(options) * seeds)]
    worths.sort(key=lambda worth: [WHOLE, *names].index(worth.variant))
    figures = list(dict.fromkeys(worth.figure for worth in worths))
    console.print(_text(f"{table.name}: tau on {target}, regret on {searched} in points", worths, figures))
    study.write("ablation_summary.csv", [_plain(worth) for worth in worths])
    for kind in ("tau", "regret"):
        shown = [worth for worth in worths if worth.figure.startswith(kind) and worth.difference is not None]
        if shown:
            plot_differences(
                {
                    figure: {w.variant: w.difference for w in shown if w.figure == figure and w.difference is not None}
                    for figure in figures
                    if figure.startswith(kind)
                },
                f"{kind}, less that of nasgem as it is",
                folder / f"ablation_{kind}.png",
            )
    console.print(f"{folder}/ablation_tau.csv, ablation_search.csv (runs), ablation_summary.csv, ablation_*.png")
    return worths


def _one(asked: str | None, usual: str | None) -> list[str] | None:
    name = asked or usual
    return None if name is None else [name]


def _taus(rows: Sequence[RunRow], sizes: Sequence[int]) -> list[Worth]:
    values: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        values.setdefault((row["predictor"], int(row["size"])), {})[row["seed"]] = float(row["tau"])
    return [
        _worth(model, f"tau from {size} cells", taus, values[WHOLE, size])
        for size in sizes
        for (model, of_size), taus in values.items()
        if of_size == size
    ]


def _regrets(rows: Sequence[RunRow], tasks: Sequence[SearchTask], variants: Sequence[str]) -> list[Worth]:
    curves: dict[str, dict[str, Sequence[float]]] = {}
    for row, task, variant in zip(rows, tasks, variants, strict=True):
        curves.setdefault(variant, {})[row["seed"]] = text_to_steps(row["regrets"], task.queries).tolist()
    return [
        _worth(
            variant,
            f"regret after {k} queries",
            {seed: curve[k - 1] for seed, curve in own.items()},
            {seed: curve[k - 1] for seed, curve in curves[WHOLE].items()},
        )
        for k in CHECKPOINTS
        for variant, own in curves.items()
    ]


def _worth(variant: str, figure: str, own: dict[str, float], whole: dict[str, float]) -> Worth:
    difference = None if variant == WHOLE else paired_difference(list(own.values()), [whole[seed] for seed in own])
    return Worth(variant, figure, mean_interval(list(own.values())), difference)


def _text(title: str, worths: Sequence[Worth], figures: Sequence[str]) -> TextTable:
    text = text_table(f"{title}; below it, less nasgem's, pair by pair [95 % interval]", ("", *figures))
    by_variant: dict[str, dict[str, str]] = {}
    for worth in worths:
        cell = f"{worth.value.mean:.3f}"
        if worth.difference is not None:
            mark = "*" if worth.difference.clear_of_zero else ""
            cell += f"\n{worth.difference.text('+.4f')}{mark}"
        by_variant.setdefault(worth.variant, {})[worth.figure] = cell
    for variant, cells in by_variant.items():
        text.add_row(variant, *(cells.get(figure, "") for figure in figures))
    return text


def _plain(worth: Worth) -> dict[str, object]:
    return {
        "variant": worth.variant,
        "figure": worth.figure,
        "seeds": worth.value.n,
        "value": f"{worth.value.mean:.4f}",
        "low": f"{worth.value.low:.4f}",
        "high": f"{worth.value.high:.4f}",
        **interval_columns("difference", worth.difference),
    }
