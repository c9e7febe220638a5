"""
Claim: 20 ms after ``kill -9`` of a lock's holder the next in line has the lock.

The lease has most of a minute left each time, so nothing but the holder's death can hand the lock over.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from bench.harness import APPLICATION, Finding, PrivateNode, quantile, report, wait_until

KILLS = 50
TTL_MS = 60_000
LOCK = f"/v1/locks/job:acquire?namespace={APPLICATION}"


def main() -> int:
    """Measure and report; the exit code."""
    with PrivateNode() as node:
        took = [hand_over(str(node.folder.api_socket)) * 1000 for _ in range(KILLS)]
    finding = Finding(
        claim="kill of a lock's holder to the next one's holding, p99",
        figure=round(quantile(took, 0.99), 1),
        unit="ms",
        goal=20,
        details={"kills": KILLS, "median ms": round(quantile(took, 0.5), 1), "worst ms": round(max(took), 1)},
    )
    return report("lock_handover", [finding])


def hand_over(path: str) -> float:
    """Seconds from the kill of a holder to the answer that the next one has."""
    with subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL) as holder:
        first = lease(path, holder.pid)
        ask(path, LOCK, {"lease": first})
        second = lease(path, os.getpid())
        had: list[float] = []

        def wait() -> None:
            ask(path, LOCK, {"lease": second, "wait_ms": TTL_MS})
            had.append(time.perf_counter())

        waiter = threading.Thread(target=wait)
        waiter.start()
        wait_until(lambda: stand_in_line(path) == 2, "the next one stands in line")
        time.sleep(0.1)  # and has begun to wait
        began = time.perf_counter()
        holder.send_signal(signal.SIGKILL)
        waiter.join()
    ask(path, f"/v1/leases/{second}?namespace={APPLICATION}", method="DELETE")
    return had[0] - began


def lease(path: str, pid: int) -> str:
    """A lease that ends with a process."""
    told = ask(path, f"/v1/leases?namespace={APPLICATION}", {"ttl_ms": TTL_MS, "pid": pid})
    return str(told["lease"])


def stand_in_line(path: str) -> int:
    """How many hold or want the lock."""
    return len(ask(path, f"/v1/locks/job?namespace={APPLICATION}", method="GET")["members"])


def ask(path: str, target: str, body: Any = None, *, method: str = "POST") -> Any:
    """One request at the operator's socket."""
    connection = http.client.HTTPConnection("node")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(path)
    try:
        connection.request(method, target, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"{method} {target} was answered {answer.status}: {content.decode()}")
        return json.loads(content) if content else None
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
