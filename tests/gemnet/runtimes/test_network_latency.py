"""Latencies side by side: who can be measured, by what, and what is said where it can't be."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gemnet.cell_graph import CellGraph
from gemnet.deploy import deploy
from gemnet.genome import Genome, LayerSpec
from gemnet.network import GEMNet
from gemnet.runtimes import onnx_form
from gemnet.runtimes.latency import LatencyError, Runtime, in_turns
from gemnet.runtimes.latency_report import compare_latency, write_latency
from gemnet.runtimes.onnx_graph import graph_of
from gemnet.templates import template
from nas.commands.benchmark import main

pytest.importorskip("onnx", reason="pip install 'gemnet[export]'")
pytest.importorskip("onnxruntime", reason="pip install 'gemnet[export]'")

DW = CellGraph(("dw3x3_bn_act",), frozenset({(0, 1), (1, 2)}))


@pytest.fixture
def genome(tmp_path: Path) -> str:
    template("cifar", "a").genome(DW, width=0.25).save(tmp_path / "small.json")
    return str(tmp_path / "small.json")


@pytest.fixture
def large(tmp_path: Path) -> str:
    template("cifar", "c").genome(DW, width=2.0).save(tmp_path / "large.json")
    return str(tmp_path / "large.json")


@pytest.mark.slow
@pytest.mark.contract
def test_networks_are_measured_in_turns_and_compared_with_the_first(genome, large, tmp_path: Path) -> None:
    rows = compare_latency([genome, large], Runtime(), rounds=4)
    assert [row.network for row in rows] == [genome, large]
    small, big = rows
    assert small.wall_ratio == small.cpu_ratio == 1
    assert big.macs is not None
    assert small.macs is not None
    assert big.macs > 20 * small.macs
    assert big.wall_ratio > 2
    assert big.cpu_ms > 2 * small.cpu_ms
    assert "onnxruntime" in small.runtime
    if Path("/proc/self/clear_refs").exists():
        assert big.peak_mib is not None
        assert small.peak_mib is not None
        assert big.peak_mib > small.peak_mib > 0
    write_latency(rows, tmp_path / "latency.csv", tmp_path / "latency.png")
    written = list(csv.DictReader((tmp_path / "latency.csv").open()))
    assert [row["network"] for row in written] == [genome, large]
    assert float(written[1]["cpu_ratio"]) == pytest.approx(big.cpu_ratio, rel=1e-3)
    assert (tmp_path / "latency.png").stat().st_size > 0


def test_the_turns_of_all_come_between_one_anothers() -> None:
    seen: list[int] = []
    timings = in_turns([lambda: seen.append(0), lambda: seen.append(1)], rounds=6)
    assert timings.wall.shape == timings.cpu.shape == (2, 6)
    turns = [number for number, _ in itertools.groupby(seen)]
    assert len(turns) >= 6
    np.testing.assert_allclose(timings.ratios("wall")[0], 1)


def test_an_onnx_file_and_torch_networks_are_measured_too(genome, tmp_path: Path) -> None:
    from gemnet.runtimes.networks import open_network

    network = open_network(genome)
    file = tmp_path / "net.onnx"
    onnx_form.save(onnx_form.to_onnx(network.model, (1, 3, 32, 32)), file, network.metadata)
    (row,) = compare_latency([str(file)], Runtime(), rounds=2, memory=False)
    assert (row.size, row.classes, row.macs) == (32, 10, None)
    with pytest.raises(LatencyError, match="--batch 1, not 4"):
        compare_latency([str(file)], Runtime(), batch=4, memory=False)
    with pytest.raises(LatencyError, match="not by torch"):
        compare_latency([str(file)], Runtime("torch"))
    (row,) = compare_latency([genome], Runtime("torch"), batch=2, rounds=2, memory=False)
    assert row.cpu_ms > 0
    assert row.classes == 10


def test_openvino_measures_at_the_batch_asked_for(genome) -> None:
    pytest.importorskip("openvino", reason="pip install 'gemnet[openvino]'")
    (row,) = compare_latency([genome], Runtime("openvino"), batch=3, rounds=2, memory=False)
    assert "openvino" in row.runtime
    assert row.wall_ms > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend": "onnxruntim"}, "Did you mean 'onnxruntime'"),
        ({"device": "cudaa"}, "device is 'cudaa'"),
        ({"device": "meta"}, "device is 'meta'"),
        ({"device": "cuda"}, "choose 'torch'"),
        ({"threads": 0}, "at least 1"),
    ],
)
def test_a_runtime_that_is_not_one_is_refused(options, said: str) -> None:
    with pytest.raises(LatencyError, match=said):
        Runtime(**options)


def test_a_device_that_is_not_there_is_named(genome) -> None:
    with pytest.raises(LatencyError, match="device is 'cuda:99'"):
        compare_latency([genome], Runtime("torch", device="cuda:99"))


def test_a_side_smaller_than_the_stride_is_refused(genome) -> None:
    with pytest.raises(LatencyError, match="Give --size"):
        compare_latency([genome], Runtime(), size=2)


def test_no_room_for_so_many_images_is_said() -> None:
    def full() -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    with pytest.raises(LatencyError, match="Lower the batch"):
        in_turns([full], rounds=1)


def test_the_command_prints_and_writes(genome, tmp_path: Path, capsys) -> None:
    work_dir = tmp_path / "work"
    assert main(["latency", genome, genome, "--rounds", "2", "--no-memory", "--work-dir", str(work_dir)]) == 0
    assert sorted(item.name for item in work_dir.iterdir()) == ["latency.csv", "latency.png"]
    said = capsys.readouterr().out
    assert "peak MiB" in said
    assert "classes" not in said
    Genome.load(genome).replace(num_classes=7).save(tmp_path / "seven.json")
    command = ["latency", genome, str(tmp_path / "seven.json"), "--rounds", "2", "--no-memory"]
    assert main([*command, "--work-dir", str(work_dir)]) == 0
    assert "Note: the networks have 10, 7 classes" in " ".join(capsys.readouterr().out.split())
    assert main(["latency", genome, "--backend", "tflite", "--work-dir", str(work_dir)]) == 2
    assert "There is no backend 'tflite'" in capsys.readouterr().err


@pytest.mark.parametrize("activation", ["relu", "relu6", "hswish", "silu", "gelu"])
def test_a_graph_written_by_us_computes_what_torch_does(activation: str) -> None:
    ops = ("dw3x3_bn_act", "avg_pool_3x3", "max_pool_3x3", "conv3x3_bn_act", "sep3x3_bn_act", "identity")
    graph = CellGraph(ops, frozenset({(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 5), (0, 6), (4, 7), (5, 7), (6, 7)}))
    for output in ("mean", "concat"):
        genome = template("cifar", "a").genome(graph, width=0.25, activation=activation, se_ratio=0.25)
        cells = {key: cell.__class__(**{**vars(cell), "output": output}) for key, cell in genome.cells.items()}
        model = GEMNet(genome.replace(cells=cells)).eval()
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.running_mean)
        deployed = deploy(model)
        assert graph_of(deployed) is not None
        proto = onnx_form.to_onnx(deployed, (2, 3, 37, 33), ("batch", "size"))
        session = onnx_form.session(proto.SerializeToString())
        for shape in ((2, 3, 37, 33), (1, 3, 32, 32)):
            images = torch.randn(shape)
            with torch.no_grad():
                expected = model(images).numpy()
            np.testing.assert_allclose(
                onnx_form.run(session, images.numpy()), expected, atol=1e-4 * np.abs(expected).max()
            )


@pytest.mark.parametrize("pool", ["avg", "max"])  # written by us, and by torch's exporter
@pytest.mark.parametrize("side", [30, 33])
def test_even_windows_are_padded_at_their_end_in_onnx_too(pool: str, side: int) -> None:
    graph = CellGraph(("conv2x2_bn_act",), frozenset({(0, 1), (1, 2)}))
    genome = template("cifar", "a").genome(graph, width=0.5).replace(stem=(LayerSpec("conv4x4_bn_act", 8, 4),))
    model = GEMNet(genome, global_pool=pool).eval()
    for dynamic in ((), ("size",)):
        proto = onnx_form.to_onnx(deploy(model), (1, 3, side, side), dynamic)
        session = onnx_form.session(proto.SerializeToString())
        for height in (side, side + 1, side + 2)[: 3 if dynamic else 1]:
            images = torch.randn(1, 3, height, side)
            with torch.no_grad():
                expected = model(images).numpy()
            np.testing.assert_allclose(
                onnx_form.run(session, images.numpy()), expected, atol=1e-4 * np.abs(expected).max()
            )


def test_what_is_not_written_by_us_goes_through_torchs_exporter() -> None:
    model = deploy(GEMNet(template("cifar", "a").genome(DW, width=0.25), global_pool="max").eval())
    assert graph_of(model) is None
    session = onnx_form.session(onnx_form.to_onnx(model, (1, 3, 32, 32)).SerializeToString())
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(images).numpy()
    np.testing.assert_allclose(onnx_form.run(session, images.numpy()), expected, atol=1e-5)
