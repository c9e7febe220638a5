"""
Ends what a run leaves: ``python -m tests.system.storm.cleaner FOLDER``, once its standard input ends.

A process of its own whose input is a pipe from the run: so it cleans up after one that was killed, too.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from pathlib import Path

import psutil


def end_all_of(folder: Path) -> None:
    """Kill all processes whose node keeps its state in the folder, then remove it."""
    for _ in range(10):  # what is killed may have been started again by what is killed a moment later
        left = _processes(folder)
        if not left:
            break
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=2.0)
    shutil.rmtree(folder, ignore_errors=True)


def _processes(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("UNISONO_STATE") == str(folder / "state"):
                found.append(process)
    return found


if __name__ == "__main__":
    sys.stdin.read()
    end_all_of(Path(sys.argv[1]))
