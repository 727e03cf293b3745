"""Packages that come with extras, imported where they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from gemnet.errors import GemnetError

EXTRAS = {
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "openvino": "openvino",
    "litert_torch": "litert",
    "optuna": "rivals",
    "botorch": "rivals",
    "gpytorch": "rivals",
    "smac": "rivals",
    "ConfigSpace": "rivals",
}
"""Package: the extra that brings it."""


class MissingPackageError(GemnetError):
    """A package that is not installed. The message has the extra that brings it."""


def require(module: str) -> Any:
    """The module, such as ``onnxruntime.quantization``.

    Raises:
        MissingPackageError: its package is not installed.
    """
    package = module.split(".", 1)[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = EXTRAS[package]
        raise MissingPackageError(
            f"This needs {package}, which can't be imported ({error}). Install it: pip install 'gemnet[{extra}]'"
        ) from None


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    try:
        require(package)
    except MissingPackageError:
        return False
    return True
