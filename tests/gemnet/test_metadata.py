"""Weights say what network they belong to and what images they were trained with; whoever reads them knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gemnet
from gemnet.checkpoint import CheckpointError
from gemnet.errors import GemnetError
from gemnet.metadata import Metadata, read_metadata, save_weights
from gemnet.weights import image_statistics, packaged_weights

ABOUT = Metadata(
    genome=gemnet.genome_for("gemnet_a_cifar"),
    num_classes=3,
    in_chans=3,
    input_size=24,
    crop_pct=0.9,
    interpolation="bicubic",
    mean=(0.8, 0.6, 0.7),
    std=(0.05, 0.1, 0.2),
    classes=("a", 'b"', "ç"),
    notes={"accuracy": "99.20"},
)


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    weights = torch.arange(6.0).reshape(2, 3).T  # not contiguous
    save_weights(tmp_path / "new" / "w.safetensors", {"a": weights, "same": weights}, ABOUT)
    assert read_metadata(tmp_path / "new" / "w.safetensors") == ABOUT
    assert torch.equal(load_file(tmp_path / "new" / "w.safetensors")["a"], weights)
    torch.save({"state_dict": {"a": weights}, "meta": {"gemnet": ABOUT.to_texts()}}, tmp_path / "w.pth")
    assert read_metadata(tmp_path / "w.pth") == ABOUT


def test_older_files_say_less(tmp_path: Path) -> None:
    old = {"genome": "0" * 16, "mean": "[0.5]", "std": "[0.25]", "classes": '["x", "y"]', "accuracy": "51.00"}
    save_file({"a": torch.zeros(1)}, tmp_path / "old.safetensors", old)
    found = read_metadata(tmp_path / "old.safetensors")
    assert (found.genome, found.fingerprint, found.input_size) == (None, "0" * 16, None)
    assert found.statistics == ((0.5,), (0.25,))
    assert found.classes == ("x", "y")
    assert found.notes == {"accuracy": "51.00"}


def test_statistics_are_found_by_tag_file_and_folder(tmp_path: Path) -> None:
    tag, known = next(iter(packaged_weights().items()))
    assert image_statistics(tag) == (known.mean, known.std)
    save_weights(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, ABOUT)
    assert image_statistics(tmp_path / "w.safetensors") == image_statistics(str(tmp_path / "w.safetensors"))
    assert image_statistics(tmp_path / "w.safetensors") == (ABOUT.mean, ABOUT.std)
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}))
    assert image_statistics(tmp_path) == ((0.1,) * 3, (0.2,) * 3)
    for nothing in (None, "nowhere.pth", {"type": "Pretrained"}):
        assert image_statistics(nothing) is None


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("mean", "[0.5, 0.5]"),
        ("mean", "[NaN, 0.5, 0.5]"),
        ("mean", "0.5"),
        ("mean", "[" * 100_000),
        ("std", "[0, 1, 1]"),
        ("std", '["1", 1, 1]'),
        ("crop_pct", "0"),
        ("crop_pct", "much"),
        ("input_size", "1e9"),
        ("num_classes", "4"),
        ("classes", "{}"),
        ("classes", "[1, 2, 3]"),
        ("interpolation", "x'''"),
        ("genome", "1" * 16),
        ("genome", '"""\n'),
        ("genome_json", "[]"),
        ("genome_json", '{"format": 1' + "1" * 5000 + "}"),
    ],
)
def test_metadata_that_can_not_be_is_refused(key: str, text: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", {**ABOUT.to_texts(), key: text})
    with pytest.raises(CheckpointError, match=r"w\.safetensors: its metadata"):
        read_metadata(tmp_path / "w.safetensors")


@pytest.mark.parametrize("value", [{"mean": [0.5]}, {"genome": 3}, {3: None, "crop_pct": []}, {"input_size": b"3"}])
def test_metadata_of_another_type_is_refused(value: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "meta": {"gemnet": value}}, tmp_path / "w.pth")
    with pytest.raises(GemnetError, match=r"w\.pth: its metadata"):
        read_metadata(tmp_path / "w.pth")


def test_a_file_that_is_not_there_or_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    for name in ("none.safetensors", "none.pth", "cut.safetensors"):
        with pytest.raises(CheckpointError, match=name):
            read_metadata(tmp_path / name)
