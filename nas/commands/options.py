"""What the command lines have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gemnet.errors import GemnetError


def positive(text: str) -> int:
    """Argument type: a whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"at least 1, got {value}")
    return value


def options_action() -> Any:
    """mmengine's reading of ``a.b=1 c=[1,2]``; an argument without ``=`` is an error of the arguments, not a crash."""
    from mmengine.config import DictAction

    class OptionsAction(DictAction):
        def __call__(
            self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
        ) -> None:
            for value in values:
                if "=" not in value:
                    parser.error(f"--cfg-options takes KEY=VALUE, such as a.b=1; got {value!r}.")
            super().__call__(parser, namespace, values, option_string)

    return OptionsAction


def make_folder_of(file: Path) -> None:
    """Makes the folder of a file that is to be written after much work.

    Raises:
        GemnetError: it can't be made, or the file is a folder.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GemnetError(f"{file} can't be written: {error.strerror or error}.") from error
    if file.is_dir():
        raise GemnetError(f"{file} can't be written: it is a folder.")
