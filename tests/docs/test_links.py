"""Links between pages lead somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, anchors, links, pages


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_its_heading(page: Path) -> None:
    """A link to a page that moved, or to a heading that was renamed, is found here."""
    broken = []
    for link in links(page):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert [] == broken


def test_every_page_of_docs_is_reached_from_the_index() -> None:
    """A page that no other one links to is never read."""
    docs = ROOT / "docs"
    reached, waiting = set[Path](), [docs / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [
            target
            for link in links(page)
            if "://" not in link and (target := (page.parent / link.partition("#")[0]).resolve()).is_file()
        ]

    assert set() == {page for page in pages() if docs in page.parents} - reached
