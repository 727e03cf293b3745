"""`tools/search.py`: real searches at toy size, interruption, and every way to be given a wrong thing."""

from __future__ import annotations

import contextlib
import csv
import json
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
from toy_search import TINY, contents, run

from gemnet.training.state import TrainingState
from nas.commands import export as export_command
from nas.commands import search as search_command
from nas.evaluation.csv_table import COLUMNS
from nas.evaluation.ledger import Ledger

REPOSITORY = Path(__file__).resolve().parents[2]
HEADER = ",".join(COLUMNS) + "\n"


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
    assert f"python tools/predict.py {tmp_path / 'work'} path/to/images" in out
    assert "search on your own images" not in out  # that was one
    assert (tmp_path / "work" / "best.safetensors").is_file()


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
    for words in (
        "found network",
        "random cells",
        "MobileNetV2 block",
        "ResNet block",
        "Next:",
        "search on your own images",
    ):
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


@pytest.mark.slow
@pytest.mark.contract
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
def test_ctrl_c_says_how_to_go_on_and_the_line_works(tmp_path, capsys) -> None:
    tool = str(REPOSITORY / "tools" / "search.py")
    options = ["--budget", "1000", "--workers", "1", "--cfg-options", *TINY[:-1], "confirm.top=0", "comparison=None"]
    command = [sys.executable, tool, "--work-dir", "work it", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        while _recorded(tmp_path / "work it") < 2 and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: the workers hear it too
        _, error = process.communicate(timeout=600)
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
    code, out, error = run(capsys, *again)
    assert code == 0, error
    assert f"search {before + 1}/{before + 1}" in out
    assert "found network" in out


def test_interrupted_longer_training_goes_on_after_its_last_epoch(finished, tmp_path, capsys, monkeypatch) -> None:
    arguments = ["--work-dir", str(tmp_path / "work"), "--budget", "6"]
    save, epochs = TrainingState.save, []

    def interrupted(state, *given):
        save(state, *given)
        epochs.append(len(state.history))
        if len(epochs) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainingState, "save", interrupted)
    assert run(capsys, *arguments, "--cfg-options", *TINY)[0] == 130
    assert epochs == [1]
    assert len(list((tmp_path / "work").glob("unfinished_*.pth"))) == 1
    code, _, error = run(capsys, *arguments, "--resume")
    assert code == 0, error
    assert epochs[:3] == [1, 2, 1]  # then the others, whole
    assert not list((tmp_path / "work").glob("unfinished_*.pth"))
    assert _rows(tmp_path / "work") == _rows(finished[0])
    weights, whole = (load_file(folder / "best.safetensors") for folder in (tmp_path / "work", finished[0]))
    assert all(torch.equal(weights[key], whole[key]) for key in whole)


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
