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


def test_kinds_of_control_are_told() -> None:
    """What the table says controller and commands tell, they do tell somewhere."""
    told = {
        node.value
        for path in (ROOT / "src/unisono/control").glob("*.py")
        if path.name != "happenings.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }

    assert {k for k, (teller, _) in KINDS.items() if teller in ("controller", "command")} <= told
