"""From a found network to one of another size."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import timm

import gemnet
from gemnet.cell_graph import CellGraph
from gemnet.classics import inverted_residual
from gemnet.genome import CellSpec, Genome, LayerSpec, StageSpec
from gemnet.macs import macs
from nas.baselines import BaselineError
from nas.commands.export import main
from nas.evaluation import Evaluation, Fidelity, Proposal
from nas.export import ExportError, resized
from nas.ledger import Ledger
from nas.spaces.base import Candidate


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


def test_the_ledger_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fidelity = Fidelity(epochs=3, resolution=16, subset=0.2)
    candidate = Candidate(CellGraph(("dw3x3_bn_act",), frozenset({(0, 1), (1, 2)})), (("width", 1.0),))
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.record(Evaluation(Proposal(0, candidate, fidelity), "ok", 51.5, macs=6e6, params=7e4, seconds=2.0), "e")
        failed = Proposal(1, candidate, fidelity, training_seed=1)
        ledger.record(Evaluation(failed, "failed", None, seconds=1.0, reason="NaN loss"), "e")
    assert main([str(tmp_path), "--ledger", str(tmp_path / "out.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["dev_accuracy"] for row in rows] == ["51.5", ""]
    assert [row["status"] for row in rows] == ["ok", "failed"]
    assert Candidate.from_json(json.loads(rows[0]["candidate"])) == candidate
    assert main([str(tmp_path / "nowhere"), "--ledger", str(tmp_path / "out.csv")]) == 2
    with pytest.raises(SystemExit):
        main([str(tmp_path)])


def test_the_command_writes_a_genome_that_timm_builds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "found.json", tmp_path / "networks" / "small.json"
    gemnet.genome_for("gemnet_a_cifar").save(source)
    size = ["--form", "cifar", "--size", "b", "--max-macs", "9e6"]
    assert main([str(source), "--name", "small", *size, "--genome", str(target)]) == 0
    assert "M MACs at 32x32" in capsys.readouterr().out
    assert Genome.load(target).name == "small"
    assert timm.create_model("gemnet", genome=target).num_classes == 10
    with pytest.raises(SystemExit) as stopped:
        main([str(source), "--name", "small", "--genome", str(target)])
    assert stopped.value.code == 2
    assert "--max-macs" in capsys.readouterr().err
    assert main([str(tmp_path / "none.json"), "--name", "small", *size, "--genome", str(target)]) == 2
