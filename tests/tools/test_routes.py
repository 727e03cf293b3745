"""A network is fed as it was trained by whatever way it comes: searched, trained, compared, exported, in a folder.

The images are bright and of low contrast: normalised by the statistics of the usual data sets, a network knows nothing.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import gemnet
from gemnet.classics import chain
from gemnet.data.datasets import DataSpec
from gemnet.metadata import read_metadata
from gemnet.sources import GenomeSource, Images, describe
from gemnet.templates import template
from gemnet.trained import find_trained
from gemnet.training.recipe import Recipe
from nas.commands import export as export_command
from nas.commands import test as test_command
from nas.commands import train as train_command
from nas.commands import zoo as zoo_command
from nas.evaluation.networks import NetworkTrainer
from nas.evaluation.training import TrainingEvaluator
from nas.studies.comparison.trainings import ComparisonTrainer, Job

CLASSES = ("across", "down", "plain")
CONFIG = str(Path(__file__).parents[2] / "configs/classification/gemnet_a_cifar_cifar10.py")
RECIPE = Recipe(batch_size=16, lr=0.1)
EPOCHS = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with images of stripes, the networks trained on them, and nothing else."""
    root = tmp_path_factory.mktemp("routes")
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("val", 20)):
        for label, name in enumerate(CLASSES):
            (root / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.zeros((16, 16))
                if label < 2:
                    pixels[:, rng.integers(2) :: 2] = 1.0
                pixels = pixels.T if label == 0 else pixels
                grey = 236 + 9 * pixels + rng.normal(0, 1.5, (16, 16))
                colours = np.clip(grey[..., None] + np.array([8, 0, -20]), 0, 255).astype(np.uint8)
                Image.fromarray(colours).save(root / "images" / split / name / f"{number}.png")
    genome = template("cifar", "a").genome(chain("dw3x3_bn_act"), width=0.5, inner_ratio=2)
    genome.replace(num_classes=3, input_size=16, name="stripes").save(root / "genome.json")
    patch = pytest.MonkeyPatch()
    patch.setenv("GEMNET_CACHE", str(root / "cache"))
    patch.chdir(root)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    _search(root)
    _train(root)
    _compare(root)
    yield root
    torch.set_num_threads(before)
    patch.undo()


def _search(root: Path) -> None:
    """What a search leaves: its network as genome and weights."""
    genome = find_trained(root / "genome.json").genome
    (root / "search").mkdir()
    genome.save(root / "search/best.json")
    evaluator = TrainingEvaluator(data=DataSpec(str(root / "images"), None, 16), space=None, recipe=RECIPE)
    done = NetworkTrainer(evaluator).train_network(genome, EPOCHS, 0, root / "search/best.safetensors")
    assert done.accuracy is not None, done.reason


def _train(root: Path) -> None:
    options = [f"data_root={root / 'images'}", "resolution=16", "batch_size=16", f"max_epochs={EPOCHS}", "lr=0.1"]
    options += ["model.arch=None", f"model.genome={root / 'genome.json'}", "param_scheduler.0.end=4"]
    options += ["model.data_preprocessor.cutout=0.0", "custom_hooks=[]", "experiment_name=routes"]
    # As a search does, a training takes the statistics of what it is given; a config says them.
    options += ["model.data_preprocessor.mean=[0.96,0.93,0.85]", "model.data_preprocessor.std=[0.02,0.02,0.02]"]
    assert train_command.main([CONFIG, "--work-dir", str(root / "training"), "--cfg-options", *options]) == 0


def _compare(root: Path) -> None:
    trainer = ComparisonTrainer(DataSpec(str(root / "images"), None, 16), RECIPE)
    source = GenomeSource(find_trained(root / "genome.json").genome)
    network = describe("stripes", source, Images(16, 3, 3))
    row = trainer.train(Job(network, "training", 0.1, 0, EPOCHS), root / "compare")
    (root / "compare" / row.weights).rename(root / "compare/stripes.safetensors")


def accuracy(model: torch.nn.Module, root: Path, **changes: Any) -> float:
    """Share of the test images that are told apart, fed as timm's own configuration of the model says."""
    data = {**timm.data.resolve_model_data_config(model), **changes}
    transform = timm.data.create_transform(**data, is_training=False)
    names = model.pretrained_cfg["label_names"]
    hits = []
    for path in sorted(root.glob("images/val/*/*.png")):
        with torch.no_grad():
            logits = model.eval()(transform(Image.open(path))[None])
        hits.append(names[int(logits.argmax())] == path.parent.name)
    return 100 * float(np.mean(hits))


SAVED = {
    "search": "search",
    "a search's weights": "search/best.safetensors",
    "training": "training",
    "checkpoint": f"training/epoch_{EPOCHS}.pth",
    "comparison": "compare/stripes.safetensors",
}


# A folder's network leaves as its file does, which is shown by the slow ones.
@pytest.mark.parametrize(
    "saved",
    [
        "search",
        pytest.param("a search's weights", marks=pytest.mark.slow),
        "training",
        pytest.param("checkpoint", marks=pytest.mark.slow),
        "comparison",
    ],
)
def test_every_saved_network_leaves_by_every_route_and_is_as_good(saved: str, place: Path, tmp_path: Path) -> None:
    source = place / SAVED[saved]
    found = find_trained(source)
    assert found.metadata.classes == CLASSES
    assert found.metadata.input_size == 16
    assert found.weights is not None
    model = timm.create_model("gemnet", genome=place / "genome.json", checkpoint_path=found.weights)
    expected = accuracy(model, place)
    assert expected > 90
    usual = timm.get_pretrained_cfg("gemnet_a_cifar")
    assert accuracy(model, place, mean=usual.mean, std=usual.std) < 60, "the statistics don't matter here"

    name = "route_" + "".join(letter for letter in saved if letter.isalpha())
    assert export_command.main([str(source), "--name", name, "--out", str(tmp_path / "own")]) == 0
    sys.path.insert(0, str(tmp_path / "own"))
    module = importlib.import_module(name)
    sys.path.remove(str(tmp_path / "own"))
    assert module.CLASSES == CLASSES
    named = timm.create_model(name, pretrained=True)
    assert accuracy(named, place) == expected
    loaded = module.load(timm.create_model(name))
    assert accuracy(loaded, place) == expected
    again = timm.create_model("gemnet", genome=module.HERE / f"{name}.json", checkpoint_path=module.WEIGHTS)
    assert accuracy(again, place) == expected

    assert zoo_command.main(["folder", str(source), "--out", str(tmp_path / "folder")]) == 0
    local = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True)
    assert accuracy(local, place) == expected

    gemnet.register(f"{name}_here", weights=source)
    assert accuracy(timm.create_model(f"{name}_here", pretrained=True), place) == expected

    assert _measured(place, found.weights, tmp_path / "measured") == pytest.approx(expected, abs=0.01)


def _measured(place: Path, weights: Path, work_dir: Path) -> float:
    """What `tools/test.py` says of weights on the test images."""
    out = work_dir / "figures.json"
    options = [f"data_root={place / 'images'}", "resolution=16", "model.arch=None", "custom_hooks=[]"]
    options += [f"model.genome={place / 'genome.json'}", f"experiment_name={work_dir.name}{abs(hash(str(work_dir)))}"]
    flags = ["--work-dir", str(work_dir), "--final", "--out", str(out)]
    assert test_command.main([CONFIG, str(weights), *flags, "--cfg-options", *options]) == 0
    return json.loads(out.read_text())["accuracy/top1"]


def test_detectors_normalise_as_the_weights_were_trained(place: Path) -> None:
    pytest.importorskip("mmdet", reason="pip install '.[detection]'")
    from gemnet.detection.torchvision import faster_rcnn

    for saved in ("search/best.safetensors", f"training/epoch_{EPOCHS}.pth"):
        statistics = read_metadata(place / saved).statistics
        detector = faster_rcnn(genome=str(place / "genome.json"), weights=place / saved, out_indices=(0, 1, 2))
        assert (tuple(detector.transform.image_mean), tuple(detector.transform.image_std)) == statistics


def test_what_a_config_says_outranks_the_weights(place: Path, tmp_path: Path) -> None:
    given = ["model.data_preprocessor.mean=[0.5,0.5,0.5]", "model.data_preprocessor.std=[0.25,0.25,0.25]"]
    options = [f"data_root={place / 'images'}", "resolution=16", "model.arch=None", "custom_hooks=[]", *given]
    options += [f"model.genome={place / 'genome.json'}", "experiment_name=outranked"]
    weights, out = place / "search/best.safetensors", tmp_path / "f.json"
    flags = ["--work-dir", str(tmp_path / "t"), "--final", "--out", str(out)]
    assert test_command.main([CONFIG, str(weights), *flags, "--cfg-options", *options]) == 0
    assert json.loads(out.read_text())["accuracy/top1"] < 60


def test_classes_in_another_order_are_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gemnet.metadata import save_weights

    found = find_trained(place / "search")
    turned = replace(found.metadata, classes=CLASSES[::-1])
    save_weights(tmp_path / "turned.safetensors", found.state_dict(), turned)
    options = [f"data_root={place / 'images'}", "resolution=16", "model.arch=None", "custom_hooks=[]"]
    options += [f"model.genome={place / 'genome.json'}", "experiment_name=turned"]
    flags = ["--work-dir", str(tmp_path / "t")]
    assert test_command.main([CONFIG, str(tmp_path / "turned.safetensors"), *flags, "--cfg-options", *options]) == 2
    assert "another order" in capsys.readouterr().err
