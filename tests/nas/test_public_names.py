"""What users import from `nas`."""

from __future__ import annotations

import nas


def test_each_public_name_is_there() -> None:
    assert all(getattr(nas, name) is not None for name in nas.__all__)


def test_the_search_package_is_the_search() -> None:
    from nas import Space, search
    from nas.spaces.base import SearchSpace

    assert callable(search)
    assert search.run.__module__ == "nas.search"
    assert Space is SearchSpace


def test_the_kernel_has_its_public_name() -> None:
    import nas
    from nas.wl import wl_kernel

    assert nas.wl.wl_kernel is wl_kernel
