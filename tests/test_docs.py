"""Links between the pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SITE = REPOSITORY / "docs"  # what the site is made of: a link out of it is broken there
PAGES = sorted([*REPOSITORY.glob("*.md"), *SITE.rglob("*.md"), *(REPOSITORY / "model_zoo").glob("*.md")])
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#[^)\s]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_to_files_and_those_of_the_site_stay_in_it(page: Path) -> None:
    targets = [(page.parent / link).resolve() for link in LINK.findall(page.read_text(encoding="utf-8")) if link]
    assert [target for target in targets if not target.exists()] == []
    if page.is_relative_to(SITE):
        assert [target for target in targets if not target.is_relative_to(SITE)] == []
