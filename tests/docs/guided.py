"""A page of the guide, followed in an empty folder: its files written, its commands run one after another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.docs.pages import blocks
from tests.ports import free_port

COMMAND_TIMEOUT = 120  # seconds
# A reader has curl; the machine of a test may not.
CURL = """
curl() {
  python -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())' "http://$1"
}
"""

Said = list[tuple[str, str]]  # commands as they stand on the page, each with what it printed


def follow(
    page: Path, folder: Path, program: str, adapt: Callable[[str, Said], str] = lambda c, _: c
) -> Said:
    """
    Do what a page says: its Python is ``program``, its YAML ``unisono.yaml``, and all its commands succeed.

    ``adapt`` is given each command and what was said before, and puts in what no page can know. A node that
    is left when a command fails is ended.
    """
    shown = blocks(page)
    (folder / program).write_text(next(block.text for block in shown if block.info == "python"))
    (folder / "unisono.yaml").write_text(next(block.text for block in shown if block.info == "yaml file"))
    lines = [line for block in shown if block.info == "console" for line in block.text.splitlines()]
    address = f"127.0.0.1:{free_port()}"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "UNISONO_STATE": str(folder / "state"),
        "UNISONO_LISTEN": address,
    }

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", CURL + command.replace("localhost:8080", address)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    said: Said = []
    try:
        for command in [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]:
            said.append((command, run(adapt(command, said))))
    except AssertionError:
        run("unisono down; unisono node stop; true")
        raise
    return said
