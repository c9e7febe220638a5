"""Real processes, killed with kill -9 while they hold a lock, a whole quota and the timestamp oracle."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import unisono

CHILD = Path(__file__).with_name("child.py")
LIVES = 4


def live(path: Path, lines: int) -> list[dict[str, Any]]:
    """Start a process, read so many lines, kill it, and read what it said until then."""
    source = str(Path(unisono.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, CHILD, path], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": source}
    )
    said = []
    with process:
        assert process.stdout is not None
        while line := process.stdout.readline():
            if line.endswith(b"\n"):
                said.append(json.loads(line))
            if len(said) == lines:
                process.kill()
    return said


def test_what_a_killed_process_held_goes_to_the_next(tmp_path: Path) -> None:
    """
    Killed at a random moment, four times: the next one gets lock and quota when the leases have ended,
    with higher tokens; no write that was told is gone or done twice, and timestamps go on rising.
    """
    chance = random.Random(1)
    tokens, grants, timestamps = [0], [0], [0]
    wrote = 0
    for _ in range(LIVES):
        first, *rest = live(tmp_path / "store.db", chance.randrange(3, 60))
        tokens.append(first["token"])
        grants.append(first["grant"])
        assert first["count"] in (wrote, wrote + 1)  # the last write may not have been told
        assert [line["wrote"] for line in rest] == [first["count"] + n for n in range(1, len(rest) + 1)]
        timestamps += [line["timestamp"] for line in rest]
        wrote = first["count"] + len(rest)

    assert tokens == sorted(set(tokens))
    assert grants == sorted(set(grants))
    assert all(b - a >= 1000 for a, b in pairwise(timestamps))
