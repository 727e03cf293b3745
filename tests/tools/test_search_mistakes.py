"""`tools/search.py` given a wrong thing: one message, nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from toy_search import run

from nas.commands import search as search_command


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["defualt"], "Did you mean 'default'?"),
        (["--cfg-options", "serach.seed=1"], "There is no config key serach. Did you mean 'search'?"),
        (["--cfg-options", "search.sead=1"], "Did you mean 'search.seed'?"),
        (["--cfg-options", "strategy.type=randon"], "Did you mean 'random'?"),
        (["--cfg-options", "strategy.initail=3"], "Did you mean 'strategy.initial'?"),
        (["--cfg-options", "space.max_node=3"], "Did you mean 'space.max_nodes'?"),
        (["--cfg-options", "space.max_nodes=31"], "max_nodes is 1 to 30, got 31"),
        (["--cfg-options", "space.num_classes=3"], "There is no config key space.num_classes"),
        (["--cfg-options", "space.vocabulary=[dw3x3_bn_act,conv33_bn]"], "Unknown operation 'conv33_bn'"),
        (["--cfg-options", "evaluator.type=trainig"], "Did you mean 'training'?"),
        (["--cfg-options", "recipe.lrr=3"], "no config key recipe.lrr"),
        (["--cfg-options", "recipe.lr=-1"], "recipe: lr lies between"),
        (["--cfg-options", "comparison.blocks=[resnett]"], "Did you mean 'resnet'?"),
        (["--budget", "0"], "search.evaluations is at least 1, got 0"),
        (["--workers", "-2"], "workers.count is at least 0, got -2"),
        (["--max-macs", "1000"], "meets max_macs = 1,000: the one that comes nearest has"),
        (["--max-params", "10"], "max_params = 10: the one that comes nearest has"),
        (["--max-macs", "-5"], "max_macs is a positive number, got -5"),
        (["--max-latency", "0"], "max_latency is a positive number, got 0"),
        (["--max-latency", "5", "--cfg-options", "latency.device=cudaa"], "device is 'cudaa'"),
        (["configs/search/nasbench201.py", "--max-latency", "5"], "'nasbench201' has no networks to measure"),
        (["--data", "no/such/images"], "There is no image folder at"),
        (["--data", "digitts"], "Did you mean 'digits'?"),
        (["configs/search/nasbench201.py", "--cfg-options", "evaluator.path=none.parquet"], "no table at none.parquet"),
        (["--cfg-options", "ledger=nosuch://x"], "Cannot open the ledger"),
        (["--resume"], "to go on with. Check the path; to begin one there leave out --resume"),
    ],
)
def test_bad_input_ends_with_one_message_and_writes_nothing(tmp_path, capsys, arguments, words) -> None:
    table = Path(os.environ.get("GEMNET_DATA", "data")) / "nasbench" / "nb201.parquet"
    if "configs/search/nasbench201.py" in arguments and not table.is_file():
        pytest.skip("needs the NAS-Bench-201 table: set GEMNET_DATA to the folder with nasbench/nb201.parquet")
    options = ["--work-dir", str(tmp_path / "work")]
    if "--cfg-options" not in arguments:
        options += ["--cfg-options", "strategy.type=random"]
    elif not any("strategy.type" in argument for argument in arguments):
        arguments = [*arguments, "strategy.type=random"]
    code, _, error = run(capsys, *arguments, *options)
    assert code == 2
    assert words in error
    assert error.startswith("python tools/search.py: error: ")
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "work").exists()


def test_argument_without_value_is_an_error_of_the_arguments(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        search_command.main(["--cfg-options", "search.seed"])
    assert caught.value.code == 2
    assert "takes KEY=VALUE" in capsys.readouterr().err


def test_help_teaches(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        search_command.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for words in ("examples", "--resume", "best.json", "--max-macs", "exit codes"):
        assert words in text


@pytest.mark.parametrize("wrong", [["--seeds", "0"], ["--seed", "1", "--seeds", "2"]])
def test_seeds_are_at_least_one_and_no_seed_is_given_beside_them(capsys, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        search_command.main(wrong)
    assert caught.value.code == 2
    assert "--seeds" in capsys.readouterr().err
