"""From a config's names to the parts of a search."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from executor_doubles import OwnExecutor
from PIL import Image

from gemnet import machine
from gemnet.machine import idle_cores
from gemnet.strict import ConfigError
from nas.executors import LocalExecutor, SerialExecutor, options
from nas.executors.monitor import Monitor
from nas.executors.options import WorkerOptions, workers_of
from nas.search.config import read_config
from nas.search.explore import prepare_strategy
from nas.search.parts import build_executor, build_parts, build_strategy, check_config, check_space
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import LimitsError
from nas.spaces.nasbench201 import NASBench201, arch_from_cell
from nas.strategies.evolution import RegularizedEvolution

DIGITS = {
    "space": {"type": "gemnet", "max_nodes": 5},
    "strategy": {"type": "evolution", "population": 7},
    "evaluator": {"type": "training"},
    "data": {"source": "digits"},
    "fidelity": {"epochs": 1},
}


class Listener(Monitor):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, text: str) -> None:
        self.heard.append(text)

    def step(self, text: str, best: str = "", left: str = "", known: bool = False) -> None:
        self.heard.append(text)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEMNET_CACHE", str(tmp_path / "cache"))


def test_classes_channels_and_image_size_come_from_the_images(tmp_path) -> None:
    for split in ("train",):
        for k, name in enumerate(("cat", "dog", "emu")):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for n in range(4):
                picture = Image.new("RGB", (20, 20), (80 * k, 40 * n, 0))
                picture.save(tmp_path / "photos" / split / name / f"{n}.png")
    space = build_parts(read_config({**DIGITS, "data": {"source": str(tmp_path / "photos")}}))[0]
    assert isinstance(space, GEMNetSpace)
    assert (space.template.num_classes, space.in_chans, space.template.input_size) == (3, 3, 20)
    digits = build_parts(read_config(DIGITS))[0]
    assert isinstance(digits, GEMNetSpace)
    assert (digits.template.num_classes, digits.in_chans, digits.template.input_size) == (10, 1, 8)
    larger = build_parts(read_config({**DIGITS, "space": {"type": "gemnet", "input_size": 16}}))[0]
    assert isinstance(larger, GEMNetSpace)
    assert larger.template.input_size == 16


def test_fingerprint_depends_on_what_results_depend_on() -> None:
    def fingerprint(**changes) -> str:
        return build_parts(read_config({**DIGITS, **changes}))[1].fingerprint

    plain = fingerprint()
    assert fingerprint() == plain
    assert fingerprint(workers={"count": 3}, time_limit=5.0, strategy={"type": "random"}) == plain
    assert fingerprint(recipe={"lr": 0.3}) != plain
    assert fingerprint(data={"source": "digits", "split_seed": 1}) != plain
    assert fingerprint(workers={"threads": 2}) != plain
    assert fingerprint(space={"type": "gemnet", "size": "b"}) != plain


def test_strategy_gets_its_options() -> None:
    config = read_config(DIGITS)
    strategy = build_strategy(config, *build_parts(config))
    assert isinstance(strategy, RegularizedEvolution)
    assert strategy.population == 7


def test_executor_is_what_the_config_and_the_machine_say(monkeypatch) -> None:
    monkeypatch.setattr(options, "available_cores", lambda: 6)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)

    def executor(**workers):
        config = read_config({**DIGITS, "workers": workers})
        return build_executor(config, build_parts(config)[1], None)

    assert isinstance(executor(count=0), SerialExecutor)
    assert isinstance(executor(), LocalExecutor)
    assert executor().workers == 6
    assert executor(threads=4).workers == 1
    assert executor(count=3).workers == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert executor().workers == 2


def test_an_executor_of_ones_own_is_made_as_the_local_one_is(tmp_path) -> None:
    workers = {"type": "executor_doubles.OwnExecutor", "count": 3, "threads": 2}
    config = read_config({**DIGITS, "workers": workers})
    made = build_executor(config, build_parts(config)[1], tmp_path / "log")
    assert isinstance(made, OwnExecutor)
    assert made.given == (3, 2, tmp_path / "log")
    with pytest.raises(ConfigError, match=r"workers\.type"):
        build_executor(replace(config, workers=replace(config.workers, type="lokal")), build_parts(config)[1], None)


@pytest.mark.parametrize(
    ("given", "names"), [(None, ["0", "1"]), ("2,3", ["2", "3"]), ("GPU-8f1e, GPU-77aa", ["GPU-8f1e", "GPU-77aa"])]
)
def test_workers_get_the_gpus_that_this_process_was_given(given, names, monkeypatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert workers_of(WorkerOptions()) == (2, names)
    assert workers_of(WorkerOptions(count=0)) == (0, names)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": {"type": "nasbench201"}}, "builds networks of space 'gemnet'"),
        ({"evaluator": {"type": "training", "x": 1}}, "no config key evaluator.x. It takes no options"),
        ({"evaluator": {"type": "tabular", "accuracy": "x"}}, "data is given, but evaluator 'tabular' trains nothing"),
        ({"evaluator": {"type": "tabular"}, "data": {}, "final": {"epochs": 2}}, "final is given, but evaluator"),
        ({"evaluator": {"type": "tabular"}, "data": {}, "space": {"type": "nasbench201"}}, "needs accuracy"),
        ({"space": {"type": "gemnet", "max_nodes": "ten"}}, "space.max_nodes is a whole number, got 'ten'"),
        ({"space": {"type": "gemnet", "stage_widths": 16}}, "space.stage_widths is a list, got 16"),
        ({"space": {"type": "gemnet", "choices": {"width": 1.0}}}, "space.choices.width is a list, got 1.0"),
        (
            {
                "evaluator": {"type": "tabular", "accuracy": "x"},
                "data": {},
                "strategy": {"type": "nasgem", "cheap_epochs": 12},
            },
            "strategy.cheap_epochs is given, but evaluator 'tabular' has one column",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_refused(changes, words) -> None:
    config = read_config({**DIGITS, **changes})

    def checked() -> None:
        check_config(config)
        build_parts(config)

    with pytest.raises(ConfigError) as caught:
        checked()
    assert words in str(caught.value)


def test_cores_that_others_use_are_left_to_them(monkeypatch) -> None:
    monkeypatch.setattr(machine, "available_cores", lambda: 4)
    for load, idle in ((0.2, 4), (1.4, 3), (3.6, 1), (30.0, 1)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert idle_cores() == idle


def test_encoder_is_trained_before_the_search_and_only_once() -> None:
    tiny = {"steps": 45, "hidden": 8, "dimension": 8, "rounds": 1, "batch_size": 64}
    config = read_config({**DIGITS, "strategy": {"type": "nasgem", "encoder": tiny}})
    first, second = Listener(), Listener()
    prepare_strategy(build_strategy(config, *build_parts(config)), first)
    assert "later ones find it in the cache" in first.heard[0]
    assert ["loss" in text for text in first.heard[1:]] == [True] * 20
    prepare_strategy(build_strategy(config, *build_parts(config)), second)
    assert second.heard == []
    without = read_config({**DIGITS, "strategy": {"type": "nasgem", "encoder": None}})
    prepare_strategy(build_strategy(without, *build_parts(without)), second)
    assert second.heard == []


def test_values_of_the_space_are_taken_as_they_are_meant() -> None:
    space = {"type": "gemnet", "max_nodes": 1e1, "choices": {"width": [1.0, 2], "activation": ["relu"]}}
    made = build_parts(read_config({**DIGITS, "space": space}))[0]
    assert isinstance(made, GEMNetSpace)
    assert made.max_nodes == 10
    # A width of 1.0 stays one: it is part of what a candidate is found again by.
    assert [type(value) for value in made.macro_choices["width"]] == [float, int]


def test_a_table_trains_one_encoder(tmp_path) -> None:
    cells = NASBench201().sample(40, np.random.default_rng(0))
    archs = [arch_from_cell(NASBench201().unpack(cells, row).cell) for row in range(40)]
    table = pa.table({"arch_str": list(dict.fromkeys(archs)), "accuracy": np.arange(float(len(set(archs))))})
    pa.parquet.write_table(table, tmp_path / "some.parquet")
    tiny = {"steps": 3, "hidden": 8, "dimension": 8, "rounds": 1, "batch_size": 64}
    config = read_config(
        {
            **DIGITS,
            "data": {},
            "space": {"type": "nasbench201"},
            "evaluator": {"type": "tabular", "accuracy": "accuracy", "path": str(tmp_path / "some.parquet")},
            "strategy": {"type": "nasgem", "encoder": tiny},
        }
    )
    prepare_strategy(build_strategy(config, *build_parts(config)), Listener())
    assert len(list((tmp_path / "cache" / "encoders").glob("*.safetensors"))) == 1


def test_a_table_is_called_by_its_file_whatever_space_the_config_names(tmp_path) -> None:
    cell = '"{""edges"": [[0, 1, ""%s""]]}",%s\n'
    (tmp_path / "own.csv").write_text("graph,accuracy,macs\n" + cell % ("a", "1.0,7") + cell % ("b", "2.0,9"))
    for name in ("table", "nasbench101"):
        values = {**DIGITS, "data": {}, "space": {"type": name}, "limits": {"max_macs": 8}}
        values["evaluator"] = {"type": "tabular", "accuracy": "accuracy", "path": str(tmp_path / "own.csv")}
        config = read_config(values)
        space, _ = build_parts(config)
        assert space.name == "own"
        assert len(build_strategy(config, space, None).pool) == 1
    with pytest.raises(ConfigError, match=r"evaluator\.path"):
        build_parts(
            read_config({**values, "space": {"type": "table"}, "evaluator": {**values["evaluator"], "path": None}})
        )


def test_a_score_that_charges_macs_needs_some(tmp_path) -> None:
    (tmp_path / "own.csv").write_text(
        'graph,accuracy\n"{""ops"": [""a""], ""edges"": [[0, 1], [1, 2]]}",1.0\n'
        '"{""ops"": [""b""], ""edges"": [[0, 1], [1, 2]]}",2.0\n'
    )
    config = read_config(
        {
            **DIGITS,
            "data": {},
            "space": {"type": "own"},
            "evaluator": {"type": "tabular", "accuracy": "accuracy", "path": str(tmp_path / "own.csv")},
            "score": {"weight": 1.0, "target_macs": 1e6},
        }
    )
    with pytest.raises(LimitsError, match="macs"):
        check_space(config, *build_parts(config))


@pytest.mark.parametrize(("side", "levels"), [(32, 3), (96, 4)])
def test_large_images_get_networks_for_large_images_where_a_config_names_no_form(side, levels) -> None:
    data = {"source": "digits", "resolution": side}
    parts = {"space": {"type": "gemnet"}, "strategy": {"type": "random"}, "evaluator": {"type": "training"}}
    space, _ = build_parts(read_config({**parts, "fidelity": {"epochs": 1}, "data": data}))
    assert len(space.template.widths) == levels
