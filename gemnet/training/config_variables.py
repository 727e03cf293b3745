"""Options for a config's own variables, put in before the config is evaluated.

A config is a program: ``data_root = 'cifar10'`` at its top is used in three data loaders below. mmengine merges options
afterwards, which would change the variable and nothing that was made from it. Here an option that names such a variable
takes its place in a copy of the config and of all it is based on, so that everything follows:
``--cfg-options data_root=my_images max_epochs=5``. The same holds for what a config assigns and does not use itself:
``max_epochs = 5`` below ``_base_ = [...]`` is meant for the bases.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from gemnet.checkpoint import guard_yaml
from gemnet.config_files import OURS, name_our_configs, our_config, read_quietly
from gemnet.private_mmengine import name_file, plain_dict, without_missing_extras

BASE = "_base_"
FILE_DIRECTORY = r"\{\{\s*fileDirname\s*\}\}"
FORMER_MODULES = {
    "nas.training.classification": "gemnet.classification",
    "nas.images.files": "gemnet.classification",
}
"""What configs written before 0.2 name in ``custom_imports``, and what it is called now."""
RUNNER_KEYS = frozenset(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"}
"""What mmengine's runner reads of a config."""
FURTHER_KEYS = frozenset(
    (
        "amp",
        "auto_scale_lr",
        "compile",
        "custom_imports",
        "find_unused_parameters",
        "model_wrapper_cfg",
        "sync_bn",
        "tta_model",
        "tta_pipeline",
    )
)
"""What mmengine's and MMDetection's other parts read of it. Whatever else is assigned in one is a variable."""


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
        source = _with_values(file.resolve(), given, Path(folder), used) if file.suffix == ".py" else file
        # Imported afterwards, since what a config names may have moved.
        with read_quietly():
            config = Config.fromfile(str(source), import_custom_modules=False)
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
    with without_missing_extras():
        import_modules_from_strings(**config.custom_imports)


def meant_for_bases(file: Path) -> dict[str, Any]:
    """The plain values that a config assigns and neither it nor mmengine reads."""
    statements = ast.parse(file.read_text(encoding="utf-8")).body
    read = {
        node.id
        for statement in statements
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    found: dict[str, Any] = {}
    for name, statement in _assignments(statements):
        if name not in RUNNER_KEYS | FURTHER_KEYS | {BASE} | read:
            with contextlib.suppress(ValueError):
                found[name] = ast.literal_eval(statement.value)
    return {name: value for name, value in found.items() if _is_plain(value)}


def ignored_by_bases(file: Path) -> tuple[Config, dict[str, Any]]:
    """What a config assigns for a base of another package, which has been evaluated before.

    Returns:
        The config as it would be without these assignments, and what they say.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = meant_for_bases(file)
        with read_quietly():
            bare = Config.fromfile(str(_with_values(file.resolve(), {}, Path(folder), set(), names)))
    held = plain_dict(bare)
    return bare, {name: value for name, value in names.items() if name in held and held[name] != value}


def _assignments(statements: Sequence[ast.stmt]) -> list[tuple[str, ast.Assign]]:
    """Names that a config assigns at its top."""
    return [
        (statement.targets[0].id, statement)
        for statement in statements
        if isinstance(statement, ast.Assign)
        and len(statement.targets) == 1
        and isinstance(statement.targets[0], ast.Name)
    ]


def _with_values(
    file: Path, given: Mapping[str, Any], folder: Path, used: set[str], left_out: Collection[str] = ()
) -> Path:
    """A copy of a config, and of its bases, with values put in; the names found are added to ``used``.

    Assignments to names in ``left_out`` are not copied. Where nothing changes, it is the file itself.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if any(isinstance(statement, ast.With | ast.ImportFrom) for statement in tree.body):
        return file  # mmengine's other kind of config, whose bases are imported
    changed = False
    for name, statement in _assignments(tree.body):
        if name == BASE:
            bases = ast.literal_eval(statement.value)
            bases = bases if isinstance(bases, list | tuple) else [bases]
            below = {**meant_for_bases(file), **given}
            paths = [_base_file(base, file) for base in bases]
            copies = [None if path is None else _with_values(path, below, folder, used) for path in paths]
            named = [base if copy is None else str(copy) for base, copy in zip(bases, copies, strict=True)]
            statement.value = _literal(named)
            changed |= copies != paths
        elif name in left_out:
            tree.body.remove(statement)
            changed = True
        elif name in given and (isinstance(statement.value, ast.Constant) or name not in RUNNER_KEYS):
            used.add(name)
            statement.value = _literal(given[name])
            changed = True
    if not changed:
        return file
    copy = folder / str(len(list(folder.iterdir()))) / file.name
    copy.parent.mkdir()
    copy.write_text(re.sub(FILE_DIRECTORY, lambda _: file.parent.as_posix(), ast.unparse(tree)), encoding="utf-8")
    return copy


def _base_file(base: str, file: Path) -> Path | None:
    """The file of a base, where its text can be changed; None for another package's."""
    if base.startswith(OURS):
        return our_config(base)
    return (file.parent / base).resolve() if base.endswith(".py") and "::" not in base else None


def _literal(value: Any) -> ast.expr:
    """A plain value as a config's source has it."""
    return ast.parse(repr(value), mode="eval").body


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, str | int | float | bool)
