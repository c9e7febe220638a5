"""
Claim: from a crash to the replacement being ready takes at most 50 ms more than the program's own start.

The own start is that of the same command started by hand, in turn with the crashes, until its port
accepts connections. Ready means that the gateway has the new process in its routing table. Each instance
is killed once in more than ten seconds, so that every crash is a first one: only those are restarted
at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from bench.harness import TINY_COMMAND, Finding, PrivateNode, free_port, listens, quantile, report, wait_until

INSTANCES = 10
CRASHES = 50
ROUND_SECONDS = 11.0  # a streak of crashes is forgotten after 10 s of health
POLL_SECONDS = 0.001


def main() -> int:
    """Measure and report; the exit code."""
    own: list[float] = []
    replaced: list[float] = []
    with PrivateNode() as node:
        node.up(INSTANCES)
        ids = sorted(node.pids())
        for turn in range(CRASHES):
            next_at = time.monotonic() + ROUND_SECONDS / INSTANCES
            own.append(start_by_hand())
            replaced.append(crash(node, ids[turn % INSTANCES]))
            time.sleep(max(0.0, next_at - time.monotonic()))
    beyond = [(after - before) * 1000 for after, before in zip(replaced, own, strict=True)]
    finding = Finding(
        claim="crash to replacement ready, beyond the program's own start, median",
        figure=round(quantile(beyond, 0.5), 1),
        unit="ms",
        goal=50,
        details={
            "crashes": CRASHES,
            "p99 ms": round(quantile(beyond, 0.99), 1),
            "own start median ms": round(quantile(own, 0.5) * 1000, 1),
            "crash to ready median ms": round(quantile(replaced, 0.5) * 1000, 1),
        },
    )
    return report("replace_time", [finding])


def start_by_hand() -> float:
    """Seconds from starting the tiny server to its port accepting connections."""
    port = free_port()
    began = time.perf_counter()
    process = subprocess.Popen([*TINY_COMMAND, str(port)], stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(port), "the server listens", interval=POLL_SECONDS)
        return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()


def crash(node: PrivateNode, instance: str) -> float:
    """Seconds from killing an instance to the gateway having its next process."""
    target = node.targets()[instance]
    began = time.perf_counter()
    os.kill(target["pid"], signal.SIGKILL)

    def is_replaced() -> bool:
        found = node.targets().get(instance)
        return found is not None and found["pid"] != target["pid"]

    wait_until(is_replaced, f"{instance} was replaced", interval=POLL_SECONDS)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
