"""Where decoded images and trained encoders are kept between runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gemnet.errors import GemnetError


class CacheError(GemnetError):
    """A cache that can't be written to."""


def cache_root() -> Path:
    """``$GEMNET_CACHE``, else ``gemnet`` in the user's cache folder."""
    given = os.environ.get("GEMNET_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gemnet"


def make_cache_folder(folder: Path) -> None:
    """Makes a folder of the cache and tries to write into it, before any work is put into what it is to keep.

    Raises:
        CacheError: it can't be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CacheError(
            f"The cache {folder} can't be written to: {error.strerror or error}. Set GEMNET_CACHE to a folder that can."
        ) from error
