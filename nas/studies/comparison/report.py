"""What a comparison found, as a table: for people (Markdown) and for programs (CSV)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gemnet.quoting import markdown_text
from nas.evaluation.statistics import Interval, mean_interval
from nas.studies.comparison.run import Comparison, Contender


@dataclass(frozen=True)
class Figures:
    """A network's accuracies on one part of the images.

    Args:
        mean: top-1 in percent; NaN without any training.
        sd: standard deviation of one training; NaN below two.
        n: trainings.
        failed: trainings that came to nothing.
        lead: reference's accuracy less this network's, in points, paired by seed, with its 95 % interval (t); None
            without a common seed and for the reference itself.
    """

    mean: float
    sd: float
    n: int
    failed: int
    lead: Interval | None


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Args:
        name: of the network, or of a group of controls.
        macs: multiply-adds; of a group their mean.
        params: parameters; likewise.
        macs_saved: by how much of this network's MACs the reference has fewer, in percent.
        time: of the deployed network as a multiple of the reference's; NaN where not measured.
        lr: learning rate; NaN for a group.
        dev: on the development images.
        test: on the test images; None where they were not opened.
        group: of a control, what it is one of.
        is_mean: whether this is the line of a whole group.
    """

    name: str
    macs: float
    params: float
    macs_saved: float
    time: float
    lr: float
    dev: Figures
    test: Figures | None
    group: str = ""
    is_mean: bool = False


def lines(comparison: Comparison) -> list[Line]:
    """A line a network, the reference first, then by accuracy; then a line for each group of controls.

    A group's lead is the mean over its cells of the lead over each, and its interval that over cells: what a further
    cell of the group would be expected to do against this reference.
    """
    reference, *others = comparison.contenders
    found = [_line(reference, reference)]
    alone = [_line(other, reference) for other in others if not other.network.group]
    found += sorted(alone, key=lambda line: -line.dev.mean if line.dev.n else math.inf)
    groups = {other.network.group: None for other in others if other.network.group}
    for group in groups:
        members = [other for other in others if other.network.group == group]
        found += sorted((_line(one, reference) for one in members), key=lambda line: -line.dev.mean)
        found.append(_group_line(group, members, reference))
    return found


def _line(one: Contender, reference: Contender) -> Line:
    test = None
    if one.test_accuracies:
        test = _figures(one.test_accuracies, reference.test_accuracies, one is reference)
    return Line(
        one.network.title,
        one.network.macs,
        one.network.params,
        100 * (1 - reference.network.macs / one.network.macs),
        one.network.time,
        one.lr,
        _figures(one.accuracies, reference.accuracies, one is reference),
        test,
        one.network.group,
    )


def _figures(own: Mapping[int, float], reference: Mapping[int, float], is_reference: bool) -> Figures:
    good = {seed: value for seed, value in own.items() if not math.isnan(value)}
    pairs = [reference[seed] - value for seed, value in good.items() if not math.isnan(reference.get(seed, math.nan))]
    values = list(good.values())
    return Figures(
        float(np.mean(values)) if values else math.nan,
        float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
        len(values),
        len(own) - len(values),
        None if is_reference or not pairs else mean_interval(pairs),
    )


def _group_line(group: str, members: Sequence[Contender], reference: Contender) -> Line:
    each = [_line(one, reference) for one in members]

    def together(parts: Sequence[Figures]) -> Figures:
        means = [part.mean for part in parts if part.n]
        leads = [part.lead.mean for part in parts if part.lead is not None]
        return Figures(
            float(np.mean(means)) if means else math.nan,
            float(np.std(means, ddof=1)) if len(means) > 1 else math.nan,
            len(means),
            sum(part.failed for part in parts),
            mean_interval(leads) if leads else None,
        )

    tests = [line.test for line in each if line.test is not None]
    macs = float(np.mean([line.macs for line in each]))
    return Line(
        f"{len(members)} {group}: mean",
        macs,
        float(np.mean([line.params for line in each])),
        100 * (1 - reference.network.macs / macs),
        float(np.mean([line.time for line in each])),
        math.nan,
        together([line.dev for line in each]),
        together(tests) if tests else None,
        group,
        True,
    )


def markdown(comparison: Comparison) -> str:
    """The table as Markdown, with what its columns mean."""
    config, found = comparison.config, lines(comparison)
    reference = markdown_text(config.reference)
    test = any(line.test is not None for line in found)
    timed = config.fit.by == "time"
    head = ["network", *(["time"] if timed else []), "M MACs", "reference has fewer", "k params", "lr"]
    head += ["dev top-1", f"{reference} leads by"]
    if test:
        head += ["test top-1", f"{reference} leads by"]
    text = [f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
    for line in found:
        own = line is found[0]
        cells = [
            f"**{markdown_text(line.name)}**" if own else markdown_text(line.name),
            *([f"{line.time:.2f}"] if timed else []),
            f"{line.macs / 1e6:.2f}",
            "" if own else f"{line.macs_saved:.0f} %",
            f"{line.params / 1e3:.1f}",
            "" if math.isnan(line.lr) else f"{line.lr:g}",
        ]
        for figures in (line.dev, line.test) if test else (line.dev,):
            trainings = "" if figures is None or line.is_mean else _unfinished(figures, len(config.seeds))
            cells += ["", ""] if figures is None else [_spread(figures) + trainings, _lead(figures)]
        text.append(f"| {' | '.join(cells)} |")
    test_note = "; test: the official test images." if test else "; the official test images were not opened."
    notes = [
        f"{markdown_text(config.data.source)}, one recipe, {_plural(config.epochs, 'epoch')}, "
        f"{_plural(len(config.seeds), 'seed')} "
        f"({', '.join(str(seed) for seed in config.seeds)}). Top-1 in percent, mean ± standard deviation of one "
        "training. Lead: reference's accuracy less the network's in points, paired by seed, with its 95 % interval "
        f"(t). dev: images set aside from the training images{test_note}"
    ]
    if timed:
        batches = " and ".join(f"{size}" for size in config.fit.batch_sizes)
        notes.append(
            f"Time: CPU time of the deployed network in onnxruntime as a multiple of {reference}'s, one thread, "
            f"{batches} images at a time, measured in turns; fitted peers take at least as long."
        )
    if len(config.lrs) > 1:
        rates = ", ".join(f"{lr:g}" for lr in config.lrs)
        notes.append(
            f"The learning rate was chosen among {rates} for each network alike, on a run of "
            f"{_plural(config.choice.epochs, 'epoch')} of {config.choice.subset:.0%} of the training images."
        )
    if any(line.is_mean for line in found):
        notes.append(
            "A group's line: mean ± standard deviation over its cells; its lead is that over a further cell of the "
            f"group, as far as the cells make it uncertain. All of a group are paired with the same "
            f"{_plural(len(config.seeds), 'training')} of {reference}, whose own spread is not in the interval."
        )
    edge = _at_the_edge(comparison)
    if edge:
        notes.append(f"At the edge of the learning rates offered: {markdown_text(edge)}. A better one may lie beyond.")
    if comparison.given_up:
        notes.append(f"Given up, since no short run came to an end: {markdown_text(', '.join(comparison.given_up))}.")
    return "\n".join(text) + "\n\n" + "\n\n".join(notes) + "\n"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _at_the_edge(comparison: Comparison) -> str:
    rates = comparison.config.lrs
    if len(rates) < 2:
        return ""
    return ", ".join(
        f"{one.network.name} ({one.lr:g})" for one in comparison.contenders if one.lr in (min(rates), max(rates))
    )


def _spread(figures: Figures) -> str:
    failed = f" ({figures.failed} failed)" if figures.failed else ""
    if not figures.n:
        return f"-{failed}"
    spread = "" if math.isnan(figures.sd) else f" ± {figures.sd:.2f}"
    return f"{figures.mean:.2f}{spread}{failed}"


def _unfinished(figures: Figures, seeds: int) -> str:
    done = figures.n + figures.failed
    return "" if done == seeds else f" ({done} of {seeds} seeds)"


def _lead(figures: Figures) -> str:
    return "" if figures.lead is None else figures.lead.text("+.2f")


def as_csv(comparison: Comparison) -> str:
    """The table as CSV, in full precision; empty cells where there is no figure."""
    names = ["network", "macs", "params", "macs_saved_percent", "time", "lr"]
    parts = ["mean", "sd", "n", "failed", "lead", "lead_low", "lead_high"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names + [f"{split}_{part}" for split in ("dev", "test") for part in parts])
    for line in lines(comparison):
        cells: list[object] = [
            line.name,
            f"{line.macs:.0f}",
            f"{line.params:.0f}",
            f"{line.macs_saved:.2f}",
            line.time,
            line.lr,
        ]
        for figures in (line.dev, line.test):
            if figures is None:
                cells += [""] * len(parts)
                continue
            lead = figures.lead
            cells += [figures.mean, figures.sd, figures.n, figures.failed]
            cells += ["", "", ""] if lead is None else [lead.mean, lead.low, lead.high]
        writer.writerow(["" if isinstance(c, float) and math.isnan(c) else _number(c) for c in cells])
    return text.getvalue()


def _number(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
