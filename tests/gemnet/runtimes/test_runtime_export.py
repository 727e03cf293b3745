"""Exported networks: what they compute, what their files say, and that they stand alone."""

from __future__ import annotations

import json
import runpy
import shutil
import struct
import subprocess
import sys
import venv
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import nn

from gemnet.cell_graph import CellGraph
from gemnet.deploy import deploy
from gemnet.errors import GemnetError
from gemnet.metadata import Metadata
from gemnet.network import GEMNet
from gemnet.runtimes import export as export_module
from gemnet.runtimes import onnx_form
from gemnet.runtimes.export import TOLERANCE, Exported, ExportError, check_request, export_for_runtime, for_inference
from gemnet.runtimes.formats import FORMATS
from gemnet.runtimes.images import ImagesError, Labelled, photographs, prepared, read_images, split_labelled
from gemnet.runtimes.int8_speed import Int8Speed, operator_shares
from gemnet.runtimes.networks import OpenedNetwork, open_network
from gemnet.runtimes.onnx_graph import Graph, model_of
from gemnet.runtimes.packages import MissingPackageError, require
from gemnet.runtimes.quantization import pools_as_convolutions
from gemnet.templates import template
from nas.commands.export import main

onnx = pytest.importorskip("onnx", reason="pip install 'gemnet[export]'")
pytest.importorskip("onnxruntime", reason="pip install 'gemnet[export]'")

NAME = "gemnet_a_cifar.cifar10"
TOLD = {"input_size": 32, "crop_pct": 1.0, "interpolation": "bilinear", "mean": (0.5,) * 3, "std": (0.25,) * 3}


@pytest.fixture(scope="module")
def network() -> OpenedNetwork:
    return open_network(NAME)


@pytest.fixture(scope="module")
def exported(network: OpenedNetwork, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_for_runtime(network, "onnx", tmp_path_factory.mktemp("onnx") / "made", ("batch", "size"))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    from sklearn.datasets import load_sample_image

    Image.fromarray(load_sample_image("flower.jpg")).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_file_computes_what_pytorch_does_at_all_batches_and_sizes(network, exported) -> None:
    session = onnx_form.session(exported.file)
    generator = torch.Generator().manual_seed(0)
    assert exported.difference <= TOLERANCE
    for shape in ((1, 3, 32, 32), (3, 3, 45, 33), (8, 3, 64, 96)):
        images = torch.randn(shape, generator=generator)
        with torch.no_grad():
            expected = network.model(images).numpy()
        np.testing.assert_allclose(
            onnx_form.run(session, images.numpy()), expected, atol=TOLERANCE * np.abs(expected).max(), rtol=0
        )


def test_onnxruntime_runs_pools_blocked_and_activations_fused(tmp_path: Path) -> None:
    cell = CellGraph(("dw3x3_bn_act", "avg_pool_3x3", "dw3x3_bn"), frozenset({(0, 1), (1, 2), (1, 3), (2, 4), (3, 4)}))
    genome = template("cifar", "a").genome(cell, width=0.5, activation="hswish")
    proto = onnx_form.to_onnx(deploy(GEMNet(genome).eval()), (1, 3, 32, 32))
    assert {each.version for each in proto.opset_import if not each.domain} == {18}
    kinds = {node.op_type for node in proto.graph.node}
    assert {"AveragePool", "GlobalAveragePool", "HardSwish"} <= kinds
    assert not kinds & {"ReduceMean", "BatchNormalization"}
    onnx_form.session(proto.SerializeToString(), optimized=tmp_path / "optimized.onnx")
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    pools = [node for node in nodes if "Pool" in node.op_type]
    assert {node.domain for node in pools} == {"com.microsoft.nchwc"}
    assert not any(node.op_type == "HardSwish" for node in nodes)


def test_the_file_says_how_images_are_prepared_and_what_the_classes_are(network, exported) -> None:
    told = onnx_form.read_about(exported.file)
    assert told == network.metadata
    assert told.classes[:2] == ("airplane", "automobile")
    assert sorted(item.name for item in exported.folder.iterdir()) == [f"{NAME}.onnx", "predict.py"]


def test_predictions_need_nothing_of_ours_and_follow_what_the_file_says(
    network, exported, photo: Path, tmp_path: Path, capsys
) -> None:
    with torch.no_grad():
        logits = network.model(torch.from_numpy(prepared(Image.open(photo), network.metadata)[None]))[0]
    best = network.metadata.classes[int(logits.argmax())]
    share = f"{float(logits.softmax(0).max()):.1%}"
    blocked = "import sys; sys.modules.update(dict.fromkeys(('gemnet', 'nas', 'timm', 'torch', 'torchvision')));"
    script = exported.folder / "predict.py"
    code = f"{blocked} sys.argv = [{str(script)!r}, {str(photo)!r}]; import runpy; runpy.run_path(sys.argv[0])"
    found = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[1].split() == [best, share]
    assert len(script.read_text().splitlines()) < 50

    renamed = tmp_path / "renamed"
    shutil.copytree(exported.folder, renamed)
    proto = onnx.load(renamed / f"{NAME}.onnx")
    texts = {each.key: each.value for each in proto.metadata_props}
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {**texts, "classes": json.dumps([f"kind {k}" for k in range(10)])})
    onnx.save(proto, renamed / f"{NAME}.onnx")
    sys.argv, before = [str(renamed / "predict.py"), str(photo)], sys.argv
    try:
        runpy.run_path(sys.argv[0])
    finally:
        sys.argv = before
    assert f"kind {int(logits.argmax())} {share}" in capsys.readouterr().out


def test_predictions_see_images_as_training_does(network, exported, tmp_path: Path, capsys, monkeypatch) -> None:
    steep = np.linspace(0, 65535, 64 * 48).reshape(48, 64)
    Image.fromarray(steep.astype(np.uint16)).save(tmp_path / "deep.png")
    shape = np.zeros((40, 40, 4), np.uint8)
    shape[8:30, 12:20, 3] = 255
    Image.fromarray(shape).save(tmp_path / "shape.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray((steep / 257).astype(np.uint8)).save(tmp_path / "turned.png", exif=exif)
    files = sorted(tmp_path.glob("*.png"))
    with torch.no_grad():
        shares = network.model(torch.from_numpy(read_images(files, network.metadata))).softmax(1).max(1).values
    monkeypatch.setattr(sys, "argv", [str(exported.folder / "predict.py"), *map(str, files)])
    runpy.run_path(sys.argv[0])
    told = capsys.readouterr().out.splitlines()[1::6]
    assert [float(line.split()[-1].rstrip("%")) for line in told] == pytest.approx((100 * shares).tolist(), abs=0.06)


def test_what_the_script_cannot_read_is_one_sentence(exported, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 40), 60000, np.int32)).save(tmp_path / "whole.tif")
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(tmp_path / "fraction.tif")
    (tmp_path / "broken.png").write_bytes(b"no image")
    script = str(exported.folder / "predict.py")
    for name, words in (("whole.tif", "grey"), ("fraction.tif", "grey"), ("broken.png", "read"), ("none.png", "read")):
        found = subprocess.run([sys.executable, script, str(tmp_path / name)], capture_output=True, text=True)
        assert (found.returncode, found.stdout) == (1, "")
        assert found.stderr.count("\n") == 1
        assert str(tmp_path / name) in found.stderr
        assert words in found.stderr
    found = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert found.returncode == 1
    assert "python predict.py IMAGE..." in found.stderr


def test_the_script_goes_on_after_images_that_it_cannot_read(exported, photo: Path, tmp_path: Path) -> None:
    whole = photo.read_bytes()
    header = b"IHDR" + struct.pack(">II", 60000, 60000) + whole[24:29]
    (tmp_path / "bomb.png").write_bytes(whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:])
    (tmp_path / "cut.png").write_bytes(whole[:-2000])
    (tmp_path / "short.ppm").write_bytes(b"P6 4 4 70000\n" + bytes(48))
    bad = [str(tmp_path / name) for name in ("bomb.png", "cut.png", "short.ppm")]
    command = [sys.executable, str(exported.folder / "predict.py"), *bad, str(photo)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stdout.splitlines()[0] == str(photo)
    assert len(found.stdout.splitlines()) == 6
    assert [line.split(" can't be read: ")[0] for line in found.stderr.splitlines()] == bad
    assert "decompression bomb" in found.stderr


@pytest.mark.parametrize("name", [".", ".."])
def test_a_folder_without_a_name_is_refused(network, name: str, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ExportError, match="has no name"):
        export_for_runtime(network, "onnx", Path(name))
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.slow
def test_predictions_in_an_environment_without_gemnet_timm_and_torch(exported, photo: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "plain", with_pip=True)
    python = tmp_path / "plain" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "onnxruntime", "numpy", "Pillow"]
    subprocess.run(install, check=True)
    for module in ("torch", "timm", "gemnet"):
        assert subprocess.run([python, "-I", "-c", f"import {module}"], capture_output=True).returncode == 1
    found = subprocess.run(
        [python, "-I", exported.folder / "predict.py", photo], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert found.stdout.startswith(str(photo))
    assert len(found.stdout.splitlines()) == 6


def test_a_photo_taken_sideways_is_turned_as_for_training(network, photo: Path, tmp_path: Path) -> None:
    from gemnet.runtimes.images import read_images

    turned = tmp_path / "turned.jpg"
    image = Image.open(photo)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.rotate(90, expand=True).save(turned, exif=exif, quality=100)
    straight = prepared(image, network.metadata)
    np.testing.assert_allclose(read_images([turned], network.metadata)[0], straight, atol=0.3)


def test_another_runtime_computes_the_same(network, tmp_path: Path) -> None:
    made = export_for_runtime(network, "torch-export", tmp_path / "out", ("batch",))
    assert made.difference <= TOLERANCE
    extra = {"metadata.json": ""}
    loaded = torch.export.load(made.file, extra_files=extra)
    assert Metadata.from_texts(json.loads(extra["metadata.json"]), made.file) == network.metadata
    assert loaded.module()(torch.zeros(5, 3, 32, 32)).shape == (5, 10)


def test_openvino_computes_the_same(network, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="pip install 'gemnet[openvino]'")
    made = export_for_runtime(network, "openvino", tmp_path / "out")
    assert made.difference <= TOLERANCE
    told = openvino.Core().read_model(made.file).get_rt_info(["gemnet", "classes"]).astype(str)
    assert json.loads(told) == list(network.metadata.classes)
    assert sorted(item.suffix for item in made.folder.iterdir()) == [".bin", ".xml"]


def test_int8_weighs_a_third_and_says_both_accuracies(network, tmp_path: Path) -> None:
    images = photographs(network.metadata)
    with torch.no_grad():
        labels = network.model(torch.from_numpy(images)).argmax(1).numpy()
    made = export_for_runtime(network, "onnx", tmp_path / "out", int8=True, labelled=Labelled(images, images, labels))
    before, after = made.accuracies or (0.0, 0.0)
    assert before == 100
    # Random weights lose much. Without VNNI, sums of two products of bytes saturate besides: 69 % with AVX2 alone.
    assert after >= 60
    params = sum(parameter.numel() for parameter in network.model.parameters())
    assert made.file.stat().st_size < 2 * params
    assert onnx_form.read_about(made.file) == network.metadata
    assert sorted(item.name for item in made.folder.iterdir()) == [made.file.name, "predict.py"]
    assert made.speed is not None
    assert min(made.speed.before, made.speed.after) > 0
    shares = operator_shares(made.file, (1, 3, 32, 32))
    assert sum(share for _, share in shares) == pytest.approx(1)
    assert "QLinearConv" in dict(shares)


@pytest.mark.parametrize(("side", "dynamic", "left"), [(16, (), 1), (17, (), 2), (16, ("size",), 2)])
def test_pools_that_cut_an_image_into_patches_become_convolutions(
    side: int, dynamic: tuple[str, ...], left: int
) -> None:
    graph = Graph(3)
    halved = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
    graph.module(nn.Sequential(halved, nn.AvgPool2d(3, 1, 1, count_include_pad=False)), "images")
    proto = model_of(graph, (1, 3, side, side), dynamic)
    images = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)
    before = onnx_form.run(onnx_form.session(proto.SerializeToString()), images)
    pools_as_convolutions(proto)
    assert [node.op_type for node in proto.graph.node].count("AveragePool") == left
    np.testing.assert_allclose(onnx_form.run(onnx_form.session(proto.SerializeToString()), images), before, atol=1e-6)


@pytest.mark.parametrize(("after", "slower"), [(2.0, True), (0.5, False)])
def test_where_int8_is_slower_that_is_said_with_what_its_time_goes_into(after: float, slower: bool) -> None:
    speed = Int8Speed("onnxruntime", 1.0, after, (("QLinearConv", 0.6), ("Transpose", 0.3), ("HardSwish", 0.1)))
    text = speed.text()
    assert "1 ms in float32" in text
    assert ("int8 is slower here" in text) == slower
    assert ("QLinearConv 60%" in text) == slower
    assert ("30% into passing numbers" in text) == slower


def test_images_to_calibrate_with_are_not_those_that_accuracy_is_measured_on(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(10):
            level = 10 * number + 5 * (name == "dog")
            Image.new("RGB", (32, 32), (level,) * 3).save(tmp_path / name / f"{number}.png")
    about = Metadata(num_classes=2, in_chans=3, classes=("cat", "dog"), **TOLD)
    found = split_labelled(tmp_path, about, 5, 12)
    assert (len(found.calibration), len(found.images), len(found.labels)) == (5, 12, 12)
    assert not {each[0, 0, 0] for each in found.calibration} & {each[0, 0, 0] for each in found.images}
    assert {
        (round(each[0, 0, 0] * 63.75 + 127.5) % 10 == 5) == bool(label)
        for each, label in zip(found.images, found.labels, strict=True)
    } == {True}
    few = split_labelled(tmp_path, about, None, 12)
    assert (len(few.calibration), len(few.images)) == (7, 12)
    with pytest.raises(ImagesError, match="20 images, 20 of which"):
        split_labelled(tmp_path, about, 20, 1)
    with pytest.raises(ImagesError, match="holds cat"):
        split_labelled(tmp_path, replace(about, classes=("dog", "horse")), 2, 1)
    with pytest.raises(ImagesError, match="no folder"):
        split_labelled(tmp_path / "nowhere", about, 2, 1)
    assert len(split_labelled(tmp_path, replace(about, classes=()), 5, 12).labels) == 12
    with pytest.raises(ImagesError, match="of 2 classes, the network tells 3 apart, and its weights carry no names"):
        split_labelled(tmp_path, replace(about, classes=(), num_classes=3), 5, 12)


def test_images_to_measure_with_are_found_as_training_finds_them(tmp_path: Path) -> None:
    for place in ("cat/0.png", "cat/garden/1.png", "dog/farm/old/2.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(tmp_path / place)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat/._0.png").write_text("what a Mac leaves beside a file")
    about = Metadata(num_classes=2, in_chans=3, classes=("cat", "dog"), **TOLD)
    assert sorted(split_labelled(tmp_path, about, 0, 9).labels) == [0, 0, 1]


@pytest.mark.parametrize(
    ("to", "dynamic", "int8", "said"),
    [
        ("onxx", (), False, "'onnx'"),
        ("onnx", ("depth",), False, "batch and size"),
        ("onnx", (), True, "--images"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_anything_is_done(
    network, tmp_path: Path, to: str, dynamic: tuple[str, ...], int8: bool, said: str
) -> None:
    with pytest.raises(ExportError, match=said):
        check_request(network, to, tmp_path / "out", dynamic, int8, False)


def test_a_folder_that_holds_something_is_left_alone(network, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ExportError, match="not empty"):
        export_for_runtime(network, "onnx", tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_that_computes_something_else_is_not_written(network, tmp_path: Path, monkeypatch) -> None:
    other = for_inference(network.model)
    with torch.no_grad():
        other.classifier.bias += 1
    monkeypatch.setattr(export_module, "for_inference", lambda model: other)
    with pytest.raises(ExportError, match="differ from PyTorch's"):
        export_for_runtime(network, "torch-export", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_file_of_open_size_is_compared_at_two_sizes(network, tmp_path: Path, monkeypatch) -> None:
    class OddBySize(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.model(images) + images.shape[2] % 2

    monkeypatch.setattr(export_module, "for_inference", lambda model: OddBySize(model))
    with pytest.raises(ExportError, match="differ from PyTorch's"):
        export_for_runtime(network, "onnx", tmp_path / "out", ("size",))


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'gemnet\[openvino\]'"):
        require("openvino")
    assert {"onnx", "openvino", "torch-export", "litert"} == set(FORMATS)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("gemnet_z", "Did you mean 'gemnet_"),
        ("nowhere.json", "nowhere.json"),
        ("work_dirs/fast", "There is no file or folder work_dirs/fast"),
    ],
)
def test_a_network_that_does_not_exist_is_named(source: str, said: str) -> None:
    with pytest.raises(GemnetError, match=said):
        open_network(source)


def test_a_folder_without_a_finished_search_says_so(tmp_path: Path) -> None:
    with pytest.raises(GemnetError, match=r"no best\.json"):
        open_network(str(tmp_path))


def test_a_searchs_network_is_opened_with_its_weights_and_images(network, tmp_path: Path) -> None:
    from gemnet.metadata import save_weights

    about = network.metadata.replace(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), input_size=24, interpolation="nearest")
    network.model.genome.save(tmp_path / "best.json")
    save_weights(tmp_path / "best.safetensors", network.model.state_dict(), about)
    found = open_network(str(tmp_path))
    assert found.trained
    assert found.metadata == about
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(found.model(images), network.model(images))


def test_the_command_exports_for_a_runtime(tmp_path: Path, capsys) -> None:
    out = tmp_path / "made"
    assert main([NAME, "--to", "torch-export", "--out", str(out)]) == 0
    assert [item.name for item in out.iterdir()] == [f"{NAME}.pt2"]
    assert "agree with PyTorch's" in capsys.readouterr().out
    assert main([NAME, "--to", "torch-export", "--out", str(out)]) == 2
    assert "not empty" in capsys.readouterr().err
    for wrong in (["--to", "onnx", "--name", "mine"], ["--name", "mine", "--int8"], ["--to", "onnx", "--genome", "x"]):
        with pytest.raises(SystemExit):
            main([NAME, *wrong])
