"""What the detection tests share: where data lie, and a small COCO-style data set."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from drawn_shapes import draw_shapes
from mmengine.registry import init_default_scope

DATA = Path(os.environ.get("GEMNET_DATA", "data"))


@pytest.fixture(autouse=True)
def _own_scope() -> None:
    # A classification trained before in this process leaves its own scope behind, where mmdet's names are unknown.
    init_default_scope("mmdet")


@pytest.fixture(autouse=True)
def _silent_stale_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    # mmengine's loggers of earlier tests in this process hold streams that pytest has closed since; what they then
    # print about themselves is no part of a command's output.
    monkeypatch.setattr(logging, "raiseExceptions", False)


@pytest.fixture
def data_folder() -> Callable[[str], Path]:
    """The folder of a real data set, or a skip that says how to bring it."""

    def find(name: str) -> Path:
        folder = DATA / name
        if not folder.is_dir():
            pytest.skip(f"{folder} is not there: unpack the data sets and set GEMNET_DATA to their folder")
        return folder.resolve()

    return find


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A folder with six small pictures and their annotation file."""
    return draw_shapes(tmp_path / "shapes")
