"""Published weights travel inside the wheel and load from there without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from zoo_doubles import draw_images, draw_weights

REPOSITORY = Path(__file__).resolve().parents[3]
PARTS = ("gemnet", "nas", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE")

LOAD = """
import socket
def refuse(*_, **__):
    raise OSError("no network here")
socket.socket.connect = refuse
import gemnet, timm, torch
assert {folder!r} in gemnet.__file__, gemnet.__file__
model = timm.create_model("gemnet_a_cifar.tints", pretrained=True).eval()
print(model.pretrained_cfg["file"])
print(repr(model(torch.ones(1, 3, 32, 32)).argmax().item()), model.num_classes)
try:
    timm.create_model("gemnet_a_cifar.tint", pretrained=True)
except gemnet.GemnetError as error:
    print(error)
"""


def python(*arguments: str, cwd: Path, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path), "GEMNET_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_weights_published_in_the_repository_load_from_its_wheel(tmp_path: Path) -> None:
    copy = tmp_path / "repository"
    copy.mkdir()
    for part in PARTS:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
        else:
            shutil.copyfile(source, copy / part)
    (copy / "gemnet/weights/index.json").write_text("{}")
    (copy / "model_zoo").mkdir()
    (copy / "model_zoo/log.json").write_text('{"accuracy/top1": 61.5}')
    weights = draw_weights(tmp_path / "trained.safetensors", arch="gemnet_a_cifar")
    images = draw_images(tmp_path / "tints")
    command = "import sys; from nas.commands.zoo import main; sys.exit(main())"
    row = ["--data", "Tints", "--source", str(images), "--resolution", "32", "--log", "model_zoo/log.json"]
    row += ["--config", "setup.py"]
    run = python("-c", command, "publish", str(weights), "gemnet_a_cifar.tints", *row, cwd=copy, path=copy)
    assert run.returncode == 0, run.stderr

    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
    subprocess.run([*build, "--wheel-dir", str(tmp_path)], cwd=copy, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)

    run = python("-c", LOAD.replace("{folder!r}", repr(str(installed))), cwd=tmp_path, path=installed)
    assert run.returncode == 0, run.stderr
    file, shape, message = run.stdout.strip().splitlines()
    assert Path(file).parent == installed / "gemnet/weights"
    assert shape.endswith(" 4")
    assert "There is no gemnet_a_cifar.tint. There are: gemnet_a_cifar.tints" in message

    Path(file).write_bytes(Path(file).read_bytes()[:-8])
    run = python("-c", LOAD.replace("{folder!r}", repr(str(installed))), cwd=tmp_path, path=installed)
    assert "damaged or was altered. Install the package again" in run.stderr
    assert run.returncode != 0
