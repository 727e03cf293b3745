"""A zoo in a temporary repository: images, logs, weights of an untrained network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import gemnet
from gemnet.classics import chain
from gemnet.templates import template
from nas.commands import zoo as command

GENOME = template("cifar", "a").genome(chain("dw3x3_bn_act"), width=0.5, inner_ratio=1)
ARCH = "zoo_test_net"
NAME = f"{ARCH}.tints"
CLASSES = ("blue", "green", "grey", "red")


def draw_images(folder: Path, side: int = 32, train: int = 6, test: int = 10) -> Path:
    """An image folder with noise of several tints."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", test)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 200, (side, side, 3), dtype=np.uint8)
                pixels[..., label % 3] //= 1 + label
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def draw_weights(path: Path, classes: int = len(CLASSES), arch: str = ARCH, **about: str) -> Path:
    """Weights of an untrained network whose norms have seen numbers, so that it is not all one class."""
    gemnet.register(ARCH, GENOME)
    torch.manual_seed(2)
    model = timm.create_model(arch, num_classes=classes)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 32, 32))
        model.classifier.weight.normal_()
    genome = gemnet.genome_for(arch).fingerprint
    save_file(model.state_dict(), path, {"genome": genome, "classes": json.dumps(CLASSES[:classes]), **about})
    return path


@dataclass(frozen=True)
class Repository:
    """The temporary repository."""

    root: Path
    images: Path

    @property
    def zoo(self) -> Path:
        return self.root / "model_zoo"

    def run(self, *arguments: str | Path) -> int:
        """`tools/zoo.py` on this repository."""
        return command.main(["--zoo", str(self.zoo), *map(str, arguments)])

    def publish(self, weights: Path, *options: str, name: str = NAME) -> int:
        """Publishes weights with the row of the log."""
        return self.run("publish", weights, name, *self.row, "--search", "docs/search.md", *options)

    @property
    def row(self) -> tuple[str, ...]:
        data = ("--data", "Tints", "--source", str(self.images), "--resolution", "32")
        return (*data, "--log", "model_zoo/logs/tints.csv", "--config", "configs/tints.py")


def make_repository(root: Path) -> Repository:
    """A repository with a comparison's table, a detector's figures, a config, and nothing published."""
    for folder in ("model_zoo/logs", "model_zoo/results", "configs", "docs"):
        (root / folder).mkdir(parents=True)
    (root / "configs/tints.py").write_text("")
    (root / "docs/search.md").write_text("")
    (root / "model_zoo/logs/tints.csv").write_text(
        "network,form,phase,seed,epochs,accuracy,macs,params\n"
        f"{ARCH},,choice,9,1,30.0,6000000,50000\n"
        + "".join(f"{ARCH},,test,{seed},7,{value},6000000,50000\n" for seed, value in enumerate((50.5, 52.5, 51.5)))
        + "mobilenetv2,,test,0,7,48.25,7000000,60000\n"
    )
    (root / "model_zoo/logs/detector.json").write_text(json.dumps({"coco/bbox_mAP": 0.123, "coco/bbox_mAP_50": 0.3}))
    repository = Repository(root, draw_images(root.parent / "tints"))
    gemnet.register(ARCH, GENOME)
    assert repository.run("tables") == 0
    return repository
