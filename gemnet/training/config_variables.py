"""Options for a config's own variables, put in before the config is evaluated.

A config is a program: ``data_root = 'cifar10'`` at its top is used in three data loaders below. mmengine merges options
afterwards, which would change the variable and nothing that was made from it. Here an option that names such a variable
takes its place in the text, in the config and in all it is based on, so that everything follows:
``--cfg-options data_root=my_images max_epochs=5``.
"""

from __future__ import annotations

import ast
import inspect
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from gemnet.checkpoint import guard_yaml
from gemnet.config_files import OURS, name_our_configs, our_config
from gemnet.private_mmengine import name_file

BASE = "_base_"
FORMER_MODULES = {
    "nas.training.classification": "gemnet.classification",
    "nas.images.files": "gemnet.classification",
}
"""What configs written before 0.2 name in ``custom_imports``, and what it is called now."""
RUNNER_KEYS = frozenset(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"}
"""What mmengine itself reads of a config; whatever else is assigned in one is a variable."""


def read_with_variables(file: Path, options: Mapping[str, Any]) -> tuple[Config, dict[str, Any]]:
    """Reads a config with those options that name its variables.

    Args:
        file: the config.
        options: as from the command line; keys with dots are none of ours.

    Returns:
        The config, and the options that are still to be merged.

    Raises:
        Exception: whatever the config's program raises.
    """
    given = {key: value for key, value in options.items() if "." not in key and _is_plain(value)}
    used: set[str] = set()
    guard_yaml()
    name_our_configs()
    with tempfile.TemporaryDirectory() as folder:
        source = _with_values(file.resolve(), given, Path(folder), used) if given and file.suffix == ".py" else file
        # Imported afterwards, since what a config names may have moved.
        config = Config.fromfile(str(source if used else file), import_custom_modules=False)
    _import_modules(config)
    name_file(config, file.resolve())
    return config, {key: value for key, value in options.items() if key not in used}


def _import_modules(config: Config) -> None:
    """Imports what a config's ``custom_imports`` names, under its name of today."""
    found = config.get("custom_imports")
    if found is None:
        return
    imports = [found["imports"]] if isinstance(found["imports"], str) else found["imports"]
    config.custom_imports = {
        **found,
        "imports": list(dict.fromkeys(FORMER_MODULES.get(name, name) for name in imports)),
    }
    import_modules_from_strings(**config.custom_imports)


def _with_values(file: Path, given: Mapping[str, Any], folder: Path, used: set[str]) -> Path:
    """A copy of a config, and of its bases, with values put in; the names found are added to ``used``."""
    text = file.read_text(encoding="utf-8")
    statements = ast.parse(text).body
    if any(isinstance(statement, ast.With | ast.ImportFrom) for statement in statements):
        return file  # mmengine's other kind of config, whose bases are imported
    edits: list[tuple[ast.expr, str]] = []
    for statement in statements:
        if not (isinstance(statement, ast.Assign) and len(statement.targets) == 1):
            continue
        target, value = statement.targets[0], statement.value
        if not isinstance(target, ast.Name):
            continue
        if target.id == BASE:
            bases = ast.literal_eval(value)
            bases = bases if isinstance(bases, list | tuple) else [bases]
            copies = [
                str(_with_values(path, given, folder, used)) if path is not None else base
                for base, path in ((base, _base_file(base, file)) for base in bases)
            ]
            edits.append((value, repr(copies)))
        elif target.id in given and (isinstance(value, ast.Constant) or target.id not in RUNNER_KEYS):
            used.add(target.id)
            edits.append((value, repr(given[target.id])))
    for value, new in sorted(edits, key=lambda edit: -edit[0].lineno):
        text = _replaced(text, value, new)
    copy = folder / f"{len(list(folder.iterdir()))}_{file.name}"
    copy.write_text(text, encoding="utf-8")
    return copy


def _base_file(base: str, file: Path) -> Path | None:
    """The file of a base, where its text can be changed; None for another package's."""
    if base.startswith(OURS):
        return our_config(base)
    return (file.parent / base).resolve() if base.endswith(".py") and "::" not in base else None


def _replaced(text: str, node: ast.expr, new: str) -> str:
    """``text`` with the source of ``node`` replaced; columns of the syntax tree count bytes."""
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    first, last = node.lineno - 1, node.end_lineno - 1
    middle = lines[first][: node.col_offset] + new.encode() + lines[last][node.end_col_offset :]
    return b"".join([*lines[:first], middle, *lines[last + 1 :]]).decode()


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, str | int | float | bool)
