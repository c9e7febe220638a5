"""Claim S10: two workers share one queue, so that the tail is that of one."""

from __future__ import annotations

import sys

from bench.dispatch.rounds import Case, against, available, compare, mode
from bench.harness import Finding, report
from bench.peers import UNISONO, unisono


def main() -> int:
    """Measure and report; the exit code."""
    how = mode()
    findings: list[Finding] = []
    for utilisation in (0.75, 0.9):
        case = Case(utilisation=utilisation, seconds=how.seconds(6, 30))
        claim = f"S10 utilisation {utilisation}"
        two = unisono("unisono, two workers", workers=2)
        found = compare(claim, case, available(UNISONO, two), how)
        findings += against(claim, found, "unisono, two workers", {"unisono": 1.05})
    return report("dispatch_workers", findings)


if __name__ == "__main__":
    sys.exit(main())
