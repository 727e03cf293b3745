"""Whole searches over several seeds, beside random search."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from gemnet.files import stored_json, write_json
from gemnet.strict import Component, ConfigError
from nas.executors.monitor import Monitor
from nas.search.config import SearchConfig, find_config, load_config
from nas.studies import repeated_search
from nas.studies.repeated_search import SeedResult, leads, print_seeds, repeat_search


@pytest.fixture
def config() -> SearchConfig:
    return load_config(find_config("default"))


class Searches:
    """Writes what a search would, and remembers what was run.

    Args:
        fail_at: the run at which Ctrl-C is pressed.
    """

    def __init__(self, fail_at: int | None = None) -> None:
        self.runs: list[tuple[str, int]] = []
        self.fail_at = fail_at

    def __call__(self, config: SearchConfig, path: Path, resume: bool, monitor: Monitor) -> None:
        if len(self.runs) == self.fail_at:
            raise KeyboardInterrupt
        seed, kind = config.search.seed, config.strategy.type
        self.runs.append((kind, seed))
        assert resume == path.is_dir()
        path.mkdir()
        identity = {"format": 1, "search_id": "s", "evaluator": "e", "config": config.to_dict()}
        write_json(path / "search.json", identity)
        accuracies = {"found network": (80.0 + seed, 82.0 + seed)}
        if kind == "random":
            accuracies = {"found network": (75.0, 75.0)}
            assert config.comparison.random_cells == 0
            assert config.comparison.blocks == ()
            assert config.strategy.options == {"initial": 12}
            assert config.search.evaluations == 48
            assert config.confirm.top == 4
        else:
            accuracies |= {"random cells": (60.0, 70.0), "MobileNetV2 block": (81.0,), "ResNet block": (78.0,)}
        rows = [
            {"name": name, "accuracies": [0.0], "test_accuracies": list(values), "macs": 1e6}
            for name, values in accuracies.items()
        ]
        write_json(
            path / "summary.json",
            {"evaluations": 48, "comparison": rows, "seconds": {"total": 60.0}, "bookkeeping_share": 0.05},
        )


def test_leads_are_of_test_images_paired_by_seed(config, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(repeated_search, "run_search", Searches())
    results = repeat_search(config, tmp_path, 3, Monitor())
    cells, block, chance = leads(results)
    assert (cells.ahead, cells.interval.mean) == (3, pytest.approx(17.0))
    assert (block.ahead, block.interval.mean) == (2, pytest.approx(1.0))  # with seed 0 they are level
    assert chance.interval.low == pytest.approx(7 - 4.303 / 3**0.5, abs=1e-3)
    assert stored_json(tmp_path / "seeds.json")["seeds"][2]["found"] == 83.0
    console = Console(record=True, width=160, file=io.StringIO())
    print_seeds(console, results)
    printed = console.export_text()
    assert "Over random search: ahead with 3 of 3 seeds, by +7.00 [+4.52, +9.48] points" in printed
    assert "83.00" in printed


def test_what_was_finished_is_not_run_again(config, tmp_path, monkeypatch) -> None:
    first, second, third = Searches(fail_at=3), Searches(), Searches()
    monkeypatch.setattr(repeated_search, "run_search", first)
    with pytest.raises(KeyboardInterrupt):
        repeat_search(config, tmp_path, 2, Monitor())
    monkeypatch.setattr(repeated_search, "run_search", second)
    repeat_search(config, tmp_path, 2, Monitor())
    assert first.runs == [("nasgem", 0), ("random", 0), ("nasgem", 1)]
    assert second.runs == [("random", 1)]
    monkeypatch.setattr(repeated_search, "run_search", third)
    repeat_search(replace(config, workers=replace(config.workers, count=0)), tmp_path, 2, Monitor())
    assert third.runs == []


def test_what_fits_no_limit_or_fails_is_a_blank_and_the_others_count() -> None:
    blank = SeedResult(0, 80.0, 75.0, math.nan, {}, 1e6, 60.0, 0.05, True)
    results = [
        blank,
        replace(blank, seed=1, found=82.0, random_cells=70.0, blocks={"MobileNetV2": 81.0}),
        replace(blank, seed=2, found=71.0, blocks={"ResNet": math.nan, "MobileNetV2": 70.0}),
        replace(blank, seed=3, blocks={"ResNet": math.nan}),
    ]
    assert [each.better_block for each in results] == pytest.approx([math.nan, 81, 70, math.nan], nan_ok=True)
    console = Console(record=True, width=160, file=io.StringIO())
    print_seeds(console, results)
    printed = console.export_text()
    assert "nan" not in printed
    assert "Over the mean of the random cells: ahead with 1 of 1 seeds, by +12.00 points" in printed
    assert "Over the better hand-made block: ahead with 2 of 2 seeds, by +1.00" in printed
    print_seeds(console, [blank])
    assert "block" not in console.export_text()


def test_random_cells_that_fit_no_limit_are_missing(config, tmp_path, monkeypatch) -> None:
    def search(config: SearchConfig, path: Path, resume: bool, monitor: Monitor) -> None:
        Searches()(config, path, resume, monitor)
        summary = stored_json(path / "summary.json")
        summary["comparison"] = [row for row in summary["comparison"] if row["name"] == "found network"]
        write_json(path / "summary.json", summary)

    monkeypatch.setattr(repeated_search, "run_search", search)
    (result,) = repeat_search(config, tmp_path, 1, Monitor())
    assert math.isnan(result.random_cells)
    assert result.blocks == {}


def test_only_searches_that_train_are_repeated(config, tmp_path) -> None:
    own = replace(config, evaluator=Component("mine.Worth", {}), final=None)
    with pytest.raises(ConfigError, match=r"--seeds .* 'training'.* 'mine\.Worth'\. tools/benchmark\.py"):
        repeat_search(own, tmp_path, 2, Monitor())


def test_a_search_that_compares_nothing_can_not_be_repeated(config, tmp_path) -> None:
    for nothing in (replace(config, final=None), replace(config, comparison=None)):
        with pytest.raises(ConfigError, match=r"comparison\.random_cells"):
            repeat_search(nothing, tmp_path, 2, Monitor())
