"""Claim S9: instances whose places nobody declared are used nearly as well as if they had been."""

from __future__ import annotations

import sys

from bench.dispatch.rounds import Case, against, available, compare, mode
from bench.harness import Finding, report
from bench.peers import UNISONO, UNISONO_AUTO


def main() -> int:
    """Measure and report; the exit code."""
    how = mode()
    findings: list[Finding] = []
    for places, utilisation in ((1, 0.7), (4, 0.7)):
        case = Case(places=places, utilisation=utilisation, warm_up=15.0, seconds=how.seconds(6, 30))
        claim = f"S9 {places} places, utilisation {utilisation}"
        found = compare(claim, case, available(UNISONO, UNISONO_AUTO), how)
        findings += against(claim, found, "unisono auto", {"unisono": 1.15})
    return report("dispatch_auto", findings)


if __name__ == "__main__":
    sys.exit(main())
