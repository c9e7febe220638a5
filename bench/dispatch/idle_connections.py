"""
Claim: memory of the gateway for 10 000 clients that keep their connections and ask nothing, beside HAProxy's.

Where the limit of open files allows fewer (each may need two), fewer are opened; figures are for each.
"""

from __future__ import annotations

import resource
import socket
import statistics
import sys
import time
from contextlib import ExitStack

from bench.dispatch.instances import Instances
from bench.dispatch.rounds import available, mode, say
from bench.harness import Finding, report
from bench.peers import HAPROXY_TUNED, NGINX_TUNED, UNISONO, Peer, Setting

CONNECTIONS = 10_000
WAIT_SECONDS_MAX = 20.0
REQUEST = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n"


def measure(peer: Peer, count: int) -> float:
    """Bytes for each connection, once each has asked and been answered."""
    with ExitStack() as stack:
        instances = stack.enter_context(Instances(places=64, service="constant:0", speeds=(1.0,) * 4))
        running = stack.enter_context(peer.start(Setting(ports=instances.ports, places=64)))
        ask(stack.enter_context(connect(running.port)))
        before = running.resident()
        for _ in range(count):
            ask(stack.enter_context(connect(running.port)))
        time.sleep(1.0)
        return (running.resident() - before) / count


def connect(port: int) -> socket.socket:
    """A connection to the peer."""
    return socket.create_connection(("127.0.0.1", port), WAIT_SECONDS_MAX)


def ask(connection: socket.socket) -> None:
    """One request and its answer."""
    connection.sendall(REQUEST)
    answer = connection.recv(4096)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"answered {answer[:80]!r}")


def main() -> int:
    """Measure and report; the exit code."""
    how = mode()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    count = min(CONNECTIONS, int(files * 0.4))
    found = {
        peer.name: [measure(peer, count) for _ in range(how.rounds)]
        for peer in available(UNISONO, HAPROXY_TUNED, NGINX_TUNED)
    }
    bytes_each = {name: round(statistics.median(each)) for name, each in found.items()}
    say(f"bytes for each connection: {bytes_each}")
    findings = [
        Finding(
            claim="memory of 10 000 idle connections of unisono / haproxy tuned",
            figure=round(bytes_each["unisono"] / bytes_each["haproxy tuned"], 2),
            unit="x",
            goal=1.5,
            details={
                "connections": count,
                **{f"{name} bytes each": each for name, each in bytes_each.items()},
            },
        )
    ]
    return report("dispatch_idle_connections", findings)


if __name__ == "__main__":
    sys.exit(main())
