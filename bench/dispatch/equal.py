"""
Claim S1: eight equal instances with a place each, 10 ms on average (lognormal, CV 1), at three utilisations.

Tuned HAProxy queues for all servers together too: a tie with it is the best that can be had here, and the
bound of one queue without any cost says how near both are.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace

from bench.dispatch.rounds import Case, against, available, bound, compare, divide, facts, mode
from bench.harness import Finding, report
from bench.peers import ENVOY_LEAST, HAPROXY_TUNED, NGINX_TUNED, UNISONO

GOALS = {"haproxy tuned": 1.05, "envoy least_request": 0.70, "nginx tuned": 0.85}
OPTIMUM = 1.10


def main() -> int:
    """Measure and report; the exit code."""
    how = mode()
    findings: list[Finding] = []
    for utilisation in (0.5, 0.75, 0.9):
        case = replace(Case(utilisation=utilisation), seconds=how.seconds(6, 30))
        claim = f"S1 utilisation {utilisation}"
        found = compare(claim, case, available(UNISONO, HAPROXY_TUNED, ENVOY_LEAST, NGINX_TUNED), how)
        findings += against(claim, found, "unisono", GOALS)
        optima = bound(case, how.rounds)
        ratios = [divide(o.ms(0.99), best) for o, best in zip(found["unisono"], optima, strict=True)]
        findings.append(
            Finding(
                claim=f"{claim}: p99 of unisono / optimum",
                figure=round(statistics.median(ratios), 3),
                unit="x",
                goal=OPTIMUM,
                details={"optimum ms": f"{statistics.median(optima):.2f}", **facts(found, ["unisono"], 0.99)},
            )
        )
    return report("dispatch_equal", findings)


if __name__ == "__main__":
    sys.exit(main())
