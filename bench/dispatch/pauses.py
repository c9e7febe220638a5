"""
Claim S4: eight instances with four places each stop for 200 ms every five seconds on average; hedging is on.

What is in an instance's places when it stops waits 200 ms, unless it is asked for a second time elsewhere.
"""

from __future__ import annotations

import sys

from bench.dispatch.rounds import Case, against, available, compare, mode
from bench.harness import report
from bench.peers import HAPROXY_TUNED, UNISONO, UNISONO_HEDGED


def main() -> int:
    """Measure and report; the exit code."""
    how = mode()
    case = Case(places=4, pauses="200:5000", utilisation=0.5, warm_up=3.0, seconds=how.seconds(10, 40))
    peers = available(UNISONO, UNISONO_HEDGED, HAPROXY_TUNED)
    found = compare("S4", case, peers, how, q=0.999)
    goals = {"haproxy tuned": 0.6}
    return report("dispatch_pauses", against("S4 utilisation 0.5", found, "unisono hedged", goals, q=0.999))


if __name__ == "__main__":
    sys.exit(main())
