"""Measures everything, or the parts that are named."""

from __future__ import annotations

import argparse
import sys

from bench.harness import Finding, PrivateNode, report
from bench.transactions import growth, measures
from bench.transactions.load import Participant
from bench.transactions.xa import xa

PARTS = ("rates", "phase", "model", "dead", "xa", "age", "number", "recovery")


def main() -> int:
    """Measure, report, and say whether all goals were met."""
    parser = argparse.ArgumentParser(prog="python -m bench.transactions")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parts = parser.parse_args().parts or PARTS
    if unknown := set(parts).difference(PARTS):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(PARTS)}")
    findings: list[Finding] = []
    with PrivateNode() as node, Participant() as participant:
        if "rates" in parts:
            findings += measures.rates(node, participant)
        if "phase" in parts:
            findings.append(measures.parallel_phase(node, participant))
        if "model" in parts:
            findings.append(measures.model(node, participant))
        if "dead" in parts:
            findings.append(measures.dead_participant(node, participant))
        if "age" in parts:
            findings.append(growth.by_age(participant))
        if "number" in parts:
            findings.append(growth.by_number(node, participant))
    if "xa" in parts:
        with PrivateNode() as node:
            findings += xa(node)
    if "recovery" in parts:
        with PrivateNode() as node:
            findings.append(measures.recovery(node))
    return report("transactions", findings)


if __name__ == "__main__":
    sys.exit(main())
