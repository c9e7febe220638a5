"""
Claim: ``unisono up`` of 200 tiny servers takes at most twice as long as a bare loop that starts them.

The bare loop calls subprocess.Popen 200 times and waits until every port accepts connections. Both are done
in turn, and the median of each counts. The command's own start is in the figure, the node's is not: it runs.
"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from statistics import median

from bench.harness import APPLICATION, TINY_COMMAND, Finding, PrivateNode, listens, report, wait_until

INSTANCES = 200
ROUNDS = 3
FIRST_BARE_PORT = 19000  # below the ports that a node gives out


def main() -> int:
    """Measure and report; the exit code."""
    bare: list[float] = []
    unisono: list[float] = []
    with PrivateNode() as node:
        for _ in range(ROUNDS):
            bare.append(bare_loop())
            path = node.write(INSTANCES)
            began = time.perf_counter()
            node.cli("up", "-d", "-f", str(path))
            wait_until(lambda: len(node.targets()) == INSTANCES, "the gateway serves all", interval=0.001)
            unisono.append(time.perf_counter() - began)
            node.cli("down", "-p", APPLICATION)
    finding = Finding(
        claim=f"up of {INSTANCES} instances, as a multiple of a bare loop",
        figure=round(median(unisono) / median(bare), 2),
        unit="x",
        goal=2,
        details={
            "bare s": [round(seconds, 2) for seconds in bare],
            "unisono s": [round(seconds, 2) for seconds in unisono],
        },
    )
    return report("up_200", [finding])


def bare_loop() -> float:
    """Seconds to start all servers and see each of them listen."""
    ports = range(FIRST_BARE_PORT, FIRST_BARE_PORT + INSTANCES)
    began = time.perf_counter()
    processes = [subprocess.Popen([*TINY_COMMAND, str(port)], stdin=subprocess.DEVNULL) for port in ports]
    try:
        for port in ports:
            wait_until(partial(listens, port), f"port {port} listens", interval=0.001)
        return time.perf_counter() - began
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
