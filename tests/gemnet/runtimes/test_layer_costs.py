"""The table of layers: which layers a network has, what is measured of them, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gemnet.cell_graph import CellGraph
from gemnet.genome import Genome
from gemnet.macs import macs
from gemnet.runtimes import layer_costs as layer_costs_module
from gemnet.runtimes.latency import LatencyError, Runtime, Timings
from gemnet.runtimes.layer_costs import FEW, KINDS, MANY, LayerTable, _chain, layers_of
from gemnet.runtimes.onnx_form import session
from gemnet.templates import template

pytest.importorskip("onnx", reason="pip install 'gemnet[export]'")
pytest.importorskip("onnxruntime", reason="pip install 'gemnet[export]'")

OPS = ("dw3x3_bn_act", "avg_pool_3x3", "max_pool_3x3", "conv3x3_bn_act", "dw5x5_bn")


@pytest.fixture(scope="module")
def genome() -> Genome:
    edges = {(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 5), (1, 5), (4, 6), (5, 6)}
    return template("cifar", "a").genome(CellGraph(OPS, frozenset(edges)), width=0.25, se_ratio=0.25)


def test_the_layers_of_a_genome_have_its_multiply_adds(genome: Genome) -> None:
    layers = layers_of(genome)
    found = 0
    for layer in layers:
        if layer.kind == "conv":
            weights = layer.kernel**2 * (layer.in_channels // layer.groups) * layer.out_channels
            found += weights * layer.size[0] * layer.size[1] // layer.stride**2
    squeezes = sum(2 * layer.in_channels * layer.groups for layer in layers if layer.kind == "se")
    classifier = genome.num_features * genome.num_classes
    assert found + squeezes + classifier == macs(genome)
    assert {layer.family for layer in layers} >= {"conv", "dw", "pool", "sum", "se"}
    assert {layer.family for layer in layers} <= set(KINDS)


def test_every_layer_can_be_run_by_itself(genome: Genome) -> None:
    for layer in {layer.key: layer for layer in layers_of(genome)}.values():
        run = session(_chain(layer, FEW))
        images = np.zeros((1, layer.in_channels, *layer.size), np.float32)
        assert run.run(None, {"images": images})[0].size > 0


def test_a_layer_costs_the_difference_that_further_copies_make(genome: Genome, tmp_path: Path, monkeypatch) -> None:
    def timed(calls, rounds, threads):
        overhead, each = 5.0, 0.25
        spent = np.array([overhead + each * (MANY if place % 2 else FEW) for place in range(len(calls))])
        return Timings(np.repeat(spent[:, None], rounds, axis=1), np.repeat(spent[:, None], rounds, axis=1))

    monkeypatch.setattr(layer_costs_module, "in_turns", timed)
    table = LayerTable(Runtime(), folder=tmp_path)
    layers = layers_of(genome)
    assert table.measure(layers) == len({layer.key for layer in layers})
    assert set(table.milliseconds.values()) == {0.25}
    np.testing.assert_allclose(table.by_kind(layers).sum(), 0.25 * len(layers))

    again = LayerTable(Runtime(), folder=tmp_path)
    assert again.milliseconds == table.milliseconds
    assert again.measure(layers) == 0
    assert LayerTable(Runtime(threads=2), folder=tmp_path).milliseconds == {}


def test_the_table_of_another_device_is_refused(tmp_path: Path) -> None:
    file = LayerTable(Runtime(), folder=tmp_path).file
    file.write_text(json.dumps({"format": 1, "device": "elsewhere", "milliseconds": {}}))
    with pytest.raises(LatencyError, match="another device, 'elsewhere'"):
        LayerTable(Runtime(), folder=tmp_path)


def test_a_runtime_without_onnx_has_no_table(tmp_path: Path) -> None:
    with pytest.raises(LatencyError, match="onnxruntime or openvino"):
        LayerTable(Runtime("torch"), folder=tmp_path)
