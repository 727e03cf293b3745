"""Classes of images by whatever names a trained network, and the command that shows them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from gemnet.data.datasets import DataSpec, load_train_images
from gemnet.data.reading import read_image
from gemnet.metadata import Metadata, read_metadata
from gemnet.runtimes.images import prepared
from gemnet.runtimes.inference import InferenceError, find_images, open_classifier
from gemnet.weights import packaged_weights
from nas.commands.predict import in_words, main

TAG = "gemnet_a_cifar.cifar10"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images in each of two folders with names of classes."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("cat", "truck"):
        (root / name).mkdir()
        for k in range(2):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / name / f"{k}.png")
    (root / "cat" / "notes.txt").write_text("no image")
    return root


def by_timm(files: list[Path]) -> np.ndarray:
    """The same by timm alone, fed as its own configuration says."""
    model = timm.create_model(TAG, pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    images = torch.stack([transform(Image.open(file)) for file in files])
    with torch.inference_mode():
        return model(images).softmax(1).numpy()


def test_probabilities_are_those_of_the_network_fed_as_it_was_trained(pictures: Path) -> None:
    files = sorted(pictures.rglob("*.png"))
    found = np.stack(list(open_classifier(TAG).probabilities(files)))
    np.testing.assert_allclose(found, by_timm(files), atol=1e-4)


def test_training_predictions_and_timm_see_the_same_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate([(906, 534), (90, 61), (50, 377), (32, 32)]):
        folder = tmp_path / ("cat", "truck")[number % 2]
        folder.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (height // 2 + 1, width // 2 + 1, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((width, height)).save(folder / f"{number}.jpg")
    learnt = load_train_images(DataSpec(str(tmp_path), resolution=32))
    about = Metadata(
        in_chans=3, input_size=32, crop_pct=1.0, interpolation="bicubic", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    files = sorted(tmp_path.rglob("*.jpg"))
    seen = np.stack([prepared(read_image(file), about) for file in files])
    np.testing.assert_array_equal((seen * 255).round(), learnt.images.numpy())
    found = np.stack(list(open_classifier(TAG).probabilities(files)))
    np.testing.assert_allclose(found, by_timm(files), atol=1e-5)


def test_a_network_that_has_diverged_says_nothing(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "diverged.safetensors"
    tensors = load_file(packaged_weights()[TAG].path)
    next(each for each in tensors.values() if each.is_floating_point()).fill_(float("nan"))
    save_file(tensors, path, read_metadata(packaged_weights()[TAG].path).to_texts())
    assert main([str(path), str(pictures), "--json"]) == 2
    said = capsys.readouterr()
    assert "logits are not finite" in said.err
    assert not said.out


def test_command_counts_what_was_taken_for_what(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([TAG, str(pictures), "--json", "--top", "1"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["classes"] == list(CLASSES)
    right = [image["classes"][0]["class"] == image["label"] for image in said["images"]]
    assert len(right) == 4
    assert said["accuracy"] == pytest.approx(100 * np.mean(right))
    assert np.sum(said["confusion"]) == 4
    assert [sum(row) for row in said["confusion"]] == [2 if name in ("cat", "truck") else 0 for name in CLASSES]


def test_table_names_files_left_out_and_shows_the_matrix(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([TAG, str(pictures)]) == 0
    said = capsys.readouterr().out
    assert "Files that are no images, left out: 1" in said
    assert "balanced" in said


def test_images_that_cannot_be_read_are_named_and_the_others_counted(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "some"
    shutil.copytree(pictures, root)
    whole = (root / "cat/0.png").read_bytes()
    bad = {"cat/0.png": b"no image", "truck/2.png": whole[:200]}
    for name, content in bad.items():
        (root / name).write_bytes(content)
    assert main([TAG, str(root), "--json", "--out", str(tmp_path / "found.json")]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found == json.loads((tmp_path / "found.json").read_text())
    assert [each["file"] for each in found["failed"]] == [str(root / name) for name in bad]
    assert [each["reason"].split(" (")[0] for each in found["failed"]] == ["can't be decoded", "the image is truncated"]
    lines = said.err.splitlines()
    assert lines[0].endswith("2 of 5 images can't be read:")
    assert lines[1:] == [f"{each['file']}: {each['reason']}" for each in found["failed"]]
    assert [image["label"] for image in found["images"]] == ["cat", "truck", "truck"]
    assert np.sum(found["confusion"]) == 3
    files = [root / name for name in ("cat/1.png", "truck/0.png", "truck/1.png")]
    shares = [image["classes"][0]["probability"] for image in found["images"]]
    assert shares == pytest.approx(by_timm(files).max(1), abs=1e-4)

    assert main([TAG, str(root)]) == 1
    assert "Accuracy and confusion are of 3 images of 5." in capsys.readouterr().out


def test_where_no_image_can_be_read_it_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    for count, words in ((1, "a.png: can't be decoded"), (2, "None of the 2 images can be read")):
        files = [str(tmp_path / name) for name in ("a.png", "b.png")[:count]]
        assert main([TAG, *files, "--json", "--out", str(tmp_path / "found.json")]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert words in said.err
        assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "found.json").exists()


def test_folders_of_other_names_give_no_labels(pictures: Path) -> None:
    assert find_images([str(pictures)], ("cat", "dog")).labels is None
    assert find_images([str(pictures / "cat")], CLASSES).labels is None
    labels = find_images([str(pictures)], CLASSES).labels
    assert labels is not None
    assert labels.tolist() == [3, 3, 9, 9]


def test_a_stray_picture_costs_no_accuracy_of_the_others(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "some"
    shutil.copytree(pictures, root)
    shutil.copy(root / "cat/0.png", root / "a_stray.png")
    assert main([TAG, str(pictures), "--json"]) == 0
    without = json.loads(capsys.readouterr().out)
    assert main([TAG, str(root), "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["accuracy"], found["confusion"]) == (without["accuracy"], without["confusion"])
    assert [image.get("label") for image in found["images"]] == [None, "cat", "cat", "truck", "truck"]
    assert "1 of the images lie beside the classes' folders and have no label, such as a_stray.png." in said.err
    (root / "horses").mkdir()
    shutil.copy(root / "cat/0.png", root / "horses/0.png")
    assert main([TAG, str(root), "--json"]) == 0
    said = capsys.readouterr()
    assert "accuracy" not in json.loads(said.out)
    assert "No accuracy: " in said.err
    assert "none of the network's classes: horses." in said.err


@pytest.mark.parametrize("name", ["/proc/here/found.json", "n" * 250, "folder/" + "n" * 250])
def test_a_file_that_cannot_be_written_is_told_before_the_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["no_network", "nowhere.png", "--out", name]) == 2
    said = capsys.readouterr().err
    assert f"{name} can't be written: " in said
    assert "draft" not in said
    assert not list(tmp_path.iterdir())


def test_a_network_without_weights_is_not_asked(tmp_path: Path) -> None:
    with pytest.raises(InferenceError, match="no trained weights"):
        open_classifier("gemnet_a_cifar")


@pytest.mark.parametrize("arguments", [["nowhere.png"], ["."], ["--top", "0", "."]])
def test_bad_input_ends_with_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([TAG, *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_exported_file_says_the_same(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'gemnet[export]'")
    from nas.commands.export import main as export

    assert export([TAG, "--to", "onnx", "--out", str(tmp_path / "out")]) == 0
    file = next((tmp_path / "out").glob("*.onnx"))
    files = sorted(pictures.rglob("*.png"))
    classifier = open_classifier(str(file))
    assert classifier.classes == CLASSES
    np.testing.assert_allclose(np.stack(list(classifier.probabilities(files))), by_timm(files), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("n01440764", "n01440764 (tench)"), ("n00000000", "n00000000"), ("cat", "cat"), ("n0144076", "n0144076")],
)
def test_classes_that_are_numbers_of_wordnet_are_shown_in_words(name, shown) -> None:
    assert in_words(name) == shown
