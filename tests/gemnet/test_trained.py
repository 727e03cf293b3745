"""Networks that others' tools saved, found again."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch

import gemnet
from gemnet.trained import find_trained

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
