"""Claim: ``kill -9`` of an instance every 200 ms for 20 s fails no GET, with 8 instances at full load."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from contextlib import suppress

from bench.harness import Finding, PrivateNode, full_load, report, seen_by

INSTANCES = 8
KILL_EVERY_SECONDS = 0.2
STORM_SECONDS = 20.0


def main() -> int:
    """Measure and report; the exit code."""
    chance = random.Random(1)
    kills, least_ready = 0, INSTANCES
    with PrivateNode() as node:
        node.up(INSTANCES)
        with full_load(node.url) as load:
            began = time.monotonic()
            while (now := time.monotonic()) < began + STORM_SECONDS:
                pids = node.pids()
                least_ready = min(least_ready, len(pids))
                if pids:
                    with suppress(ProcessLookupError):  # the one killed before, and not reported yet
                        os.kill(chance.choice(sorted(pids.values())), signal.SIGKILL)
                        kills += 1
                time.sleep(max(0.0, now + KILL_EVERY_SECONDS - time.monotonic()))
    failed, details = seen_by(load)
    finding = Finding(
        claim=f"failed requests while an instance is killed every {KILL_EVERY_SECONDS * 1000:g} ms",
        figure=failed,
        unit="requests",
        goal=0,
        details={"kills": kills, "fewest ready": least_ready, **details},
    )
    return report("crash_storm", [finding])


if __name__ == "__main__":
    sys.exit(main())
