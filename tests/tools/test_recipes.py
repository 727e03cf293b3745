"""Recipes that come with the package: fine-tuning in one command, ImageNet's started on a folder of its shape."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import gemnet.registered
import gemnet.weights
from gemnet.classics import chain
from gemnet.network import GEMNet
from gemnet.templates import template
from gemnet.training.measurement import select_images
from gemnet.training.runner_config import load_runner_config, unknown_network
from gemnet.weights import packaged_weights
from gemnet.zoo.publish import enter_weights, write_weights
from nas.commands import train as command

CONFIGS = Path(__file__).resolve().parents[2] / "configs/classification"
GENOME = template("cifar", "a").genome(chain("dw3x3_bn_act"), width=0.5, inner_ratio=1)
_runs = iter(range(1000))


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GEMNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GEMNET_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(folder: Path, classes: int, count: int, side: int) -> Path:
    """An image folder ``<folder>/<class>/*`` of noise in rectangles that are not square."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"n{label:08d}").mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (side, side + 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"n{label:08d}/{number}.jpg")
    return folder


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The tag of weights of four classes at 40x40, made of ``source.safetensors``."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/index.json").write_text("{}")
    monkeypatch.setattr(gemnet.weights, "FOLDER", tmp_path / "weights")
    packaged_weights.cache_clear()
    torch.manual_seed(5)
    source = tmp_path / "source.safetensors"
    save_file(GEMNet(GENOME, num_classes=4).state_dict(), source)
    arch = f"recipe_test_net{next(_runs)}"  # timm learns tags when a name is registered, and names stay
    with monkeypatch.context() as patch:
        patch.setitem(gemnet.registered._genomes, arch, GENOME)
        entry = write_weights(source, f"{arch}.tag", "", 40, (0.4,) * 3, (0.2,) * 3, precision="float32")
    enter_weights(f"{arch}.tag", entry)
    gemnet.register(arch, GENOME)
    yield f"{arch}.tag"
    monkeypatch.undo()
    packaged_weights.cache_clear()


def run(config: str, *options: str) -> int:
    # mmengine names its per-run singletons by the second; several runs a second need names of their own
    name = f"experiment_name=recipe{next(_runs)}"
    return command.main([str(CONFIGS / f"{config}.py"), "--work-dir", "run", "--cfg-options", name, *options])


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> None:
    assert code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    for word in words:
        assert word in message, message


def log() -> str:
    return "".join(path.read_text() for path in Path("run").glob("*/*.log"))


def test_fine_tuning_starts_from_the_weights_with_a_head_for_the_folder(published: str, tmp_path: Path) -> None:
    draw(tmp_path / "my_images", classes=3, count=10, side=50)
    options = ["data_root=my_images", f"weights={published}", "max_epochs=1", "batch_size=8", "lr=0.0"]
    assert run("finetune", *options) == 0
    assert "tell 4 classes apart, these images have 3: a fresh classifier takes the place" in log()
    state = torch.load("run/epoch_1.pth", weights_only=False)["state_dict"]
    source = load_file("source.safetensors")
    assert torch.equal(state["network.stem.0.conv.weight"], source["stem.0.conv.weight"])
    assert state["network.classifier.weight"].shape[0] == 3
    text = Path("run/finetune.py").read_text()
    assert "resolution=40" in text, "the side that the weights were trained at"
    assert "accuracy/top1" in log()


def test_fine_tuning_keeps_a_head_that_fits_and_starts_afresh_when_told(published: str, tmp_path: Path) -> None:
    draw(tmp_path / "my_images", classes=4, count=6, side=40)
    options = [f"weights={published}", "max_epochs=1", "batch_size=8", "lr=0.0", "image_size=32"]
    source = load_file("source.safetensors")
    assert run("finetune", *options) == 0
    state = torch.load("run/epoch_1.pth", weights_only=False)["state_dict"]
    assert torch.equal(state["network.classifier.weight"], source["classifier.weight"])
    assert "resolution=32" in Path("run/finetune.py").read_text()
    assert "fresh classifier" not in log()
    code = command.main(
        [str(CONFIGS / "finetune.py"), "--work-dir", "other", "--cfg-options", *options, "pretrained=False"]
    )
    assert code == 0
    state = torch.load("other/epoch_1.pth", weights_only=False)["state_dict"]
    assert not torch.equal(state["network.stem.0.conv.weight"], source["stem.0.conv.weight"])


def test_a_slip_in_a_name_with_a_tag_is_answered_by_one_that_has_weights() -> None:
    assert unknown_network("gemnet_d.imagenette96").endswith("Did you mean 'gemnet_c.imagenette96'?")


def test_a_training_that_cannot_begin_leaves_no_writer_and_no_folder_behind(
    published: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "my_images", classes=3, count=4, side=40)
    before = set(threading.enumerate())
    refused(capsys, run("finetune", f"weights={published}", "mixup=-1"), "mixup is at least 0, got -1")
    refused(capsys, run("finetune", f"weights={published}", "optim_wrapper.type=OptimWraper"), "OptimWraper")
    assert not [thread for thread in set(threading.enumerate()) - before if "tensorboard" in type(thread).__module__]
    assert not Path("run").exists()


def test_fine_tuning_says_what_is_missing(published: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, run("finetune", f"weights={published[:-1]}a"), f"There are: {published}")
    refused(capsys, run("finetune", "weights=gemnet_b"), "There are no weights 'gemnet_b'", f"{published}")
    for side in ("-5", "0", "abc", "1.5"):
        words = "image_size is 'network' or a number of pixels from 1 to 4096, got "
        refused(capsys, run("finetune", f"weights={published}", f"image_size={side}"), words)
    refused(capsys, run("finetune", "weights=gemnet_z.tag"), "There is no network 'gemnet_z.tag'")
    refused(capsys, run("finetune", f"weights={published}", "data_root=my_image"), "'my_image'", "image folder")
    (tmp_path / "one/class").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "one/class/0.png")
    refused(capsys, run("finetune", f"weights={published}", "data_root=./one"), "one class only")
    damaged = packaged_weights()[f"{published}"].path
    damaged.write_bytes(damaged.read_bytes()[:-7])
    draw(tmp_path / "my_images", classes=3, count=4, side=40)
    refused(capsys, run("finetune", f"weights={published}"), "damaged or was altered")
    for side in ("network", "32"):
        given = run("finetune", "weights=work_dirs/mine", f"image_size={side}")
        refused(capsys, given, "a path", "load_from=FOLDER/best.safetensors")
    assert not list(Path("run").glob("*.pth"))


@pytest.mark.parametrize(
    "size", ["a", pytest.param("b", marks=pytest.mark.slow), pytest.param("c", marks=pytest.mark.slow)]
)
def test_imagenet_recipe_starts_on_a_folder_of_its_shape(size: str, tmp_path: Path) -> None:
    for split, count in (("train", 6), ("val", 1)):
        draw(tmp_path / "data/imagenet" / split, classes=5, count=count, side=40)
    options = ["resolution=32", "batch_size=8", f"num_workers={1 if size == 'a' else 0}", "max_epochs=1", "lr=0.01"]
    assert run(f"gemnet_{size}_in1k", *options, "default_hooks.logger.interval=1") == 0
    records = [json.loads(line) for path in Path("run").glob("*/vis_data/scalars.json") for line in path.open()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert len(losses) == 3  # 25 of 30 images, 8 at a time
    assert all(np.isfinite(losses))
    assert any("accuracy/top1" in record for record in records)
    checkpoint = torch.load("run/epoch_1.pth", weights_only=False)
    assert "ema_state_dict" in checkpoint


def test_opening_imagenets_official_images_is_logged(tmp_path: Path) -> None:
    config = load_runner_config(CONFIGS / "gemnet_a_in1k.py")
    select_images(config, tmp_path, None)()
    opened = select_images(config, tmp_path, "final figure")
    assert not (tmp_path / "test_openings.jsonl").exists()  # until they are
    opened()
    (line,) = (tmp_path / "test_openings.jsonl").read_text().splitlines()
    assert json.loads(line)["source"] == "imagenet"


def test_imagenet_recipes_are_for_gpus_with_all_that_is_usual() -> None:
    for size in "abc":
        config = load_runner_config(CONFIGS / f"gemnet_{size}_in1k.py")
        assert config.amp
        assert config.model.arch == f"gemnet_{size}"
        assert config.model.label_smoothing == 0.1
        assert config.train_dataloader.dataset.rand_augment.startswith("rand-")
        assert config.train_dataloader.dataset.split == "train"
        assert config.test_dataloader.dataset.split == "val"
        assert config.model.data_preprocessor.mixup > 0
        assert config.model.data_preprocessor.erase > 0
        assert any(hook.type == "EMAHook" for hook in config.custom_hooks)
        assert any(part.type == "CosineAnnealingLR" for part in config.param_scheduler)
        assert config.auto_scale_lr.base_batch_size == 8 * config.train_dataloader.batch_size


@pytest.mark.parametrize(
    "size", ["a", pytest.param("b", marks=pytest.mark.slow), pytest.param("c", marks=pytest.mark.slow)]
)
def test_imagenette_recipes_start(size: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        draw(tmp_path / "data/imagenette96" / split, classes=2, count=10, side=96)
    options = ["resolution=32", "batch_size=8", "max_epochs=1"]
    assert run(f"gemnet_{size}_imagenette96", *options) == 0
    assert Path("run/epoch_1.pth").is_file()
