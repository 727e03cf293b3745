"""Search spaces: what may be searched, and how to move in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gemnet.errors import nearest
from nas.spaces.base import Candidate, CandidateBatch, SearchSpace, SpaceError
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.nasbench101 import NASBench101
from nas.spaces.nasbench201 import NASBench201

__all__ = ["SPACES", "Candidate", "CandidateBatch", "SearchSpace", "SpaceError", "make_space"]

SPACES: dict[str, Callable[..., SearchSpace]] = {
    "gemnet": GEMNetSpace,
    "nasbench101": NASBench101,
    "nasbench201": NASBench201,
}


def make_space(name: str, **options: Any) -> SearchSpace:
    """A search space by its name.

    Args:
        name: a key of `SPACES`.
        options: the space's own settings.

    Raises:
        SpaceError: no space of that name.
    """
    if name not in SPACES:
        raise SpaceError(f"Unknown search space {name!r}.{nearest(name, SPACES)}")
    return SPACES[name](**options)
