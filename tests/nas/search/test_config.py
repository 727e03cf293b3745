"""Search configs: what is read, what is refused and with which words."""

from __future__ import annotations

import pytest

from gemnet.strict import ConfigError, check_options, first_difference, keyword_names
from nas.search.config import find_config, load_config, read_config
from nas.spaces.base import Candidate
from nas.spaces.gemnet import GEMNetSpace

SMALL = {
    "space": {"type": "gemnet"},
    "strategy": {"type": "random"},
    "evaluator": {"type": "training"},
    "fidelity": {"epochs": 2},
}


def test_what_is_written_is_read_again() -> None:
    config = read_config(
        {
            **SMALL,
            "strategy": {"type": "nasgem", "initial": 5},
            "limits": {"max_macs": 2_000_000},
            "final": {"epochs": 9},
            "comparison": {"blocks": ["resnet"]},
        }
    )
    assert config.limits.max_macs == 2e6
    assert config.comparison is not None
    assert config.comparison.blocks == ("resnet",)
    assert read_config(config.to_dict()) == config


def test_base_files_and_options_are_merged(tmp_path) -> None:
    (tmp_path / "base.py").write_text(
        "space = dict(type='gemnet')\nstrategy = dict(type='random')\nevaluator = dict(type='training')\n"
        "fidelity = dict(epochs=2)\nsearch = dict(evaluations=7, seed=3)\n"
    )
    (tmp_path / "own.py").write_text("_base_ = ['base.py']\nsearch = dict(evaluations=9)\n")
    config = load_config(tmp_path / "own.py", {"fidelity.epochs": 4, "limits.max_macs": 1e6})
    assert (config.search.evaluations, config.search.seed) == (9, 3)
    assert config.fidelity.epochs == 4
    assert config.limits.max_macs == 1e6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"serach": {}}, "no config key serach. Did you mean 'search'?"),
        ({"search": {"evaluation": 3}}, "no config key search.evaluation. Did you mean 'search.evaluations'?"),
        ({"limits": {"max_mac": 3}}, "Did you mean 'limits.max_macs'?"),
        ({"search": {"batch": 0}}, "search.batch is at least 1, got 0"),
        ({"search": {"batch": "many"}}, "search.batch is a whole number, got 'many'"),
        ({"search": {"batch": True}}, "search.batch is a whole number, got True"),
        ({"search": {"batch": 2.5}}, "search.batch is a whole number, got 2.5"),
        ({"search": 5}, "search is a dict, got 5"),
        ({"limits": {"max_macs": -1}}, "limits: max_macs is a positive number"),
        ({"score": {"weight": 1.0}}, "score: A score with weight 1.0 and cost 'macs' needs target_macs"),
        ({"score": {"target_latency": 2.0}}, "score.target_latency does nothing while score.weight is 0; set"),
        ({"final": {}}, "final.epochs is missing"),
        ({"space": {}}, "space needs a type"),
    ],
)
def test_bad_configs_are_refused_with_the_culprit_named(change, words) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config({**SMALL, **change})
    assert words in str(caught.value)


def test_a_target_that_does_nothing_is_refused(tmp_path) -> None:
    own = tmp_path / "own.py"

    def read(score: str, **options: object) -> None:
        own.write_text("\n".join(f"{key} = {value!r}" for key, value in SMALL.items()) + f"\nscore = dict({score})\n")
        load_config(own, {f"score.{key}": value for key, value in options.items()})

    words = r"score\.target_latency does nothing while score\.weight is 0; set score\.weight"
    for score, options in (
        ("", {"target_latency": 2.0, "cost": "latency"}),
        ("weight=0.0", {"target_latency": 2.0}),
        ("target_latency=2.0, cost='latency'", {}),
    ):
        with pytest.raises(ConfigError, match=words):
            read(score, **options)
    with pytest.raises(ConfigError, match=r"score\.target_params does nothing while score\.cost is 'macs'"):
        read("target_macs=1e6, weight=1.0", target_params=1e5)
    read("target_macs=1e6, weight=1.0", weight=0.0)  # what a base config charges is left out
    read("target_macs=1e6, weight=1.0", target_latency=2.0, cost="latency")


def test_missing_part_is_named() -> None:
    with pytest.raises(ConfigError, match="fidelity is missing"):
        read_config({key: value for key, value in SMALL.items() if key != "fidelity"})


def test_file_that_is_no_config_is_refused(tmp_path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("space = dict(\n")
    with pytest.raises(ConfigError, match=r"Cannot read config .*broken.py"):
        load_config(broken)
    with pytest.raises(ConfigError, match=r"There is no search config 'defualt'.* Did you mean 'default'"):
        find_config("defualt")


def test_configs_are_found_by_path_and_by_name(tmp_path, monkeypatch) -> None:
    here = find_config("default")
    monkeypatch.chdir(tmp_path)
    assert find_config("default") == find_config("configs/search/default.py") == find_config("default.py") == here
    (tmp_path / "own.py").write_text("")
    assert find_config("own.py").name == "own.py"


@pytest.mark.parametrize(("name", "known"), [("gemnet_a_cifar", 16), ("gemnet_a_fast", 21)])
def test_every_candidate_that_a_config_begins_with_is_one_of_its_space(name: str, known: int) -> None:
    config = load_config(find_config(name))
    space = GEMNetSpace(**config.space.options)
    candidates = [Candidate.from_json(data) for data in config.search.first]
    assert len(candidates) == known
    for candidate in candidates:
        space.check(candidate)
        space.genome(candidate)


def test_options_of_a_component_are_checked_through_its_bases() -> None:
    class Base:
        def __init__(self, space: str, *, initial: int = 10) -> None: ...

    class Derived(Base):
        def __init__(self, space: str, *, population: int = 20, **options: int) -> None: ...

    known = keyword_names(Derived)
    assert known == ["space", "population", "initial"]
    check_options(known, {"initial": 3, "population": 2}, "strategy")
    with pytest.raises(ConfigError, match=r"strategy.popluation. Did you mean 'strategy.population'"):
        check_options(known, {"popluation": 3}, "strategy")
    with pytest.raises(ConfigError, match=r"no config key evaluator\.x\. It takes no options"):
        check_options((), {"x": 3}, "evaluator")


def test_identity_ignores_who_works_and_how_much() -> None:
    config = read_config(SMALL)
    more = read_config({**SMALL, "search": {"evaluations": 99}, "workers": {"count": 7, "threads": 1}})
    other = read_config({**SMALL, "search": {"seed": 1}})
    assert first_difference(config.identity(), more.identity()) is None
    assert first_difference(config.identity(), other.identity()) == ("search.seed", 0, 1)
