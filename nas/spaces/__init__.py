"""Search spaces: what may be searched, and how to move in it."""

from __future__ import annotations

from typing import Any

from gemnet.strict import find_class
from nas.spaces.base import Candidate, CandidateBatch, SearchSpace, SpaceError

__all__ = [
    "SPACES",
    "Candidate",
    "CandidateBatch",
    "SearchSpace",
    "SpaceError",
    "is_base",
    "is_own",
    "make_space",
    "space_class",
]

SPACES = {
    "accel_nasbench": "nas.spaces.accel_nasbench.AccelNASBench",
    "darts": "nas.spaces.darts.DARTS",
    "choices": "nas.spaces.choices.ChoiceSpace",
    "gemnet": "nas.spaces.gemnet.GEMNetSpace",
    "nasbench101": "nas.spaces.nasbench101.NASBench101",
    "nasbench201": "nas.spaces.nasbench201.NASBench201",
}


def space_class(name: str) -> type[SearchSpace]:
    """The class of a space: a key of `SPACES`, or the dotted path of one's own, such as ``mypackage.MySpace``.

    Raises:
        ConfigError: there is none.
    """
    return find_class(name, SPACES, SearchSpace, "space.type")


def is_own(name: str) -> bool:
    """Whether a name is the dotted path of somebody's own class, and neither one of ours nor a table's file."""
    parts = name.split(".")
    return len(parts) > 1 and parts[-1] not in ("csv", "parquet") and all(part.isidentifier() for part in parts)


def is_base(name: str) -> bool:
    """Whether a user's own table can be a part of a space of that name; other names of ours stand for files."""
    return is_own(name) or name == "choices"


def make_space(name: str, **options: Any) -> SearchSpace:
    """A search space by its name.

    Args:
        name: as of `space_class`.
        options: the space's own settings.

    Raises:
        ConfigError: no space of that name.
    """
    return space_class(name)(**options)
