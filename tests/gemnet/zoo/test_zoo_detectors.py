"""A trained detector is published, found by its name, used, trained further, checked and withdrawn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from zoo_doubles import Repository, make_repository

import gemnet.detection  # stands in for what MMCV would have to compile
import gemnet.detector_weights
import gemnet.weights
import gemnet.zoo.check

pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")

from drawn_shapes import draw_shapes, write_config

from gemnet.checkpoint import load_checkpoint
from gemnet.detection.backbone import GEMNet
from gemnet.detection.costs import measure_costs
from gemnet.detection.trained import TrainedDetectorError, find_detector
from gemnet.detector_weights import find_detector_file, published_detectors
from gemnet.errors import GemnetError
from gemnet.metadata import metadata_of, read_metadata
from gemnet.trained import TrainedError, find_trained
from gemnet.training.runner_config import load_runner_config
from gemnet.weights import image_statistics, packaged_weights
from gemnet.zoo.check import problems
from gemnet.zoo.detectors import write_detector
from gemnet.zoo.results import load_results
from nas.commands import detect, train

NAME = "gemnet_a.shapes_retinanet"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn shapes, a config for them, and a detector trained on them for an epoch, in ``run``."""
    folder = tmp_path_factory.mktemp("project")
    draw_shapes(folder / "shapes", images=9, side=64)
    text = write_config(folder).read_text(encoding="utf-8")
    boxes = "num_classes=2), test_cfg=dict(score_thr=0.0, max_per_img=20)"
    (folder / "shapes.py").write_text(text.replace("num_classes=2)", boxes))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert train.main([str(folder / "shapes.py"), "--work-dir", str(folder / "run")]) == 0
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Path) -> Iterator[Repository]:
    """A zoo with a log of a detector; the package's detectors are out of reach."""
    (tmp_path / "detectors").mkdir()
    monkeypatch.setattr(gemnet.detector_weights, "FOLDER", tmp_path / "detectors")
    monkeypatch.setattr(gemnet.zoo.check, "packaged_weights", dict)
    (tmp_path / "none").mkdir()
    (tmp_path / "none/index.json").write_text("{}")
    monkeypatch.setattr(gemnet.weights, "FOLDER", tmp_path / "none")
    packaged_weights.cache_clear()
    made = make_repository(tmp_path / "repository")
    shutil.copy(project / "shapes.py", made.root / "configs/shapes.py")
    yield made
    monkeypatch.undo()
    packaged_weights.cache_clear()


@pytest.fixture
def published(repository: Repository, project: Path) -> Path:
    """The detector in the package, without a row."""
    return write_detector(project / "run/epoch_1.pth", NAME, precision="float32")


ROW = ("--detector", "RetinaNet", "--data", "Shapes", "--source", "shapes", "--resolution", "64")
LOG = ("--log", "model_zoo/logs/detector.json", "--config", "configs/shapes.py")


def publish(repository: Repository, source: Path, name: str = NAME, *options: str) -> int:
    return repository.run("publish", source, name, *ROW, *LOG, *options)


def test_a_published_detector_is_all_that_is_needed(published: Path, project: Path, tmp_path: Path) -> None:
    assert published_detectors() == {NAME: published}
    text = published.read_bytes()[:20000].decode("latin-1")
    assert str(project) not in text
    about = read_metadata(published)
    assert about.classes == ("square", "disc")
    assert about.notes["detector"] == "RetinaNet"
    image = next((project / "shapes").glob("*.jpg"))
    own, named = find_detector(project / "run/epoch_1.pth")(image), find_detector(NAME)(image)
    assert len(own.scores) == 20
    assert torch.equal(torch.tensor(own.boxes), torch.tensor(named.boxes))
    assert torch.equal(torch.tensor(own.scores), torch.tensor(named.scores))
    assert detect.main([NAME, str(image), "--score", "0", "--out", str(tmp_path / "found")]) == 0
    assert len(json.loads((tmp_path / "found/results.json").read_text())) == 20
    with pytest.raises(TrainedError):
        find_trained(NAME)


def test_row_card_and_figure_are_those_of_the_file(repository: Repository, project: Path) -> None:
    assert publish(repository, project / "run/epoch_1.pth") == 0
    (result,) = load_results(repository.zoo)
    assert result.values == (12.3,)
    assert result.epochs == 1
    assert result.weights == published_detectors()[NAME].name
    costs = measure_costs(load_runner_config(project / "shapes.py"), str(project / "run/epoch_1.pth"))
    assert (result.macs, result.params) == (round(costs.macs), costs.params)
    assert result.speed is not None
    assert f" {result.speed.seconds:.3g}‡ |" in (repository.zoo / "README.md").read_text()
    assert result.weights_value is not None
    assert {value.dtype for value in load_checkpoint(published_detectors()[NAME])["state_dict"].values()} >= {
        torch.float16
    }
    readme = (repository.zoo / "README.md").read_text()
    assert f"[file](../gemnet/weights/detectors/{result.weights}): {result.weights_value:.2f}" in readme
    assert f"gemnet-detect {NAME} street.jpg" in (repository.zoo / f"{NAME}.md").read_text()
    (line,) = (repository.zoo / "test_openings.jsonl").read_text().splitlines()
    assert NAME in json.loads(line)["purpose"]
    assert repository.run("check", "--accuracy", NAME) == 0
    wrong = (repository.zoo / "results" / f"{NAME}.json").read_text().replace(f'"macs": {result.macs}', '"macs": 1')
    (repository.zoo / "results" / f"{NAME}.json").write_text(wrong)
    assert repository.run("speed", NAME) == 0
    assert load_results(repository.zoo)[0].macs == result.macs
    assert repository.run("withdraw", NAME) == 0
    assert not published_detectors()
    assert not load_results(repository.zoo)
    assert repository.run("check") == 0


@pytest.mark.usefixtures("published")
def test_a_training_goes_on_from_it(project: Path, tmp_path: Path) -> None:
    options = ["--cfg-options", f"load_from={NAME}", "optim_wrapper.optimizer.lr=0.0", "experiment_name=more"]
    assert train.main([str(project / "shapes.py"), "--work-dir", str(tmp_path / "more"), *options]) == 0
    before = load_checkpoint(project / "run/epoch_1.pth")["state_dict"]
    after = load_checkpoint(tmp_path / "more/epoch_1.pth")["state_dict"]
    key = "bbox_head.retina_cls.weight"
    assert torch.equal(before[key], after[key])


@pytest.mark.usefixtures("published")
def test_a_backbone_starts_from_it(project: Path) -> None:
    before = load_checkpoint(project / "run/epoch_1.pth")
    backbone = GEMNet(arch="gemnet_a", init_cfg=NAME)
    backbone.init_weights()
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before["state_dict"][f"backbone.{key}"])
    assert image_statistics(NAME) == metadata_of(before, "").statistics


def test_what_is_wrong_is_said(
    repository: Repository, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(repository, project / "run/epoch_1.pth") == 0
    for find in (find_detector, find_detector_file):
        with pytest.raises(GemnetError, match=f"Did you mean '{NAME}'"):
            find("gemnet_a.shapes_retinane")
    with pytest.raises(TrainedDetectorError, match="neither a folder nor a file"):
        find_detector("work_dirs/none")
    with pytest.raises(TrainedDetectorError, match="classifier"):
        find_detector(_classifier(tmp_path))
    path = published_detectors()[NAME]
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(GemnetError, match="the file is damaged"):
        find_detector_file(NAME)
    assert any("is damaged" in problem for problem in problems(repository.zoo))
    path.unlink()
    assert any("are not in the package" in problem for problem in problems(repository.zoo))
    capsys.readouterr()
    for source, name, options, word in (
        (project / "run/epoch_1.pth", "gemnet_a.no-good", (), "<backbone>.<data>_<detector>"),
        (_classifier(tmp_path), NAME, (), "classifier"),
        (project / "run/none.pth", NAME, (), "no such file"),
        (project / "run/epoch_1.pth", NAME, ("--mean", "0", "0", "0"), "--mean and --std are of classifiers"),
    ):
        assert publish(repository, source, name, *options) == 2
        assert word in capsys.readouterr().err
    assert not published_detectors()


def _classifier(folder: Path) -> Path:
    file = folder / "classifier.safetensors"
    if not file.exists():
        shutil.copy(Path(gemnet.__file__).parent / f"weights/{_packaged()}", file)
    return file


def _packaged() -> str:
    return next(iter(json.loads((Path(gemnet.__file__).parent / "weights/index.json").read_text()).values()))["file"]
