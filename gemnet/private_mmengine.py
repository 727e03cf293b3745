"""Every private member of MMEngine and MMDetection that is touched, each with its reason.

Tried on onedl-mmengine 0.10.12 with onedl-mmdetection 3.5.1. `tests/gemnet/test_private_members.py` fails where one is
gone or means something else.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal

Part = Literal["train", "val", "test"]
MISSING_EXTRAS = ("Could not import OneDL", "faster_coco_eval is not installed")
"""How what MMDetection says of optional packages begins when it is imported without them. We use none of these."""


@contextmanager
def without_missing_extras() -> Iterator[None]:
    """For an import of MMDetection: hides `MISSING_EXTRAS`. What else is printed meanwhile is printed at its end."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=MISSING_EXTRAS[1])
            yield
    finally:
        for line in printed.getvalue().splitlines(keepends=True):
            if not line.startswith(MISSING_EXTRAS):
                print(line, end="")


def plain_dict(config: Any) -> Any:
    """A config's contents as they stand. Its public views build what is lazy and answer to attributes."""
    return config._cfg_dict


def name_file(config: Any, file: Path) -> None:
    """Says which file a config was read from, where it was read from a copy: ``filename`` can't be set."""
    object.__setattr__(config, "_filename", str(file))


def find_bases_with(find: Callable[[str], Path | None]) -> None:
    """Lets ``_base_`` name configs of one's own: MMEngine knows those of OpenMMLab's packages only.

    Args:
        find: the file that a base's text means; None leaves it to MMEngine. The last one given counts.
    """
    from mmengine.config import Config

    original = getattr(Config._get_cfg_path, "original", Config._get_cfg_path)

    def get_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        found = find(cfg_path)
        return original(cfg_path, filename) if found is None else (str(found), None)

    get_path.original = original  # type: ignore[attr-defined]  # looked for above
    Config._get_cfg_path = staticmethod(get_path)


def unpickle_with(load: Callable[..., Any]) -> None:
    """Has checkpoints of every scheme (torchvision, open-mmlab, s3) read by ``load``: they would be unpickled."""
    from mmengine.runner import checkpoint

    checkpoint._safe_torch_load = load


def loop_of(runner: Any, part: Part) -> Any:
    """A Runner's loop, or its config while it is not built. The public property builds it and logs it at once."""
    return getattr(runner, f"_{part}_loop")


def set_loop(runner: Any, part: Part, loop: Any) -> None:
    """Gives a Runner a loop built before `Runner.train`, so that what can't be built is said before it begins."""
    setattr(runner, f"_{part}_loop", loop)


def train_loader_of(runner: Any) -> Any:
    """The settings of a Runner's training images, which its loop is built from: a batch may have to be smaller."""
    return runner._train_dataloader


def is_resuming(runner: Any) -> bool:
    """Whether a Runner goes on with a training; it has no public word for it."""
    return bool(runner._resume)


def turns_channels(preprocessor: Any) -> bool:
    """Whether images are turned from BGR to RGB: an exported detector must do the same."""
    return bool(getattr(preprocessor, "_channel_conversion", False))


def normalises(preprocessor: Any) -> bool:
    """Whether images are normalised at all: ``mean`` and ``std`` are there only then."""
    return bool(getattr(preprocessor, "_enable_normalize", False))
