"""The page of the API names what there is."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT
from unisono.api import openapi
from unisono.api.app import OPERATIONS


def test_every_operation_is_documented() -> None:
    """The page has each method with its path, and no other."""
    page = (ROOT / "docs/reference/api.md").read_text()
    there = set(re.findall(r"^\| `([A-Z]+ /v1[^`?]*)`", page, re.MULTILINE))
    paths = openapi.document(OPERATIONS)["paths"]

    assert there == {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
