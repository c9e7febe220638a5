"""The guide's first application is built and run as the page says, line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.docs.guided import Said, follow
from tests.docs.pages import ROOT

PAGE = ROOT / "docs/guide/first-application.md"
PID_IN_PAGE = "4711"


def answers(said: Said) -> list[dict[str, Any]]:
    """What the application answered."""
    return [json.loads(printed) for command, printed in said if command.startswith("curl")]


def adapted(command: str, said: Said) -> str:
    """There is no terminal to ask or to interrupt, and the page can't know the pid."""
    command = command.replace("logs -f", "logs").replace("unisono apply", "unisono apply --yes")
    known = answers(said)
    return command.replace(PID_IN_PAGE, str(known[0]["pid"])) if known else command


@pytest.mark.system
def test_the_first_application_runs_as_the_page_says(tmp_path: Path) -> None:
    """Every command of the page succeeds, in its order, and the first answer is the one that is shown."""
    said = follow(PAGE, tmp_path, "hello.py", adapted)

    found = answers(said)
    assert ["hello", "hello"] == [answer["greeting"] for answer in found]
    assert found[0]["pid"] != found[1]["pid"]
    assert any(command.startswith("unisono down") for command, _ in said)
