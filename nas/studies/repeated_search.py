"""A whole search over several seeds: is what it finds better than chance, and than what people made?

For each seed the search runs to its end, and random search beside it with the same evaluations, confirmation and final
training. All figures are of official test images where the data set has some. Leads are paired by seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from gemnet.files import stored_json, write_json
from gemnet.strict import Component, ConfigError
from nas.evaluation.statistics import Interval, paired_difference
from nas.executors.monitor import Monitor
from nas.search.config import SearchConfig, read_config
from nas.search.folder import read_identity
from nas.search.main import run_search
from nas.search.rivals import FOUND, RANDOM_CELLS

RESULTS, SUMMARY = "seeds.json", "summary.json"


@dataclass(frozen=True)
class SeedResult:
    """What one seed came to; accuracies are top-1 in percent, the mean of a network's trainings.

    Args:
        seed: of the search.
        found: the found network.
        random_search: the network that random search found with the same evaluations.
        random_cells: mean of the random cells; NaN where none fits the limits, or all failed.
        blocks: the hand-made blocks by title, those that fit; NaN where a training failed.
        macs: multiply-adds of the found network.
        seconds: wall-clock time of the search, comparison included; random search's is not in it.
        bookkeeping: share of that time which went into anything but training.
        on_test: whether accuracies are of the official test images; else of the development images.
    """

    seed: int
    found: float
    random_search: float
    random_cells: float
    blocks: dict[str, float]
    macs: float
    seconds: float
    bookkeeping: float
    on_test: bool

    @property
    def better_block(self) -> float:
        """The better of the hand-made blocks; NaN where there is none."""
        return max((value for value in self.blocks.values() if not math.isnan(value)), default=math.nan)


@dataclass(frozen=True)
class Lead:
    """The found networks' lead over something else, in points.

    Args:
        over: what.
        ahead: seeds in which the found network was ahead.
        interval: mean lead with its 95 % interval, paired by seed, over the seeds that have both.
    """

    over: str
    ahead: int
    interval: Interval


def repeat_search(config: SearchConfig, folder: Path, seeds: int, monitor: Monitor) -> list[SeedResult]:
    """Runs a search and random search with seeds 0 to ``seeds - 1``; what was finished before is not run again.

    Args:
        config: the search; its own seed is not used.
        folder: a folder for each search is made in it, and ``seeds.json``.
        seeds: how many.
        monitor: hears how it goes.

    Raises:
        ConfigError: the evaluator trains no networks of ours, or the config compares nothing: no final training, no
            random cells or no blocks.
        GemnetError: as `nas.search.main.run_search`.
    """
    if config.evaluator.type != "training":
        raise ConfigError(
            f"--seeds repeats searches of evaluator 'training', whose networks are trained and compared at the end; "
            f"evaluator.type is {config.evaluator.type!r}. tools/benchmark.py search compares strategies on tables."
        )
    comparison = config.comparison
    if config.final is None or comparison is None or not comparison.random_cells or not comparison.blocks:
        raise ConfigError(
            "Searches are repeated to compare what they find. Set final, comparison.random_cells and comparison.blocks."
        )
    chance = replace(
        config,
        strategy=Component("random", {k: v for k, v in config.strategy.options.items() if k == "initial"}),
        comparison=replace(comparison, random_cells=0, blocks=()),
    )
    results = []
    for seed in range(seeds):
        monitor.note(f"Seed {seed}, {seed + 1} of {seeds}")
        own = _summary(config, folder / f"seed-{seed}", seed, monitor)
        other = _summary(chance, folder / f"seed-{seed}-random", seed, monitor)
        rows = {row["name"]: _accuracy(row) for row in own["comparison"]}
        results.append(
            SeedResult(
                seed=seed,
                found=rows.pop(FOUND),
                random_search=_accuracy(other["comparison"][0]),
                random_cells=rows.pop(RANDOM_CELLS, math.nan),
                blocks={name: value for name, value in rows.items() if not name.startswith(FOUND)},
                macs=own["comparison"][0]["macs"],
                seconds=own["seconds"]["total"],
                bookkeeping=own["bookkeeping_share"],
                on_test=bool(own["comparison"][0]["test_accuracies"]),
            )
        )
        write_json(folder / RESULTS, {"seeds": [asdict(result) for result in results]})
    return results


def leads(results: Sequence[SeedResult]) -> list[Lead]:
    """The found networks' leads over the random cells, the better block and random search, where there are any."""
    found = np.array([result.found for result in results])
    others = {
        "the mean of the random cells": np.array([result.random_cells for result in results]),
        "the better hand-made block": np.array([result.better_block for result in results]),
        "random search": np.array([result.random_search for result in results]),
    }
    made = []
    for name, values in others.items():
        both = np.isfinite(found) & np.isfinite(values)
        if both.any():
            made.append(Lead(name, int(np.sum(found > values)), paired_difference(found[both], values[both])))
    return made


def print_seeds(console: Console, results: Sequence[SeedResult]) -> None:
    """Prints a line for each seed, and the leads."""
    console.print(seeds_table(results))
    for lead in leads(results):
        console.print(
            f"Over {lead.over}: ahead with {lead.ahead} of {lead.interval.n} seeds, by {lead.interval.text('+.2f')} "
            "points (mean, 95 % interval, paired by seed)",
            highlight=False,
            markup=False,
        )


def seeds_table(results: Sequence[SeedResult]) -> Table:
    """A table with a line for each seed."""
    measured_on = "test" if all(result.on_test for result in results) else "development"
    table = Table(title=f"top-1 on {measured_on} images in %, each network trained alike")
    blocks = list(dict.fromkeys(name for result in results for name in result.blocks))
    for name in ("seed", "found", "random cells", *blocks, "random search", "M MACs", "seconds", "bookkeeping"):
        table.add_column(name, justify="right")
    for each in results:
        table.add_row(
            f"{each.seed}",
            *(
                "" if math.isnan(value) else f"{value:.2f}"
                for value in (
                    each.found,
                    each.random_cells,
                    *(each.blocks.get(name, math.nan) for name in blocks),
                    each.random_search,
                    each.macs / 1e6,
                )
            ),
            f"{each.seconds:.0f}",
            f"{each.bookkeeping:.1%}",
        )
    return table


def _summary(config: SearchConfig, folder: Path, seed: int, monitor: Monitor) -> dict[str, Any]:
    """The summary of a search, which is run, or finished, only where there is none yet."""
    config = replace(config, search=replace(config.search, seed=seed))
    known = stored_json(folder / SUMMARY) if (folder / SUMMARY).is_file() else {}
    if not known or not _is_of(known, config, folder):
        run_search(config, folder, resume=folder.is_dir(), monitor=monitor)
        known = stored_json(folder / SUMMARY)
    return known


def _is_of(summary: Mapping[str, Any], config: SearchConfig, folder: Path) -> bool:
    """Whether a summary is that of a config's search, whoever evaluated."""
    same = read_config(read_identity(folder)["config"]).identity() == config.identity()
    return same and summary.get("evaluations") == config.search.evaluations


def _accuracy(row: Mapping[str, Any]) -> float:
    values = row["test_accuracies"] or row["accuracies"]
    return float(np.mean(values)) if values else math.nan
