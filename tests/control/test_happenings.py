"""The kinds of happenings, and the page that lists them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from unisono.control.happenings import KINDS, happening, page

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_the_table() -> None:
    """docs/reference/events.md is what the table says; `python -m unisono.control.happenings` makes it."""
    assert (ROOT / "docs/reference/events.md").read_text() == page()


def test_unknown_kinds_are_refused() -> None:
    """A kind that is in no table would be in no documentation."""
    with pytest.raises(ValueError, match="unknown kind of happening 'brak'"):
        happening("brak", at=0.0)


def test_every_kind_is_told() -> None:
    """What the table says is told, somebody tells."""
    told = {
        node.value
        for path in (ROOT / "src/unisono").rglob("*.py")
        if path.name != "happenings.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }

    assert set() == KINDS.keys() - told
