"""Claim: with 10 idle instances, node and gateway are small and use less than 1 % of a core."""

from __future__ import annotations

import sys
import time

import psutil

from bench.harness import Finding, PrivateNode, cpu_seconds, report, resident_mb

INSTANCES = 10
SETTLE_SECONDS = 5.0
WATCH_SECONDS = 30.0


def main() -> int:
    """Measure and report; the exit code."""
    with PrivateNode() as node:
        node.up(INSTANCES, healthcheck={"http": "/", "interval": "1s"})
        time.sleep(SETTLE_SECONDS)
        gateway = node.gateway_pid
        # Whatever else the node keeps running for itself is the node's as well.
        instances = set(node.pids().values())
        own = [
            child.pid
            for child in psutil.Process(node.pid).children()
            if child.pid not in {*instances, gateway}
        ]
        processes = {"node": [node.pid, *own], "gateway": [gateway]}
        before = {name: sum(map(cpu_seconds, pids)) for name, pids in processes.items()}
        time.sleep(WATCH_SECONDS)
        used = {name: sum(map(cpu_seconds, pids)) - before[name] for name, pids in processes.items()}
        resident = {name: round(sum(map(resident_mb, pids)), 1) for name, pids in processes.items()}
    findings = [
        Finding(
            claim="node, resident",
            figure=resident["node"],
            unit="MB",
            goal=90,
            details={"processes": len(processes["node"]), "instances": INSTANCES},
        ),
        Finding(claim="gateway, resident", figure=resident["gateway"], unit="MB", goal=40, details={}),
        Finding(
            claim="node and gateway, share of a core while idle",
            figure=round(sum(used.values()) / WATCH_SECONDS * 100, 2),
            unit="%",
            goal=1,
            details={
                **{f"{name} %": round(seconds / WATCH_SECONDS * 100, 2) for name, seconds in used.items()},
                "health checks": "http, every 1 s",
            },
        ),
    ]
    return report("idle", findings)


if __name__ == "__main__":
    sys.exit(main())
