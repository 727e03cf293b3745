"""`tools/search.py`: real searches at toy size, interruption, and every way to be given a wrong thing."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import math
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gemnet.macs import cost
from nas.commands import export as export_command
from nas.commands import search as search_command
from nas.evaluation import latency as latency_module
from nas.evaluation.csv_table import COLUMNS
from nas.evaluation.latency import fit_to_space
from nas.evaluation.ledger import Ledger
from nas.search import confirm as confirm_module
from nas.search import parts as parts_module
from nas.search import rivals as rivals_module

REPOSITORY = Path(__file__).resolve().parents[2]
HEADER = ",".join(COLUMNS) + "\n"
TINY = [
    "data.source=digits",
    "strategy.type=random",
    "space.max_nodes=4",
    "space.stage_widths=[16,16,16]",
    # Wide enough that the hand-made blocks fit under the found network, whichever it is.
    "space.choices.width=[1.0,1.25]",
    "space.choices.inner_ratio=[4,6]",
    "score.weight=0.0",
    "limits.max_macs=1e6",
    "fidelity.epochs=1",
    "fidelity.subset=0.2",
    "search.batch=4",
    "search.ahead=2",
    "confirm.top=2",
    "confirm.seeds=1",
    "final.epochs=2",
    "comparison.random_cells=2",
    "comparison.seeds=1",
    "workers.count=0",
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished search on digits, and what it printed."""
    import io

    folder, printed = tmp_path_factory.mktemp("finished") / "work", io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = search_command.main(["--work-dir", str(folder), "--budget", "6", "--cfg-options", *TINY])
    assert code == 0
    return folder, printed.getvalue()


def test_a_search_begins_with_the_evaluations_of_an_earlier_one(finished, tmp_path, capsys) -> None:
    options = [*TINY, f"search.start_from={finished[0]}", "final=None", "comparison=None"]
    assert search_command.main(["--work-dir", str(tmp_path / "next"), "--budget", "6", "--cfg-options", *options]) == 0
    assert "Begins with 4 evaluations" in (tmp_path / "next" / "search.log").read_text()
    with Ledger(finished[0] / "ledger.db") as first, Ledger(tmp_path / "next" / "ledger.db") as second:
        before, after = first.evaluations(), second.evaluations()
    assert [each.accuracy for each in after[:4]] == [each.accuracy for each in before[:4]]
    assert len(after) >= 6


@pytest.mark.parametrize(
    ("change", "message"),
    [("search.batch=99", "batches of 99"), ("fidelity.epochs=3", "fidelity and limits must be those of this one")],
)
def test_evaluations_that_do_not_fit_are_refused(finished, tmp_path, capsys, change: str, message: str) -> None:
    options = [*TINY, f"search.start_from={finished[0]}", change]
    assert search_command.main(["--work-dir", str(tmp_path / "next"), "--cfg-options", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "next").exists()


def test_a_search_begins_with_a_table_of_evaluations(finished, tmp_path) -> None:
    table, folder = tmp_path / "first.csv", tmp_path / "next"
    assert export_command.main([str(finished[0]), "--ledger", str(table)]) == 0
    options = [*TINY, f"search.start_from={table}", "final=None", "comparison=None"]
    assert search_command.main(["--work-dir", str(folder), "--budget", "6", "--cfg-options", *options]) == 0
    with Ledger(finished[0] / "ledger.db") as first, Ledger(folder / "ledger.db") as second:
        before, after = first.evaluations(), second.evaluations()
    assert [each.accuracy for each in after[:4]] == [each.accuracy for each in before[:4]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("number,accuracy\n", "no column 'training_seed'"),
        (HEADER + "0,0,two,,1.0,ok,50.0,,,1.0,e,{}\n", "line 2"),
        (HEADER + "0,0,2,,1.0,lost,50.0,,,1.0,e,{}\n", "'ok' or 'failed'"),
        (HEADER + "0,0,2,,1.0,ok,50.0,,,1.0,e,{}\n", "line 2"),
    ],
)
def test_a_damaged_table_of_evaluations_is_named_with_its_line(tmp_path, capsys, text: str, message: str) -> None:
    table = tmp_path / "first.csv"
    table.write_text(text)
    options = [*TINY, f"search.start_from={table}"]
    assert search_command.main(["--work-dir", str(tmp_path / "next"), "--cfg-options", *options]) == 2
    assert message in capsys.readouterr().err


def test_start_from_a_folder_without_a_search_is_refused(tmp_path, capsys) -> None:
    options = [*TINY, f"search.start_from={tmp_path}"]
    assert search_command.main(["--work-dir", str(tmp_path / "next"), "--cfg-options", *options]) == 2
    assert "there is no ledger.db in it" in capsys.readouterr().err
    assert not (tmp_path / "next").exists()


@pytest.fixture
def milliseconds(monkeypatch):
    """Latencies as a fixed function of the network, times ``factor["now"]``: no test depends on the machine."""
    factor = {"now": 1.0}

    def measured(genomes, options, side, in_chans=3):
        counted = [cost(genome, side, in_chans=in_chans) for genome in genomes]
        return [factor["now"] * (0.1 + 0.02 * each.passes + 1e-7 * each.macs) for each in counted]

    for module in (latency_module, confirm_module, rivals_module):
        monkeypatch.setattr(module, "measure", measured)
    return factor


LATENCY = [*TINY, "final=None", "comparison=None", "latency.networks=32"]


def test_a_search_keeps_a_limit_on_latency(milliseconds, tmp_path, capsys) -> None:
    arguments = ["--work-dir", str(tmp_path / "work"), "--max-latency", "2.5", "--cfg-options", *LATENCY]
    code, out, _ = run(capsys, *arguments, "--budget", "4")
    assert code == 0
    assert "32 networks took" in out
    chosen = json.loads((tmp_path / "work" / "summary.json").read_text())["chosen"]
    assert 0.1 < chosen["latency_ms"] <= 2.5
    assert f"{chosen['latency_ms']:.3g} ms an image, measured on " in out
    prices = (tmp_path / "work" / "latency.json").read_text()
    code, out, _ = run(capsys, *arguments, "--budget", "8", "--resume")
    assert code == 0
    assert "networks took" not in out  # what was measured is kept
    assert (tmp_path / "work" / "latency.json").read_text() == prices


def test_a_score_that_charges_time_is_the_same_everywhere(milliseconds, tmp_path, capsys) -> None:
    """In what is chosen and its rivals, on the page, in the status and in the table of evaluations."""
    folder, table = tmp_path / "work", tmp_path / "evaluations.csv"
    options = [*(each for each in TINY if not each.startswith("score")), "latency.networks=32", "score.weight=20"]
    options += ["fidelity.subset=0.05", "final.epochs=1", "comparison.test=False"]
    options += ["comparison.random_cells=1", "comparison.blocks=['mobilenetv2']"]
    arguments = ["--work-dir", str(folder), "--target-latency", "1", "--cfg-options", *options]
    code, out, error = run(capsys, *arguments, "--budget", "4")
    assert code == 0, error
    assert "at no more than the found network's estimated time" in " ".join(out.split())
    summary = json.loads((folder / "summary.json").read_text())
    found, *others = summary["comparison"]
    assert others
    for row in others:  # what was measured is a formula that three prices fit
        assert row["milliseconds"] <= 1.1 * found["milliseconds"]

    code, out, _ = run(capsys, "--work-dir", str(folder), "--export-csv", str(table))
    assert code == 0
    with table.open() as opened:
        rows = [row for row in csv.DictReader(opened) if row["training_seed"] == "0" and row["latency_ms"]][:4]
    score = [float(row["dev_accuracy"]) - 20 * math.log2(float(row["latency_ms"])) for row in rows]
    best = rows[score.index(max(score))]
    code, out, _ = run(capsys, "--status", str(folder))
    assert f"best {float(best['dev_accuracy']):.2f} % at " in out
    assert f" and {float(best['latency_ms']):.3g} ms" in out
    assert "milliseconds an image" in (folder / "report.html").read_text()

    chosen = summary["chosen"]
    assert chosen["score"] == pytest.approx(chosen["fresh_accuracies"][0] - 20 * math.log2(chosen["latency_ms"]))
    with Ledger(folder / "ledger.db") as ledger:  # which may be shared by searches for other devices
        assert all("latency" not in each.metrics for each in ledger.evaluations())


def test_networks_that_turn_out_too_slow_are_left_out_and_the_search_can_go_on(
    milliseconds, monkeypatch, tmp_path, capsys
) -> None:
    arguments = ["--work-dir", str(tmp_path / "work"), "--budget", "4", "--cfg-options", *LATENCY]
    options = ["limits.max_latency=2.5"]

    def fit_then_be_busy(*given):
        model = fit_to_space(*given)
        milliseconds["now"] = 100.0
        return model

    monkeypatch.setattr(parts_module, "fit_to_space", fit_then_be_busy)
    code, out, error = run(capsys, *arguments, *options)
    assert code == 2
    assert out.count("Left out: no.") == 4
    assert "None of the 4 networks keeps max_latency=2.5 as measured now" in error
    milliseconds["now"] = 1.0
    code, out, _ = run(capsys, *arguments, *options, "--resume")
    assert code == 0
    assert "Left out" not in out


def test_some_that_turn_out_too_slow_are_left_out_and_a_hiccup_leaves_out_none(
    milliseconds, monkeypatch, tmp_path, capsys
) -> None:
    measured: dict[str, list[float]] = {}

    def measure(genomes, options, side, in_chans=3):
        (genome,) = genomes
        number = measured.setdefault(genome.fingerprint, [])
        first = len(measured) == 1  # the best one is too slow both times, the next at first
        number.append(9.0 if first or not number else 1.0)
        return number[-1:]

    monkeypatch.setattr(confirm_module, "measure", measure)
    arguments = ["--work-dir", str(tmp_path / "work"), "--max-latency", "2.5", "--cfg-options", *LATENCY]
    code, out, _ = run(capsys, *arguments, "--budget", "4")
    assert code == 0
    assert out.count("Left out: no.") == 1
    assert "As measured an image takes it 9 ms, 260% over the limit." in out
    assert list(measured.values())[:2] == [[9.0, 9.0], [9.0, 1.0]]
    assert json.loads((tmp_path / "work" / "summary.json").read_text())["chosen"]["latency_ms"] == 1.0


def test_a_resumed_search_keeps_the_network_it_measured(milliseconds, tmp_path, capsys) -> None:
    arguments = ["--work-dir", str(tmp_path / "work"), "--max-latency", "2.5", "--cfg-options", *LATENCY]
    assert run(capsys, *arguments, "--budget", "4")[0] == 0
    before = contents(tmp_path / "work")
    milliseconds["now"] = 100.0  # a busy machine: measured now, none would pass
    code, out, _ = run(capsys, *arguments, "--budget", "4", "--resume")
    assert code == 0
    assert "Left out" not in out
    after = contents(tmp_path / "work")
    assert {name: after[name] for name in ("best.json", "finalists.json", "latency.json")} == {
        name: before[name] for name in ("best.json", "finalists.json", "latency.json")
    }
    known = json.loads((tmp_path / "work" / "finalists.json").read_text())["milliseconds"]
    run(capsys, *arguments, "--budget", "8", "--resume")  # more candidates: the measured ones are not measured again
    later = json.loads((tmp_path / "work" / "finalists.json").read_text())["milliseconds"]
    assert {number: later[number] for number in known} == known
    assert len(later) > len(known)


@pytest.mark.slow
@pytest.mark.contract
def test_on_another_device_the_limit_is_kept_as_estimated_and_that_is_said(milliseconds, tmp_path, capsys) -> None:
    arguments = ["--work-dir", str(tmp_path / "work"), "--max-latency", "2.5", "--cfg-options", *LATENCY]
    assert run(capsys, *arguments, "--budget", "4")[0] == 0
    prices = tmp_path / "work" / "latency.json"
    prices.write_text(json.dumps({**json.loads(prices.read_text()), "device": "cpu (an abacus), 1 thread"}))
    before = json.loads((tmp_path / "work" / "summary.json").read_text())["chosen"]
    code, out, _ = run(capsys, *arguments, "--budget", "4", "--resume")
    assert code == 0
    assert json.loads((tmp_path / "work" / "summary.json").read_text())["chosen"] == before  # as measured over there
    (tmp_path / "work" / "finalists.json").unlink()
    code, out, _ = run(capsys, *arguments, "--budget", "8", "--resume")
    assert code == 0
    assert "This is not cpu (an abacus), 1 thread: max_latency is kept as estimated" in out
    assert "not measured on this machine: by estimates for cpu (an abacus), 1 thread only" in " ".join(out.split())
    assert json.loads((tmp_path / "work" / "summary.json").read_text())["chosen"]["latency_ms"] is None


def test_mistakes_are_said_before_anything_is_measured_or_written(milliseconds, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(parts_module, "fit_to_space", lambda *_: pytest.fail("measured"))
    start = [*LATENCY, "limits.max_latency=2.5"]
    nasgem = [option for option in start if not option.startswith("strategy")]
    for options, words in (
        ([*start, "search.start_from=nowhere"], "there is no ledger.db in it"),
        ([*start, "limits.max_macs=1"], "Raise max_macs"),
        ([*start, "fidelity.subset=20"], "fidelity.subset is a share of the training images"),
        ([*start, "fidelity.resolution=0"], "fidelity.resolution is a number of pixels"),
        ([*nasgem, "strategy.type=nasgem", "strategy.encoder.stepz=3"], "encoder.steps"),
        ([*nasgem, "strategy.type=nasgem", "strategy.signals=-1"], "signals is at least 0, got -1"),
        ([*nasgem, "strategy.type=nasgem", "strategy.cheap_epochs=50"], "cheap_epochs=50"),
        ([*nasgem, "strategy.type=nasgem", "strategy.beta=high"], "nasgem.beta is a number, got 'high'"),
        ([*nasgem, "strategy.type=evolution", "strategy.tournament=0"], "tournament is at least 1, got 0"),
    ):
        code, _, error = run(capsys, "--work-dir", str(tmp_path / "work"), "--cfg-options", *options)
        assert code == 2, options
        assert words in error
        assert not (tmp_path / "work").exists()


def test_an_option_of_a_part_that_the_search_lacks_is_another_search(milliseconds, tmp_path, capsys) -> None:
    folder = ["--work-dir", str(tmp_path / "work")]
    assert run(capsys, *folder, "--budget", "4", "--cfg-options", *LATENCY)[0] == 0
    code, _, error = run(capsys, *folder, "--resume", "--cfg-options", "final.epochs=3")
    assert code == 2
    assert "holds another search: final is None there" in error


def test_images_without_a_test_part_are_said_at_the_start_and_cost_no_training(tmp_path, capsys) -> None:
    from PIL import Image

    for split in range(2):
        for k in range(12):
            path = tmp_path / "photos" / f"class{split}" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (20 * k, 120 * split, 10)).save(path)
    options = [option for option in TINY if not option.startswith(("comparison", "final"))]
    code, out, error = run(
        capsys,
        *("--work-dir", str(tmp_path / "work"), "--data", str(tmp_path / "photos"), "--budget", "4", "--cfg-options"),
        *(*options, "final.epochs=1", "comparison.random_cells=0", "comparison.blocks=[]", "comparison.seeds=1"),
    )
    assert code == 0, error
    assert "No figures on test images, only on development images" in out
    assert (tmp_path / "work" / "best.safetensors").is_file()


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = search_command.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file."""
    return {
        item.name: hashlib.sha256(item.read_bytes()).hexdigest()
        for item in folder.iterdir()
        if not item.name.startswith(".") and not item.name.endswith(("-wal", "-shm"))
    }


def test_search_leaves_everything_a_user_needs(finished) -> None:
    folder, printed = finished
    wanted = {
        "best.json",
        "best.safetensors",
        "cell.png",
        "search.png",
        "ledger.db",
        "search.json",
        "search.log",
        "summary.json",
    }
    assert wanted <= {item.name for item in folder.iterdir()}
    for words in ("found network", "random cells", "MobileNetV2 block", "ResNet block", "Next:"):
        assert words in printed
    assert "tools/export.py" in printed
    assert "search 6/6" in printed
    for picture in ("cell.png", "search.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    openings = (folder / "test_images.log").read_text().splitlines()
    assert json.loads(openings[0])["source"] == "digits"


def test_everything_compared_costs_no_more_macs_than_the_found_network(finished) -> None:
    rows = json.loads((finished[0] / "summary.json").read_text())["comparison"]
    found = rows[0]
    assert found["name"] == "found network"
    assert len(rows) == 4
    for row in rows[1:]:
        assert 0.5 * found["macs"] < row["macs"] <= found["macs"]
        assert len(row["accuracies"]) == (2 if row["name"] == "random cells" else 1)
        assert len(row["test_accuracies"]) == len(row["accuracies"])


def test_saved_network_built_by_timm_has_the_accuracy_that_was_printed(finished) -> None:
    import timm

    import gemnet  # noqa: F401  # registers the names with timm
    from gemnet.data.datasets import DataSpec
    from gemnet.training.images import load_data
    from gemnet.training.loop import measure

    folder = finished[0]
    model = timm.create_model(
        "gemnet", genome=str(folder / "best.json"), in_chans=1, checkpoint_path=str(folder / "best.safetensors")
    )
    rows = json.loads((folder / "summary.json").read_text())["comparison"]
    data = json.loads((folder / "search.json").read_text())["config"]["data"]
    assert measure(model, load_data(DataSpec(**data))) == pytest.approx(rows[0]["accuracies"][0])


def test_finished_search_resumed_does_nothing_again_and_says_the_same(finished, capsys) -> None:
    folder, printed = finished
    count = _recorded(folder)
    weights = contents(folder)["best.safetensors"]
    code, out, _ = run(capsys, "--work-dir", str(folder), "--resume")
    assert code == 0
    assert _recorded(folder) == count
    assert contents(folder)["best.safetensors"] == weights

    def table(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("│")]

    assert table(out) == table(printed)
    assert len(table(out)) == 4


def test_weights_that_are_missing_or_of_another_network_are_trained_again(finished, tmp_path, capsys) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    state = load_file(folder / "best.safetensors")
    count = _recorded(folder)
    for damage in ("another network", "half a file"):
        if damage == "another network":  # as after a search went on, found another, and was killed while it trained
            about = {"genome": "0" * 16, "epochs": "2", "seed": "1000"}
            save_file({name: 0 * value for name, value in state.items()}, folder / "best.safetensors", metadata=about)
        else:
            (folder / "best.safetensors").write_bytes(b"half a file")
        assert run(capsys, "--work-dir", str(folder), "--resume")[0] == 0
        again = load_file(folder / "best.safetensors")
        assert all(torch.equal(again[name], value) for name, value in state.items()), damage
        assert _recorded(folder) == count


def test_export_gives_a_name_that_timm_builds_with_the_weights(finished, tmp_path, capsys) -> None:
    out = tmp_path / "mynet"
    assert export_command.main([str(finished[0]), "--name", "clitestnet", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    command = next(line for line in printed.splitlines() if line.startswith("  PYTHONPATH"))
    command = command.replace("PYTHONPATH=", f"PYTHONPATH={REPOSITORY}:").replace("python", sys.executable, 1)
    run_it = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert run_it.returncode == 0, run_it.stderr
    assert json.loads((out / "clitestnet.json").read_text())["name"] == "clitestnet"
    before = contents(out)
    assert export_command.main([str(finished[0]), "--name", "clitestnet", "--out", str(out)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert contents(out) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{empty}", "--name", "x"], "holds no trained network"),
        (["{absent}", "--name", "x"], "neither a folder nor a file"),
        (["{finished}", "--name", "gemnet_b"], "stands for another network already"),
        (["{finished}", "--name", "1x"], "letters, digits and '_'"),
        (["{other}", "--name", "otherweights"], "belongs to another network"),
    ],
)
def test_bad_exports_end_with_one_message(finished, tmp_path, capsys, arguments, words) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    genome = json.loads((finished[0] / "best.json").read_text())
    genome["stages"][0]["width"] += 8
    (tmp_path / "other" / "best.json").write_text(json.dumps(genome))
    (tmp_path / "other" / "best.safetensors").write_bytes((finished[0] / "best.safetensors").read_bytes())
    places = {"finished": finished[0]} | {name: tmp_path / name for name in ("empty", "absent", "other")}
    given = [argument.format(**places) for argument in arguments]
    assert export_command.main([*given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


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


def test_folder_that_is_not_empty_is_left_alone(finished, tmp_path, capsys) -> None:
    before = contents(finished[0])
    code, _, error = run(capsys, "--work-dir", str(finished[0]), "--cfg-options", *TINY)
    assert code == 2
    assert "is not empty. Add --resume" in error
    assert contents(finished[0]) == before
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("miaow")
    code, _, error = run(capsys, "--work-dir", "photos", "--resume", "--cfg-options", *TINY)
    assert code == 2
    assert "holds no search" in error
    assert [item.name for item in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    code, _, error = run(capsys, "--work-dir", "photos/cat.jpg", "--cfg-options", *TINY)
    assert code == 2
    assert "is a file" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seed", "1"], "search.seed is 0 there and 1 here"),
        (["--max-macs", "3e5"], "limits.max_macs is 1000000.0 there and 300000.0 here"),
        (["--cfg-options", "strategy.type=evolution"], "strategy.type is 'random' there and 'evolution' here"),
    ],
)
def test_resuming_another_search_names_the_difference_and_changes_nothing(finished, capsys, arguments, words) -> None:
    before = contents(finished[0])
    code, _, error = run(capsys, "--work-dir", str(finished[0]), "--resume", *arguments)
    assert code == 2
    assert words in error
    assert contents(finished[0]) == before


def test_resuming_with_other_data_is_refused(finished, tmp_path, capsys) -> None:
    import shutil

    changed = tmp_path / "changed"
    shutil.copytree(finished[0], changed)
    identity = json.loads((changed / "search.json").read_text())
    identity["evaluator"] = "0123456789abcdef"
    (changed / "search.json").write_text(json.dumps(identity))
    code, _, error = run(capsys, "--work-dir", str(changed), "--resume")
    assert code == 2
    assert "the data, the recipe or the code that evaluates has changed" in error


def test_a_folder_has_one_search_at_a_time(finished, capsys) -> None:
    from filelock import FileLock

    with FileLock(finished[0] / ".lock"):
        code, _, error = run(capsys, "--work-dir", str(finished[0]), "--resume")
    assert code == 2
    assert "Another process is searching" in error


def test_table_search_needs_no_images_and_goes_on_with_a_larger_budget(tmp_path, capsys) -> None:
    import csv

    cells = [{"ops": ["a"] * n + ["b"] * m, "edges": _path(n + m)} for n in range(1, 6) for m in range(6)]
    with open("own.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["graph", "accuracy"])
        for k, cell in enumerate(cells):
            writer.writerow([json.dumps(cell), 50 + k % 7 + k / 10])
    Path("own.py").write_text(
        "space = dict(type='own')\nstrategy = dict(type='evolution', initial=4)\n"
        "evaluator = dict(type='tabular', path='own.csv', accuracy='accuracy')\nfidelity = dict(epochs=1)\n"
        "search = dict(evaluations=10, batch=4, ahead=0)\nconfirm = dict(top=0)\n"
    )
    assert run(capsys, "own.py", "--work-dir", "once", "--budget", "20")[0] == 0
    assert run(capsys, "own.py", "--work-dir", "twice")[0] == 0
    code, out, _ = run(capsys, "own.py", "--work-dir", "twice", "--budget", "20", "--resume")
    assert code == 0
    assert "Chosen: no." in out
    once, twice = (json.loads(Path(name, "summary.json").read_text()) for name in ("once", "twice"))
    assert once["chosen"] == twice["chosen"]
    assert _rows(Path("once")) == _rows(Path("twice"))
    assert not Path("once", "best.json").exists()
    # More than the table holds: the search ends when there is nothing left to propose.
    code, out, _ = run(capsys, "own.py", "--work-dir", "all", "--budget", "99")
    assert code == 0
    assert "no more than 30 candidates" in out


@pytest.mark.slow
@pytest.mark.contract
def test_ctrl_c_says_how_to_go_on_and_the_line_works(tmp_path) -> None:
    tool = str(REPOSITORY / "tools" / "search.py")
    options = ["--budget", "1000", "--workers", "1", "--cfg-options", *TINY[:-1], "confirm.top=0", "comparison=None"]
    command = [sys.executable, tool, "--work-dir", "work it", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    end = time.monotonic() + 120
    try:
        while _recorded(tmp_path / "work it") < 2 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: the workers hear it too
        _, error = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    lines = error.strip().splitlines()
    assert "once more stops at once" in lines[0]  # and what was under way was recorded
    assert lines[-1].startswith("Interrupted. To go on: python tools/search.py ")
    before = _recorded(tmp_path / "work it")
    assert before >= 2
    again = shlex.split(lines[-1].split("python tools/search.py ")[1])
    again[again.index("1000")] = str(before + 1)
    done = subprocess.run([sys.executable, tool, *again], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"search {before + 1}/{before + 1}" in done.stdout
    assert "found network" in done.stdout


def test_help_teaches(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        search_command.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for words in ("examples", "--resume", "best.json", "--max-macs", "exit codes"):
        assert words in text


def _path(n: int) -> list[list[int]]:
    return [[k, k + 1] for k in range(n + 1)]


def _recorded(folder: Path) -> int:
    """Results in the ledger of a work folder."""
    if not (folder / "ledger.db").exists():
        return 0
    connection = sqlite3.connect(folder / "ledger.db")
    try:
        return connection.execute("SELECT count(*) FROM evaluations").fetchone()[0]
    except sqlite3.OperationalError:  # not created yet
        return 0
    finally:
        connection.close()


def _rows(folder: Path) -> list[tuple]:
    connection = sqlite3.connect(folder / "ledger.db")
    rows = connection.execute("SELECT cell, accuracy FROM evaluations ORDER BY cell").fetchall()
    rows += connection.execute("SELECT number, candidate FROM proposals ORDER BY number").fetchall()
    connection.close()
    return rows


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.contract])])
def test_the_longer_training_has_a_time_limit_whoever_does_it(workers, tmp_path, capsys) -> None:
    options = [*TINY[:-1], "comparison=None", "confirm.top=0", "final.time_limit=0.001", "final.epochs=40"]
    arguments = ["--work-dir", str(tmp_path / "work"), "--budget", "4", "--workers", str(workers)]
    code, _, error = run(capsys, *arguments, "--cfg-options", *options)
    assert code == 2
    assert "The found network's longer training failed: Over its time limit of 0.001 s" in error


@pytest.mark.parametrize("extra", [["--genome", "g.json"], ["--out", "there"]])
def test_export_of_evaluations_writes_nothing_else(finished, extra, capsys) -> None:
    with pytest.raises(SystemExit):
        export_command.main([str(finished[0]), "--ledger", "a.csv", *extra])
    assert "--ledger writes the evaluations alone" in capsys.readouterr().err
    assert not Path("a.csv").exists()


@pytest.mark.parametrize("wrong", [["--seeds", "0"], ["--seed", "1", "--seeds", "2"]])
def test_seeds_are_at_least_one_and_no_seed_is_given_beside_them(capsys, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        search_command.main(wrong)
    assert caught.value.code == 2
    assert "--seeds" in capsys.readouterr().err
