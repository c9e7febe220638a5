"""Claim: a rolling update of all instances under full load fails no request."""

from __future__ import annotations

import sys
import time

from bench.harness import Finding, PrivateNode, full_load, report, seen_by

INSTANCES = 8
ROLLOUTS = 3


def main() -> int:
    """Measure and report; the exit code."""
    kept, seconds = 0, []
    with PrivateNode() as node:
        node.up(INSTANCES, label="revision-0")
        with full_load(node.url) as load:
            for number in range(1, ROLLOUTS + 1):
                before = set(node.pids())
                began = time.monotonic()
                node.cli("apply", "--yes", "-f", str(node.write(INSTANCES, label=f"revision-{number}")))
                seconds.append(round(time.monotonic() - began, 1))
                kept += len(before & set(node.pids()))
    failed, details = seen_by(load)
    findings = [
        Finding(
            claim=f"failed requests during {ROLLOUTS} rolling updates",
            figure=failed,
            unit="requests",
            goal=0,
            details={
                "instances": INSTANCES,
                "seconds each, 1 s monitoring": seconds,
                **details,
            },
        ),
        Finding(claim="instances that were not replaced", figure=kept, unit="instances", goal=0, details={}),
    ]
    return report("rolling_update", findings)


if __name__ == "__main__":
    sys.exit(main())
