"""Imports run downward only; pyproject.toml holds the contracts."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def test_imports_run_downward_only() -> None:
    # A process of its own: it reads all modules, and what it prints is not pytest's to capture.
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", lint, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_two_rooms_import_one_another() -> None:
    spec = importlib.util.spec_from_file_location("house", REPOSITORY / "tools" / "measure" / "house.py")
    assert spec is not None
    assert spec.loader is not None
    house = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(house)
    assert house.circles(house.imports()[1]) == []


def test_tests_patch_objects_and_no_dotted_names() -> None:
    text = re.compile(r"""setattr\(\s*f?["']""")
    files = [file for file in (REPOSITORY / "tests").rglob("*.py") if text.search(file.read_text(encoding="utf-8"))]
    assert files == []


def test_each_module_of_the_search_is_in_the_room_of_its_step() -> None:
    public = {"__init__.py", "wl.py"}  # nas.wl.wl_kernel is the kernel's public name
    assert {path.name for path in (REPOSITORY / "nas").glob("*.py")} == public
