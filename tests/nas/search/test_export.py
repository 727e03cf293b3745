"""From a found network to one of another size."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm

import gemnet
from gemnet.cell_graph import CellGraph
from gemnet.classics import inverted_residual
from gemnet.fitting import BaselineError
from gemnet.genome import CellSpec, Genome, LayerSpec, StageSpec
from gemnet.macs import macs
from gemnet.metadata import Metadata, save_weights
from nas.commands.export import main
from nas.evaluation.ledger import Ledger
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.search.config import find_config, load_config, read_config
from nas.search.export import ExportError, export, resized
from nas.search.folder import open_work_folder
from nas.search.parts import build_parts
from nas.spaces.base import Candidate
from nas.spaces.gemnet import GEMNetSpace


def test_a_cell_found_on_small_images_becomes_a_network_for_large_ones() -> None:
    found = gemnet.genome_for("gemnet_a_cifar")
    large = resized(found, "imagenet", "b", 200e6)
    assert large.cells == found.cells
    assert large.activation == found.activation
    assert [level.reduction for level in large.levels] == [4, 8, 16, 32]
    assert 0.9 * 200e6 < macs(large) <= 200e6
    assert macs(large) / macs(resized(found, "imagenet", "b", 400e6)) < 0.6


def test_a_cell_that_fits_at_no_width_is_refused() -> None:
    with pytest.raises(BaselineError, match="at the least"):
        resized(gemnet.genome_for("gemnet_a_cifar"), "imagenet", "c", 1e6)


def test_a_network_of_several_cells_is_refused() -> None:
    cell: CellSpec = inverted_residual()
    stages = (StageSpec("one", 8, 1), StageSpec("two", 16, 1, 2))
    mixed = Genome(stem=(LayerSpec("conv3x3_bn_act", 8),), cells={"one": cell, "two": cell}, stages=stages)
    with pytest.raises(ExportError, match="2 cells"):
        resized(mixed, "cifar", "a", 1e7)


def test_evaluations_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger_file, folder, out = tmp_path / "shared.db", tmp_path / "search", tmp_path / "out.csv"
    fidelity = Fidelity(epochs=3, resolution=16, subset=0.2)
    cells = [
        Candidate(CellGraph(("dw3x3_bn_act",) * n, frozenset((k, k + 1) for k in range(n + 1)))) for n in (1, 2, 3)
    ]
    parts = {
        "space": {"type": "gemnet"},
        "strategy": {"type": "random"},
        "evaluator": {"type": "training"},
        "fidelity": {"epochs": 3},
    }
    config = read_config({**parts, "data": {"source": "digits"}, "ledger": f"sqlite:///{ledger_file}"})
    with open_work_folder(folder, config, "e", resume=False) as opened, Ledger(ledger_file) as ledger:
        for number, (accuracy, cell) in enumerate(zip((50.0, 51.5, 52.0), cells, strict=True)):
            evaluation = Evaluation(Proposal(number, cell, fidelity), "ok", accuracy, macs=6e6, params=7e4, seconds=2.0)
            ledger.record(evaluation, "e")
        again = Proposal(3, cells[1], fidelity, training_seed=1)
        ledger.record(Evaluation(again, "failed", None, seconds=1.0, reason="NaN loss"), "e")
        ledger.propose(opened.search_id, [Proposal(0, cells[1], fidelity), Proposal(1, cells[0], fidelity)])

    def exported(source: Path) -> list[dict[str, str]]:
        assert main([str(source), "--ledger", str(out)]) == 0
        return list(csv.DictReader(out.open()))

    rows = exported(ledger_file)
    assert [row["dev_accuracy"] for row in rows] == ["50.0", "51.5", "52.0", ""]
    rows = exported(folder)  # in the order of the search's proposals, without what others evaluated
    assert [row["dev_accuracy"] for row in rows] == ["51.5", "50.0", ""]
    assert [row["status"] for row in rows] == ["ok", "ok", "failed"]
    assert {row["evaluator"] for row in rows} == {"e"}
    assert Candidate.from_json(json.loads(rows[0]["candidate"])) == cells[1]
    assert main([str(tmp_path / "nowhere"), "--ledger", str(out)]) == 2
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path)])


def test_a_network_is_written_as_it_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "found.json", tmp_path / "same.json"
    gemnet.genome_for("gemnet_a_cifar").save(source)
    assert main([str(source), "--name", "mine", "--genome", str(target)]) == 0
    assert Genome.load(target) == gemnet.genome_for("gemnet_a_cifar").replace(name="mine")
    for wrong in (["--genome", "x.json", "--size", "b"], ["--max-macs", "9e6"]):
        with pytest.raises(SystemExit):
            main([str(source), "--name", "mine", *wrong])
        assert "--max-macs" in capsys.readouterr().err


def test_a_network_grows_in_width_alone_where_no_other_form_is_asked_for(tmp_path: Path) -> None:
    source, target = tmp_path / "found.json", tmp_path / "wide.json"
    found = gemnet.genome_for("gemnet_a_cifar")
    found.save(source)
    limit = 2 * macs(found)
    assert main([str(source), "--name", "wide", "--max-macs", str(limit), "--genome", str(target)]) == 0
    wide = Genome.load(target)
    assert 0.9 * limit < macs(wide) <= limit
    assert [(s.depth, s.stride) for s in wide.stages] == [(s.depth, s.stride) for s in found.stages]
    assert (wide.cells, wide.stem, wide.head) == (found.cells, found.stem, found.head)


def test_the_command_writes_a_genome_that_timm_builds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "found.json", tmp_path / "networks" / "small.json"
    gemnet.genome_for("gemnet_a_cifar").save(source)
    size = ["--form", "cifar", "--size", "b", "--max-macs", "9e6"]
    assert main([str(source), "--name", "small", *size, "--genome", str(target)]) == 0
    assert "M MACs at 32x32" in capsys.readouterr().out
    assert Genome.load(target).name == "small"
    assert timm.create_model("gemnet", genome=target).num_classes == 10
    assert main([str(tmp_path / "none.json"), "--name", "small", *size, "--genome", str(target)]) == 2


ATTACKS = (
    'x"""\nimport pathlib\npathlib.Path("sprung").touch()\n"""',
    "C:\\Users\\new\\x",
    "{name}{0}%s$(touch sprung)`touch sprung`",
    "\x1b[2J\nerror: forged",
    "'); open('sprung', 'w'); ('",
)


@pytest.mark.slow
@pytest.mark.contract
def test_nothing_from_a_file_becomes_source_text_or_moves_the_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = "import timm"
    for number, text in enumerate(ATTACKS):
        genome = gemnet.genome_for("gemnet_a_cifar").replace(name=text, origin=text)
        genome.save(tmp_path / "best.json")
        model = timm.create_model("gemnet", genome=genome)
        about = Metadata(genome=genome, mean=(0.1,) * 3, std=(1.0,) * 3, classes=(text,) * 10, notes={"accuracy": text})
        save_weights(tmp_path / "best.safetensors", model.state_dict(), about)
        assert main([str(tmp_path), "--name", f"attacked{number}", "--out", f"own{number}"]) == 0
        said = capsys.readouterr().out
        assert "\x1b" not in said
        assert not any(line.startswith("error: forged") for line in said.splitlines())
        for file in (tmp_path / f"own{number}").glob("*.py"):
            assert text.strip("{}") not in file.read_text()
            assert "sprung" not in file.read_text()
        command += f"\nimport attacked{number} as m; assert m.CLASSES[0] == {text!r}; timm.create_model(m.__name__)"
    folders = [str(tmp_path / f"own{number}") for number in range(len(ATTACKS))]
    run = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*folders, *sys.path])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert not list(tmp_path.rglob("sprung"))


@pytest.mark.parametrize("name", ["class", "json", "timm", "3net", "_x", "a" * 300, "a.b", "a/b", "", "gemnet_b"])
def test_names_that_python_timm_or_a_folder_can_not_take_are_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "found.json"
    gemnet.genome_for("gemnet_a_cifar").save(source)
    assert main([str(source), "--name", name, "--out", str(tmp_path / "own")]) == 2
    assert "name" in capsys.readouterr().err
    assert not (tmp_path / "own").exists()


def test_the_backbone_of_a_detector_starts_from_the_weights_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pytest.importorskip("mmengine.config")
    genome = gemnet.genome_for("gemnet_a_cifar")
    genome.save(tmp_path / "best.json")
    model = timm.create_model("gemnet", genome=genome)
    save_weights(tmp_path / "best.safetensors", model.state_dict(), Metadata(genome=genome))
    made = export(tmp_path, "beside", tmp_path / 'it\'s "odd"')
    monkeypatch.syspath_prepend(str(made.module.parent))
    backbone = config.Config.fromfile(str(made.detector)).model.backbone
    assert backbone.init_cfg == str(made.weights)
    assert backbone.arch == "beside"


def test_any_candidate_of_a_search_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(find_config("default"), {"data.source": "digits"})
    space, _ = build_parts(config)
    assert isinstance(space, GEMNetSpace)
    batch = space.sample(3, np.random.default_rng(0))
    candidates = [space.unpack(batch, row) for row in range(3)]
    with open_work_folder(tmp_path / "work", config, "0123", resume=False) as folder, Ledger(folder.ledger) as ledger:
        ledger.propose(folder.search_id, [Proposal(k, each, config.fidelity) for k, each in enumerate(candidates)])
    command = ["--name", "other", "--genome", str(tmp_path / "other.json"), "--number"]
    assert main([str(tmp_path / "work"), *command, "2"]) == 0
    written = Genome.load(tmp_path / "other.json")
    assert written.replace(name="", origin="") == space.genome(candidates[2]).replace(name="", origin="")
    assert main([str(tmp_path / "work"), *command, "3"]) == 2
    assert "0 to 2" in capsys.readouterr().err
