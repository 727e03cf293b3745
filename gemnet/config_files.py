"""Config files: ours, where they lie, and what any of them says."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gemnet.errors import nearest
from gemnet.private_mmengine import find_bases_with, plain_dict
from gemnet.strict import ConfigError

OURS = "gemnet::"
"""What stands before the name of a config of ours where it is another's base, as ``mmdet::`` does."""


@runtime_checkable
class Written(Protocol):
    """A value as it was typed: what it means depends on the value whose place it takes."""

    def instead_of(self, own: Any) -> Any:
        """The value, where the config has ``own``; None where it has nothing."""
        ...


def settled(options: Mapping[str, Any] | None, config: Mapping[str, Any]) -> dict[str, Any]:
    """Options with their values, those that were typed by what the config has in their place.

    Args:
        options: ``{'search.seed': 1}``.
        config: as it is without them.
    """
    return {
        key: value.instead_of(_own_value(config, key)) if isinstance(value, Written) else value
        for key, value in (options or {}).items()
    }


def _own_value(config: Any, path: str) -> Any:
    """What a config has at ``a.b.0``; None where there is nothing."""
    for name in path.split("."):
        if isinstance(config, Mapping) and name in config:
            config = config[name]
        elif isinstance(config, list | tuple) and name.isdecimal() and int(name) < len(config):
            config = config[int(name)]
        else:
            return None
    return config


def config_folder() -> Path:
    """The folder of the configs that come with the package: the repository's, or the copy inside a wheel."""
    installed = Path(__file__).resolve().parent / "configs"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[1] / "configs"


def name_our_configs() -> None:
    """Lets ``_base_ = 'gemnet::retinanet_gemnet.py'`` name a config of ours from anywhere. May be called again."""
    find_bases_with(lambda base: our_config(base) if base.startswith(OURS) else None)


def our_config(name: str) -> Path:
    """The file of a config such as ``gemnet::classification/finetune.py``.

    Raises:
        ConfigError: there is none of this name.
    """
    folder, rest = config_folder(), name.removeprefix(OURS)
    if not (folder / rest).is_file():
        known = [file.relative_to(folder).as_posix() for file in folder.rglob("*.py")]
        raise ConfigError(f"There is no config {name!r}.{nearest(rest, known)}")
    return folder / rest


@contextmanager
def read_quietly() -> Iterator[None]:
    """MMEngine logs each environment variable that a config names, as often as the file is read; not in here."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    logger.addFilter(_is_no_variable)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_variable)


def _is_no_variable(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Using env variable")


def read_file(path: str | Path, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What an mmengine config file says, as plain dicts.

    Args:
        path: the file.
        options: ``{'search.seed': 1}``: values to put over the file's.

    Raises:
        ConfigError: the file is not a config.
    """
    from mmengine.config import Config

    from gemnet.checkpoint import guard_yaml

    guard_yaml()
    try:
        with read_quietly():
            loaded = Config.fromfile(str(path), lazy_import=False)
        loaded.merge_from_dict(settled(options, plain_dict(loaded)))
        return loaded.to_dict()
    except Exception as error:  # the file is a program: it may raise anything
        text = " ".join(str(error).split())
        raise ConfigError(f"Cannot read config {path}: {type(error).__name__}: {text}") from error
