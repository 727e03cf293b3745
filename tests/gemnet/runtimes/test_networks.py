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
