"""Scenes of digits: the same everywhere, of disjoint digits, with the digit inside the canvas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gemnet.data import datasets
from gemnet.data.datasets import DataSpec, load_train_images, missing_test_images, open_test_images
from gemnet.data.decoded import content_digest
from gemnet.data.image_set import DataError
from gemnet.data.scenes import SceneOptions, draw_scenes
from gemnet.training.images import load_data

SPEC = DataSpec("digit_scenes")
BLOCK = np.full((1, 8, 8), 255, dtype=np.uint8)  # a digit that is all ink
PLAIN = SceneOptions(angle=0, fragments=0, noise=0, contrast=(255, 255))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("GEMNET_CACHE", str(tmp_path_factory.getbasetemp() / "scenes"))


def test_scenes_have_the_digest_that_results_were_measured_on(tmp_path) -> None:
    train, test = load_train_images(SPEC), open_test_images(SPEC, tmp_path / "log", "test")
    for images, (count, _, digest) in zip((train, test), datasets.SCENES.values(), strict=True):
        assert content_digest(images.images, images.labels, images.classes) == digest
        assert images.images.shape == (count, 1, 20, 20)
        assert images.images.dtype == torch.uint8
        assert images.labels.bincount().min() > count / 12
    assert not missing_test_images(SPEC)


def test_training_and_test_scenes_show_different_digits() -> None:
    train, test = (datasets._digits(split).images.flatten(1).unique(dim=0) for split in ("train", "val"))
    assert len(torch.cat([train, test]).unique(dim=0)) == len(train) + len(test)


@pytest.mark.parametrize("resolution", [None, 12])
def test_development_scenes_show_digits_that_no_training_scene_shows(resolution) -> None:
    images = load_train_images(replace(SPEC, resolution=resolution))
    data = load_data(replace(SPEC, resolution=resolution, dev_fraction=1 / 3))
    assert images.groups is not None
    shown = [set(images.groups[part].tolist()) for part in (data.train, data.dev)]
    assert not shown[0] & shown[1]
    assert len(data.dev) / len(images) == pytest.approx(1 / 3, abs=0.01)
    assert data.digest != content_digest(images.images, images.labels, images.classes)  # the division is told apart


def test_other_scenes_than_the_measured_ones_are_refused(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("GEMNET_CACHE", str(tmp_path))
    monkeypatch.setitem(datasets.SCENES, "train", (100, 1, "0123456789abcdef"))
    with pytest.raises(DataError, match="expected 0123456789abcdef"):
        load_train_images(SPEC)


def test_scenes_can_be_resized() -> None:
    assert load_train_images(replace(SPEC, resolution=12)).resolution == 12


def test_digit_lies_whole_in_the_canvas_at_every_size() -> None:
    scenes = draw_scenes(BLOCK, np.zeros(300, dtype=np.int64), 3, PLAIN).astype(np.int64)
    inverted = scenes[:, 0, 0] > 127  # paper is black, or white where the scene is inverted
    ink = np.where(inverted[:, None, None], 255 - scenes, scenes).sum(axis=(1, 2)) / 255
    assert np.sqrt(ink.min()) == pytest.approx(PLAIN.size[0], abs=0.5)
    assert np.sqrt(ink.max()) == pytest.approx(PLAIN.size[1], abs=0.5)
    assert 0.3 < inverted.mean() < 0.7


@pytest.mark.parametrize(
    ("name", "value"), [("angle", 30), ("fragments", 3), ("noise", 20), ("contrast", (60, 90)), ("size", (8, 9))]
)
def test_every_option_changes_scenes(name, value) -> None:
    digits, picks = datasets._digits("val").images[:, 0].numpy(), np.arange(20)
    first, again, other = (
        draw_scenes(digits, picks, 0, options)
        for options in (SceneOptions(), SceneOptions(), replace(SceneOptions(), **{name: value}))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=(1, 2)).mean() > 0.9
    assert (first != draw_scenes(digits, picks, 1)).any(axis=(1, 2)).all()
