"""The search: `run` is all of it, in the order of the method section: preflight, explore, confirm, rivals, result.

import nas

result = nas.search("default", "work_dirs/digits")      # the same as nas.search.run(...)
print(result.chosen.found.accuracy, result.genome)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.executors.monitor import Monitor
    from nas.search.config import SearchConfig
    from nas.search.report.result import SearchResult

__all__ = ["run"]


def run(
    config: SearchConfig | Mapping[str, Any] | str | Path,
    work_dir: str | Path | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    resume: bool = False,
    monitor: Monitor | None = None,
) -> SearchResult:
    """Runs a search, or resumes one.

    Args:
        config: a `SearchConfig`, plain dicts as `SearchConfig.to_dict` gives them, or a config file's path or name.
        work_dir: the work folder; None for ``work_dirs/<name of the file>``, ``work_dirs/search`` without a file.
        options: values to put over the config file's, by dotted key: ``{"data.source": "photos"}``. Only with a file.
        resume: whether the folder may already hold this search, which is then continued.
        monitor: reports progress; None is silent, `nas.ConsoleMonitor` prints.

    Returns:
        Every evaluation, the candidate chosen, its genome where it is a network, and what it was compared with.

    Raises:
        GemnetError: a name, option, data set, limit or folder that can't be used; `SearchError` where every evaluation
            failed.
    """
    from gemnet.strict import ConfigError
    from nas.search.config import SearchConfig, find_config, load_config, read_config
    from nas.search.main import run_search

    name = "search"
    if isinstance(config, str | Path):
        file = find_config(str(config))
        name, config = file.stem, load_config(file, options)
    elif options:
        raise ConfigError("options are put over a config file's values; write them into the config that was given.")
    elif not isinstance(config, SearchConfig):
        config = read_config(config)
    return run_search(config, Path(work_dir or Path("work_dirs") / name), resume, monitor)


class _Search(ModuleType):
    """This package can be called: ``nas.search(...)`` is `run`."""

    def __call__(self, *arguments: Any, **options: Any) -> SearchResult:
        return run(*arguments, **options)


sys.modules[__name__].__class__ = _Search
