"""The page draws what the machine does."""

from __future__ import annotations

import pytest

from tests.docs.pages import ROOT
from unisono.transactions import diagram


@pytest.mark.parametrize("drawn", [diagram.transaction(), diagram.branch()], ids=["transaction", "branch"])
def test_the_page_has_the_diagrams_drawn_from_the_tables(drawn: str) -> None:
    page = (ROOT / "docs/reference/transactions.md").read_text()

    assert f"```mermaid\n{drawn}\n```" in page
