"""The guide to shared state is followed in an empty folder, command by command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.test_first_application import COMMAND_TIMEOUT, CURL
from tests.ports import free_port

PAGE = ROOT / "docs/guide/state.md"


@pytest.mark.system
def test_state_is_shared_as_the_page_says(tmp_path: Path) -> None:
    """Every command succeeds, in its order; visits are counted over both instances and a restart."""
    shown = blocks(PAGE)
    (tmp_path / "visits.py").write_text(next(block.text for block in shown if block.info == "python"))
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
    visits, printed = [], []

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", CURL + command.replace("localhost:8080", address)],
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
                visits.append(json.loads(said)["visits"])
            if command == "unisono kv get visits":
                printed.append(int(said))
    except AssertionError:
        run("unisono down; unisono node stop; true")
        raise

    assert [1, 2, 3] == visits
    assert [2, 3] == printed
    assert commands[-1] == "unisono down"
