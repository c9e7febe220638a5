"""
Claim S2: eight instances with one place each, half of them three times slower.

The requests/s are a share of what all instances together can serve; peers that send each instance as many
requests as any other need less than half of that to be overrun.
"""

from __future__ import annotations

import sys

from bench.dispatch.rounds import Case, against, available, compare, mode
from bench.harness import Finding, report
from bench.peers import ENVOY_RR, HAPROXY, HAPROXY_TUNED, NGINX, RAY_SERVE, UNISONO, unisono

GOALS = {"haproxy tuned": 0.85, "nginx": 0.5, "haproxy": 0.5, "envoy": 0.5, "ray serve": 0.5}
SPEEDS = (1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0)


def main() -> int:
    """Measure and report; the exit code."""
    how = mode()
    findings: list[Finding] = []
    holding = unisono("unisono hold", hold=True)
    for utilisation in (0.5, 0.8):
        case = Case(speeds=SPEEDS, utilisation=utilisation, warm_up=3.0, seconds=how.seconds(6, 30))
        claim = f"S2 utilisation {utilisation}"
        peers = available(UNISONO, holding, HAPROXY_TUNED, NGINX, HAPROXY, ENVOY_RR)
        found = compare(claim, case, peers, how)
        if utilisation == 0.5:
            found |= compare(claim, case, available(RAY_SERVE), how)
        findings += against(claim, found, "unisono", GOALS)
        findings += against(claim, found, "unisono hold", {"haproxy tuned": GOALS["haproxy tuned"]})
    return report("dispatch_unequal", findings)


if __name__ == "__main__":
    sys.exit(main())
