"""Image folders read an image at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from zoo_doubles import CLASSES, draw_images

from gemnet.classification.files import ImageFiles
from gemnet.errors import GemnetError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("images") / "tints", side=40, train=10, test=3)


def test_images_are_bytes_of_the_wanted_size_with_their_label(folder: Path) -> None:
    data = ImageFiles(str(folder), resolution=32, augment=True, rand_augment="rand-m5-mstd0.5-inc1")
    sample = data[3]
    assert sample["inputs"].dtype == torch.uint8
    assert sample["inputs"].shape == (3, 32, 32)
    assert data.metainfo["classes"] == list(CLASSES)
    assert Path(data.paths[int(data.index[3])]).parent.name == CLASSES[int(sample["labels"])]


def test_parts_divide_the_training_images_and_the_test_part_is_another(folder: Path) -> None:
    parts = {
        split: ImageFiles(str(folder), split=split, dev_fraction=0.2) for split in ("train", "dev", "train+dev", "val")
    }
    paths = {split: {data.paths[int(i)] for i in data.index} for split, data in parts.items()}
    assert len(parts["train"]) == 32
    assert len(parts["dev"]) == 8
    assert not paths["train"] & paths["dev"]
    assert paths["train"] | paths["dev"] == paths["train+dev"]
    assert len(parts["val"]) == 12
    assert not paths["val"] & paths["train+dev"]


def test_without_augmentation_images_stay_as_they_are(folder: Path) -> None:
    data = ImageFiles(str(folder), split="val", resolution=32)
    assert torch.equal(data[0]["inputs"], data[0]["inputs"])
    augmented = ImageFiles(str(folder), resolution=32, augment=True)
    assert not torch.equal(augmented[0]["inputs"], augmented[0]["inputs"])


def test_missing_folders_splits_and_unreadable_images_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(GemnetError, match="no image folder at"):
        ImageFiles(str(tmp_path / "nowhere"))
    with pytest.raises(GemnetError, match="Unknown split 'trian'"):
        ImageFiles(str(folder), split="trian")
    broken = draw_images(tmp_path / "broken", train=2, test=1)
    (broken / "val/red/0.png").write_bytes(b"not an image")
    data = ImageFiles(str(broken), split="val")
    with pytest.raises(GemnetError, match=r"red/0\.png: can't be decoded"):
        [data[place] for place in range(len(data))]
