"""Claim T2: what the gateway adds to a request's time at 1000 requests/s; the instances answer at once."""

from __future__ import annotations

import sys

from bench.dispatch.rounds import Case, against, available, compare, mode
from bench.harness import report
from bench.peers import HAPROXY_TUNED, NGINX_TUNED, UNISONO


def main() -> int:
    """Measure and report; the exit code."""
    how = mode()
    case = Case(service="constant:0", places=64, rate=1000.0, seconds=how.seconds(6, 20))
    found = compare("T2", case, available(UNISONO, HAPROXY_TUNED, NGINX_TUNED), how)
    return report("dispatch_added_latency", against("T2 1000/s", found, "unisono", {"haproxy tuned": 1.0}))


if __name__ == "__main__":
    sys.exit(main())
