"""MMDetection's own tools on a GEMNet: run with stand-ins for missing operators, and configs completed as ours are."""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gemnet.checkpoint import load_checkpoint
from gemnet.detection.channels import fill_channels
from gemnet.detection.config import complete_config
from gemnet.errors import GemnetError, nearest

PARTS = ("", "analysis_tools", "misc", "model_converters", "dataset_converters")
"""Folders of MMDetection's tools."""


class ToolError(GemnetError):
    """A tool that MMDetection doesn't have."""


def find_tools() -> dict[str, Path]:
    """MMDetection's tools by name.

    Raises:
        ToolError: MMDetection is not installed, or without its tools.
    """
    try:
        package = importlib.import_module("mmdet")
    except ImportError as error:
        raise ToolError(f"MMDetection is not installed ({error}): pip install 'gemnet[detection]'") from None
    root = Path(str(package.__file__)).parent
    for folder in (root / ".mim" / "tools", root.parent / "tools"):  # an installed package, a checkout
        if folder.is_dir():
            return {file.stem: file for part in reversed(PARTS) for file in sorted((folder / part).glob("*.py"))}
    raise ToolError(f"{root}: this MMDetection comes without its tools.")


def run_tool(name: str, arguments: list[str]) -> None:
    """Runs one of MMDetection's tools in this process.

    Args:
        name: such as ``test``, ``browse_dataset``, ``confusion_matrix``, ``get_flops``.
        arguments: as that tool takes them.

    Raises:
        ToolError: there is no such tool.
        GemnetError: a config that contradicts itself.
        SystemExit: the tool's own end.
    """
    tools = find_tools()
    if name not in tools:
        raise ToolError(f"MMDetection has no tool {name!r}.{nearest(name, tools)}")
    _complete_what_is_built(final=name == "test")
    before = sys.argv
    sys.argv = [str(tools[name]), *arguments]
    try:
        runpy.run_path(str(tools[name]), run_name="__main__")
    finally:
        sys.argv = before


def _complete_what_is_built(final: bool) -> None:
    """Completes configs where all tools pass: where a Runner takes one, and where a detector is built."""
    from mmdet.registry import MODELS
    from mmengine.registry import MODELS as ROOT
    from mmengine.runner import Runner

    for registry in (ROOT, MODELS):
        registry.build_func = _completed(registry.build_func)
    original = Runner.from_cfg

    def from_cfg(cfg: Any) -> Runner:
        source = cfg.get("load_from")
        complete_config(cfg, load_checkpoint(source) if source and "://" not in source else None, final)
        return original(cfg)

    Runner.from_cfg = from_cfg


def _completed(build: Callable[..., Any]) -> Callable[..., Any]:
    def build_model(cfg: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(cfg, Mapping) and isinstance(cfg.get("backbone"), Mapping):
            fill_channels(cfg)
        return build(cfg, *args, **kwargs)

    return build_model
