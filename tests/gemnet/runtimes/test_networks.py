"""Networks opened by what users name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gemnet.models import genome_for
from gemnet.runtimes.networks import open_network


@pytest.mark.parametrize("name", ["../../up", "/etc/up", "a/../../up", "..", "up\\..\\up", "up\x1b[2J", "<b>up</b>"])
def test_a_genomes_name_leads_out_of_no_folder(tmp_path: Path, name: str) -> None:
    file = tmp_path / "own.json"
    genome = replace(genome_for("gemnet_a_cifar"), name=name)
    genome.save(file)
    network = open_network(str(file))
    folder = Path("exported") / f"{network.name}-onnx"
    assert folder.resolve().parent == Path("exported").resolve()
    assert network.name.isprintable()
    assert not set(network.name) & set("/\\<>")


@pytest.mark.parametrize("given", ["work_dirs/flowers", "work_dirs/flowers/", "work_dirs/flowers/best.json"])
def test_networks_of_searches_are_named_by_their_folders(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("work_dirs/flowers")
    folder.mkdir(parents=True)
    replace(genome_for("gemnet_a_cifar"), name="best").save(folder / "best.json")
    assert open_network(given).name == "flowers"
