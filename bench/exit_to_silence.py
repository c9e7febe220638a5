"""
Claim: 5 ms after an instance's exit no further request is sent to it (p99).

A witness holds the dead server's sockets open, so nothing but the exit itself can tell the gateway; how is
said in :mod:`bench.witness_server`. The clock starts when the kernel closes the server's files, which is part
of its exit, and stops at the last request that arrives.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from bench.harness import HERE, Finding, PrivateNode, full_load, quantile, report, seen_by, wait_until

INSTANCES = 10
EXITS = 100
ROUND_SECONDS = 11.0  # a streak of crashes is forgotten after 10 s of health


def main() -> int:
    """Measure and report; the exit code."""
    with PrivateNode() as node:
        file = node.path / "witnessed.jsonl"
        file.touch()
        command = (sys.executable, "-IS", str(HERE / "witness_server.py"), "{port}", str(file))
        node.up(INSTANCES, command=command)
        with full_load(node.url) as load:
            for turn in range(EXITS):
                next_at = time.monotonic() + ROUND_SECONDS / INSTANCES
                kill_one(node, turn, file)
                time.sleep(max(0.0, next_at - time.monotonic()))
        found = [json.loads(line) for line in lines(file)]
    _, details = seen_by(load)
    silence = [line["last_ms"] or 0.0 for line in found]
    finding = Finding(
        claim="exit of an instance to the last request sent to it, p99",
        figure=quantile(silence, 0.99),
        unit="ms",
        goal=5,
        details={
            "exits": len(found),
            "median ms": quantile(silence, 0.5),
            "worst ms": max(silence),
            "requests after an exit": sum(line["requests"] for line in found),
            **details,
        },
    )
    return report("exit_to_silence", [finding])


def kill_one(node: PrivateNode, turn: int, file: Path) -> None:
    """Kill one of the instances that get requests, each in its turn, and wait for what its witness says."""
    wait_until(lambda: len(node.targets()) >= 2, "two instances serve")
    targets = node.targets()
    os.kill(targets[sorted(targets)[turn % len(targets)]]["pid"], signal.SIGKILL)
    wait_until(lambda: len(lines(file)) > turn, "the witness is sure")


def lines(file: Path) -> list[str]:
    """What the witnesses have written so far."""
    return file.read_text().splitlines()


if __name__ == "__main__":
    sys.exit(main())
