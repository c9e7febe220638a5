"""The guide to shared state is followed in an empty folder, command by command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs.guided import follow
from tests.docs.pages import ROOT

PAGE = ROOT / "docs/guide/state.md"


@pytest.mark.system
def test_state_is_shared_as_the_page_says(tmp_path: Path) -> None:
    """Every command succeeds, in its order; visits are counted over both instances and a restart."""
    said = follow(PAGE, tmp_path, "visits.py")

    visits = [json.loads(printed)["visits"] for command, printed in said if command.startswith("curl")]
    assert [1, 2, 3] == visits
    assert [2, 3] == [int(printed) for command, printed in said if command == "unisono kv get visits"]
    assert said[-1][0] == "unisono down"
