"""What a comparison of backbones in detectors found, as a table: for people (Markdown), for programs (CSV)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gemnet.detection.costs import Costs
from nas.evaluation.statistics import Interval, mean_interval
from nas.studies.detectors.config import Backbone
from nas.studies.detectors.run import DEV, TEST, DetectorComparison, DetectorEntry

SHARES = ("mAP", "mAP_50")
"""Ends of the names of figures that tables show, in percent; COCO has many more."""


@dataclass(frozen=True)
class Line:
    """A detector on a backbone.

    Args:
        method: the detector.
        backbone: what it is built on.
        costs: of both.
        values: by the figure's name, in percent, one a seed, in the order of the seeds; NaN where the images have no
            box of that size or class.
        lead: the reference's figure of `DetectorComparisonConfig.metric` less this one's, in points, paired by seed,
            with its 95 % interval (t); None for the reference, and where the images have no box of that metric.
    """

    method: str
    backbone: Backbone
    costs: Costs
    values: dict[str, list[float]]
    lead: Interval | None


def phase_of(comparison: DetectorComparison) -> str:
    """``test`` where the official test images were opened for all, else ``training`` (development images)."""
    return TEST if all(entry.test for entry in comparison.entries) else DEV


def figure_title(name: str) -> str:
    """``coco/bbox_mAP_50`` as ``AP50``, ``coco/person_mAP`` as ``person AP``."""
    short = name.rpartition("/")[2].replace("_mAP_", " AP").replace("_mAP", " AP")
    return short.removeprefix("bbox ")


def lines(comparison: DetectorComparison) -> list[Line]:
    """A line for each detector and backbone: detector by detector, the reference first, then by the metric."""
    config, phase = comparison.config, phase_of(comparison)
    found: list[Line] = []
    for method in dict.fromkeys(entry.job.method for entry in comparison.entries):
        own = [entry for entry in comparison.entries if entry.job.method == method]
        values = {
            backbone.title: _values([entry for entry in own if entry.job.backbone == backbone], phase, config.metric)
            for backbone in config.backbones
        }
        best = values[config.reference][config.metric]
        part = []
        for backbone in config.backbones:
            costs = next(entry.costs for entry in own if entry.job.backbone == backbone)
            gaps = [a - b for a, b in zip(best, values[backbone.title][config.metric], strict=True)]
            known = backbone.title != config.reference and not any(math.isnan(gap) for gap in gaps)
            lead = mean_interval(gaps) if known else None
            part.append(Line(method, backbone, costs, values[backbone.title], lead))
        found += sorted(
            part, key=lambda line: (line.backbone.title != config.reference, -_mean(line.values[config.metric]))
        )
    return found


def _values(entries: Sequence[DetectorEntry], phase: str, metric: str) -> dict[str, list[float]]:
    figures = [entry.test if phase == TEST else entry.dev for entry in entries]
    names = [name for name in figures[0] if name.endswith(SHARES) or name == metric]
    # COCO's evaluation says -1 where the images have no box to find.
    return {name: [100 * each[name] if each[name] >= 0 else math.nan for each in figures] for name in names}


def markdown(comparison: DetectorComparison) -> str:
    """A table for each detector, with what its columns mean."""
    config, found, phase = comparison.config, lines(comparison), phase_of(comparison)
    names = list(found[0].values)
    head = ["backbone", "M MACs", "k params", "detector M MACs", "k params", "CPU s an image"]
    head += [*(figure_title(name) for name in names), f"{config.reference} leads by ({figure_title(config.metric)})"]
    text = []
    for method in dict.fromkeys(line.method for line in found):
        text.append(f"**{method}**\n")
        text.append(f"| {' | '.join(head)} |\n| --- |" + " ---: |" * (len(head) - 1))
        for line in (line for line in found if line.method == method):
            costs = line.costs
            title = line.backbone.title
            cells = [
                f"**{title}**" if title == config.reference else title,
                f"{costs.macs / 1e6:.0f}",
                f"{costs.params / 1e3:.0f}",
                f"{costs.detector_macs / 1e6:.0f}",
                f"{costs.detector_params / 1e3:.0f}",
                f"{costs.seconds:.3f}",
                *(_spread(line.values[name]) for name in names),
                _lead(line.lead),
            ]
            text.append(f"| {' | '.join(cells)} |")
        text.append("")
    where = (
        "the official test images" if phase == TEST else "development images; the official test images were not opened"
    )
    epochs = {entry.job.epochs for entry in comparison.entries}
    seeds = ", ".join(map(str, config.seeds))
    start = f"Backbones start from `{config.weights}`" if config.weights else "Trained from scratch"
    length = "/".join(map(str, sorted(epochs)))
    text.append(
        f"{length} epochs, seeds {seeds}; {where}. {start}. Figures in percent: mean over seeds (lowest to highest). "
        "Lead: the reference's figure less the other's in points, paired by seed, with its 95 % interval (t). MACs are "
        "those of one image, mean over development images at the size they are tested at; CPU time of one thread from "
        "image to boxes, median."
    )
    return "\n".join(text) + "\n"


def as_csv(comparison: DetectorComparison) -> str:
    """A row for each training and phase; figures as the evaluator gives them, shares of one."""
    names = [name for name in comparison.entries[0].dev if "AP" in name]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    costs = ["macs", "params", "detector_macs", "detector_params", "seconds"]
    writer.writerow(["detector", "network", "phase", "seed", "epochs", *names, *costs])
    for entry in comparison.entries:
        job = entry.job
        for phase, figures in ((DEV, entry.dev), (TEST, entry.test)):
            if figures:
                values = [figures.get(name, math.nan) for name in names]
                own = [f"{value:.6g}" for value in vars(entry.costs).values()]
                writer.writerow([job.method, job.backbone.title, phase, job.seed, job.epochs, *values, *own])
    return text.getvalue()


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _spread(values: Sequence[float]) -> str:
    if any(math.isnan(value) for value in values):
        return ""
    return f"{_mean(values):.1f} ({min(values):.1f}-{max(values):.1f})" if len(values) > 1 else f"{values[0]:.1f}"


def _lead(lead: Interval | None) -> str:
    return "" if lead is None else lead.text("+.1f")
