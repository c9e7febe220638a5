"""Claim: 300 ms after ``kill -9`` of the gateway requests are served again, and no instance was touched."""

from __future__ import annotations

import http.client
import os
import signal
import sys
import time

from bench.harness import Finding, PrivateNode, quantile, report, wait_until

INSTANCES = 4
KILLS = 20
PAUSE_SECONDS = 1.0


def main() -> int:
    """Measure and report; the exit code."""
    silent: list[float] = []
    with PrivateNode() as node:
        node.up(INSTANCES)
        before = node.pids()
        for _ in range(KILLS):
            silent.append(kill(node) * 1000)
            time.sleep(PAUSE_SECONDS)
        touched = len(before.items() ^ node.pids().items())
    findings = [
        Finding(
            claim="kill of the gateway to the next answered request, worst",
            figure=round(max(silent), 1),
            unit="ms",
            goal=300,
            details={"kills": KILLS, "median ms": round(quantile(silent, 0.5), 1)},
        ),
        Finding(claim="instances touched by it", figure=touched, unit="instances", goal=0, details={}),
    ]
    return report("gateway_kill", findings)


def kill(node: PrivateNode) -> float:
    """Seconds from killing the gateway to the next answered request."""
    pid = node.gateway_pid
    began = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not exists(pid), "the gateway is gone", interval=0.0002)
    wait_until(lambda: serves(node.port), "requests are served", interval=0.001)
    silent = time.perf_counter() - began
    wait_until(lambda: node.gateway_pid != pid, "the node knows its new gateway")
    return silent


def exists(pid: int) -> bool:
    """Whether the process still runs; one that waits to be reaped does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def serves(port: int) -> bool:
    """Whether a request is answered by an instance."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
