"""The wheel: what is installed has all that the package reads."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

USE = """
import gemnet, timm
from mmengine.config import Config
from gemnet.config_files import config_folder, name_our_configs
assert gemnet.__file__.startswith(folder), gemnet.__file__
assert str(config_folder()).startswith(folder)
name_our_configs()
config = Config.fromfile("own.py")
assert config.model.backbone.type == "gemnet.GEMNet"
assert config.model.neck.out_channels == 8
timm.create_model("gemnet_a.imagenette96", pretrained=True)
"""


@pytest.mark.slow
@pytest.mark.contract
def test_an_installed_wheel_knows_our_configs_by_name_and_has_weights(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="setuptools is not installed: pip install setuptools wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    source = tmp_path / "source"  # building leaves folders behind
    subprocess.run(["git", "-C", str(REPOSITORY), "checkout-index", "-a", f"--prefix={source}/"], check=True)
    subprocess.run([*build, str(source)], check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    (tmp_path / "own.py").write_text(
        "_base_ = ['gemnet::retinanet_gemnet.py']\nmodel = dict(neck=dict(out_channels=8))\n"
    )
    used = subprocess.run(
        [sys.executable, "-c", f"folder = {str(tmp_path / 'installed')!r}\n{USE}"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "installed"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert used.returncode == 0, used.stderr
