"""The guide's first application is built and run as the page says, line by line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.ports import free_port

PAGE = ROOT / "docs/guide/first-application.md"
PID_IN_PAGE = "4711"
COMMAND_TIMEOUT = 120
# A reader has curl; the machine of a test may not.
CURL = """
curl() {
  python -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())' "http://$1"
}
"""


@pytest.mark.system
def test_the_first_application_runs_as_the_page_says(tmp_path: Path) -> None:
    """Every command of the page succeeds, in its order, and the first answer is the one that is shown."""
    shown = blocks(PAGE)
    (tmp_path / "hello.py").write_text(next(block.text for block in shown if block.info == "python"))
    (tmp_path / "unisono.yaml").write_text(next(block.text for block in shown if block.info == "yaml file"))
    lines = [line for block in shown if block.info == "console" for line in block.text.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    address = f"127.0.0.1:{free_port()}"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "UNISONO_STATE": str(tmp_path / "state"),
        "UNISONO_LISTEN": address,
    }
    answers = []

    def run(command: str) -> str:
        command = command.replace("localhost:8080", address).replace("logs -f", "logs")
        command = command.replace("unisono apply", "unisono apply --yes")  # there is no terminal to ask
        if answers:
            command = command.replace(PID_IN_PAGE, str(answers[0]["pid"]))
        done = subprocess.run(
            ["bash", "-c", CURL + command],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    try:
        for command in commands:
            said = run(command)
            if command.startswith("curl"):
                answers.append(json.loads(said))
    except AssertionError:
        run("unisono down; unisono node stop; true")
        raise

    assert ["hello", "hello"] == [answer["greeting"] for answer in answers]
    assert answers[0]["pid"] != answers[1]["pid"]
    assert any(command.startswith("unisono down") for command in commands)
