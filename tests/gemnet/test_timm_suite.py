"""timm's own test file, from its source distribution, run over our names.

The distribution is fetched by pip (once, into the cache folder); without a package index the test skips.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import timm

PLUGIN = """
import gemnet
import timm
from timm.models import _registry

# timm picks the models of some cases by the file they are defined in; put ours beside one of its own.
_registry._module_to_models["starnet"] |= set(timm.list_models("gemnet*"))
"""

# timm's scripting of whole models (torch.jit, deprecated) is the one promise we don't make.
SELECTION = "gemnet and not test_model_forward_torchscript"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution of the installed version of timm."""
    folder = Path(os.environ.get("GEMNET_CACHE", tmp_path_factory.mktemp("timm")))
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-binary",
        ":all:",
        f"timm=={timm.__version__}",
        "-d",
        str(folder),
    ]
    if not list(folder.glob(f"timm-{timm.__version__}.tar.gz")):
        fetched = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        if fetched.returncode:
            pytest.skip(f"timm's source distribution could not be fetched: python {' '.join(command)}")
    with tarfile.open(folder / f"timm-{timm.__version__}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / f"timm-{timm.__version__}"


@pytest.mark.slow
def test_timms_own_tests_pass_on_our_names(suite: Path, tmp_path: Path) -> None:
    (tmp_path / "gemnet_in_timms_tests.py").write_text(PLUGIN)
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/test_models.py", "-p", "gemnet_in_timms_tests", "-k", SELECTION, "-q"],
        cwd=suite,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)]), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    summary = result.stdout.strip().splitlines()[-1]
    assert result.returncode == 0, result.stdout[-4000:]
    assert int(summary.split(" passed")[0].split()[-1]) >= 60
