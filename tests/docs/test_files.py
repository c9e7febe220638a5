"""Files of services that the pages and examples show do load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, blocks, pages
from unisono.spec.load import load

SHOWN = [block for page in pages() for block in blocks(page) if block.info == "yaml file"]


@pytest.mark.parametrize("block", SHOWN, ids=str)
def test_a_shown_file_loads_without_a_warning(block: Block, tmp_path: Path) -> None:
    """What a page shows as a file of services can be copied from it and works."""
    path = tmp_path / "unisono.yaml"
    path.write_text(block.text)

    loaded = load([path])

    assert [] == [str(warning) for warning in loaded.warnings]


def test_the_example_loads_without_a_warning() -> None:
    """The shop's file is in order, and orders depends on the two others."""
    loaded = load([ROOT / "examples/shop/unisono.yaml"])

    assert [] == [str(warning) for warning in loaded.warnings]
    assert {"orders", "payments", "inventory"} == set(loaded.application.services)
