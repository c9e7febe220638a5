"""Claim S3: eight equal instances with a place each; 5 % of the requests take 50 times as long as others."""

from __future__ import annotations

import sys

from bench.dispatch.rounds import Case, against, available, compare, mode
from bench.harness import report
from bench.peers import ENVOY_LEAST, HAPROXY_TUNED, UNISONO

GOALS = {"haproxy tuned": 1.05, "envoy least_request": 0.55}


def main() -> int:
    """Measure and report; the exit code."""
    how = mode()
    case = Case(service="bimodal:10:0.05:50", utilisation=0.7, seconds=how.seconds(8, 30))
    found = compare("S3", case, available(UNISONO, HAPROXY_TUNED, ENVOY_LEAST), how)
    return report("dispatch_bimodal", against("S3 utilisation 0.7", found, "unisono", GOALS))


if __name__ == "__main__":
    sys.exit(main())
