"""The log of opened test images: when, by which commit, what for."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any


def log_opening(
    log: str | os.PathLike[str], source: str, purpose: str, about: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Appends one JSON line that says which test images were opened, when, by which commit and what for."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    entry = {"time": now, "commit": code_version(), "source": source, **about, "purpose": purpose}
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def code_version() -> str:
    """The commit this code is at, ``-dirty`` where files differ from it; for an installed wheel its version."""
    here = Path(__file__).resolve().parent
    commands = (
        [
            "ls-files",
            "--error-unmatch",
            Path(__file__).name,
        ],  # installed inside somebody's repository is not part of it
        ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
    )
    try:
        for command in commands:
            run = subprocess.run(
                ["git", "-C", str(here), *command], capture_output=True, text=True, timeout=20, check=True
            )
        return run.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        from importlib.metadata import PackageNotFoundError, version

        try:
            return f"gemnet {version('gemnet')}"
        except PackageNotFoundError:
            return "unknown"
