"""
Claim: ``kill -9`` of the node under load fails no request and touches no instance; a new one adopts in 1 s.

Adopted means that the new node's API names every instance as ready, with the process it had. The clock starts
before the new node's process does, so the figure contains the start of a Python program.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress

from bench.harness import Finding, PrivateNode, full_load, quantile, report, seen_by, wait_until
from unisono.client import NodeError

INSTANCES = 8
KILLS = 5
ALONE_SECONDS = 2.0


def main() -> int:
    """Measure and report; the exit code."""
    adopted: list[float] = []
    lost = 0
    with PrivateNode() as node:
        node.up(INSTANCES)
        with full_load(node.url) as load:
            for _ in range(KILLS):
                before = node.pids()
                node.kill()
                time.sleep(ALONE_SECONDS)
                began = time.perf_counter()
                node.start()
                wait_until(lambda: ready(node) == INSTANCES, "all instances are adopted", interval=0.005)
                adopted.append(time.perf_counter() - began)
                lost += len(before.items() - node.pids().items())
                time.sleep(1.0)
    failed, details = seen_by(load)
    findings = [
        Finding(
            claim="failed requests while the node is killed and started again",
            figure=failed,
            unit="requests",
            goal=0,
            details={"kills": KILLS, **details},
        ),
        Finding(
            claim="instances that lost their process",
            figure=lost,
            unit="instances",
            goal=0,
            details={},
        ),
        Finding(
            claim="start of a new node to all instances adopted, worst",
            figure=round(max(adopted), 3),
            unit="s",
            goal=1,
            details={"median s": round(quantile(adopted, 0.5), 3), "instances": INSTANCES},
        ),
    ]
    return report("node_kill", findings)


def ready(node: PrivateNode) -> int:
    """How many instances the node calls ready; 0 while it can't tell."""
    with suppress(NodeError):
        return len(node.pids())
    return 0


if __name__ == "__main__":
    sys.exit(main())
