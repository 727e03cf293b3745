"""Networks that others' tools saved, found again."""

from __future__ import annotations

import runpy
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_data_config

import gemnet
from gemnet.checkpoint import CheckpointError
from gemnet.runtimes.networks import open_network
from gemnet.trained import find_trained
from gemnet.weights import image_statistics

SCRIPT = """
import argparse, timm, torch
parser = argparse.ArgumentParser()
parser.add_argument('data_dir'), parser.add_argument('--model'), parser.add_argument('--img-size', type=int)
parser.add_argument('--mean', type=float, nargs='+'), parser.add_argument('--std', type=float, nargs='+')
args = parser.parse_args()
model = timm.create_model(args.model, num_classes=3)
saved = {'epoch': 0, 'arch': args.model, 'state_dict': model.state_dict(), 'version': 2, 'args': args, 'metric': 1.0}
torch.save(saved, 'last.pth.tar')
"""
"""What timm's own train.py does with a name and leaves behind, without the training."""


def test_what_timms_train_script_leaves_is_found_as_the_docs_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    options = ["my_images", "--model", "gemnet_a_cifar", "--img-size", "40", "--mean", *"111", "--std", *"222"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *options])
    runpy.run_path("train.py", run_name="__main__")
    found = find_trained(tmp_path / "last.pth.tar")
    assert found.metadata.statistics == ((1.0,) * 3, (2.0,) * 3)
    assert found.genome == gemnet.genome_for("gemnet_a_cifar").replace(num_classes=3, input_size=40)
    saved = torch.load(tmp_path / "last.pth.tar", weights_only=False)["state_dict"]  # written by the test itself
    again = found.state_dict()
    assert again.keys() == saved.keys()
    assert all(torch.equal(again[key], saved[key]) for key in saved)


def test_a_checkpoint_of_a_name_that_is_not_ours_stays_what_it_is(tmp_path: Path) -> None:
    model = timm.create_model("mobilenetv3_small_050", num_classes=2)
    torch.save({"arch": "mobilenetv3_small_050", "state_dict": model.state_dict()}, tmp_path / "last.pth.tar")
    assert find_trained(tmp_path / "last.pth.tar").metadata.genome is None


@pytest.mark.parametrize(
    ("arch", "given"),
    [
        ("gemnet_a", {"img_size": 64}),
        ("gemnet_a_cifar", {"img_size": 96}),
        ("gemnet_a", {"img_size": 128, "crop_pct": 1.0, "interpolation": "bilinear"}),
        ("gemnet_a", {"input_size": [3, 72, 72], "img_size": 64, "mean": [0.5], "std": [0.25]}),
        ("gemnet_a.imagenette96", {}),
        ("gemnet_a_cifar.cifar10", {"img_size": 96, "crop_pct": 0.9}),
    ],
)
def test_images_of_a_timm_training_are_prepared_as_timm_did(arch: str, given: dict[str, Any], tmp_path: Path) -> None:
    args = {"img_size": None, "input_size": None, "mean": None, "std": None, "crop_pct": None, "interpolation": ""}
    args |= {"in_chans": None, **given}
    model = timm.create_model(arch, pretrained="." in arch, num_classes=3)
    saved = {"arch": arch, "state_dict": model.state_dict(), "args": Namespace(**args)}
    torch.save(saved, tmp_path / "last.pth.tar")
    expected = resolve_data_config(args, model=model)
    network = open_network(str(tmp_path / "last.pth.tar"))
    about = network.metadata
    assert about.genome is not None
    assert about.genome.fingerprint == gemnet.genome_for(arch).fingerprint
    assert (about.input_size, about.num_classes, about.classes) == (expected["input_size"][-1], 3, ())
    assert (about.crop_pct, about.interpolation) == (expected["crop_pct"], expected["interpolation"])
    assert about.statistics == (tuple(expected["mean"]), tuple(expected["std"]))
    assert image_statistics(tmp_path / "last.pth.tar") == about.statistics  # by which a detector's images are prepared


def test_of_other_channels_a_timm_training_has_the_average_of_the_statistics(tmp_path: Path) -> None:
    model = timm.create_model("gemnet_a", in_chans=1, num_classes=3)
    saved = {"arch": "gemnet_a", "state_dict": model.state_dict(), "args": Namespace(in_chans=1, img_size=64)}
    torch.save(saved, tmp_path / "last.pth.tar")
    about = open_network(str(tmp_path / "last.pth.tar")).metadata
    assert about.in_chans == 1
    assert about.statistics is not None
    assert about.statistics[0] == pytest.approx((0.449,), abs=1e-3)


@pytest.mark.parametrize("given", [{"in_chans": 10**9}, {"mean": []}, {"mean": "abc"}, {"img_size": "64"}])
def test_arguments_of_a_timm_training_that_cannot_be_are_refused(given: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"arch": "gemnet_a", "state_dict": {}, "args": Namespace(**given)}, tmp_path / "last.pth.tar")
    with pytest.raises(CheckpointError, match=r"last\.pth\.tar: "):
        find_trained(tmp_path / "last.pth.tar")
