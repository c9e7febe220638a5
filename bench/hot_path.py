"""
What a request costs the gateway in instructions, counted by valgrind: free of noise, unlike processor time.

Only user space is counted, where our own work is; the kernel's share is the same for all who make two
receives and two sends. ``--functions N`` lists where it goes. HAProxy is not compared: it copies in string
instructions, each step of which valgrind counts. For processor time and throughput see
``bench.dispatch.throughput``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.dispatch.instances import Instances, build
from bench.dispatch.rounds import available, say
from bench.harness import Finding, report
from bench.peers import NGINX_ALONE, Peer, Setting, unisono

UNISONO = unisono("unisono", concurrency=None)
CONNECTIONS = 16
PLACES = 1000  # never all taken
WARM_UP = 2_000
REQUESTS = 16_000
GOAL = 1.1  # as a multiple of nginx
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
ANSWER_ENDS = b"\r\n\r\n.."


class Clients:
    """Connections that all ask at once, and again when all are answered."""

    def __init__(self, port: int) -> None:
        self._sockets = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(CONNECTIONS)]

    def ask(self, requests: int) -> None:
        """Make so many requests, each of which must be answered well."""
        for _ in range(requests // CONNECTIONS):
            for one in self._sockets:
                one.sendall(REQUEST)
            for one in self._sockets:
                answer = b""
                while not answer.endswith(ANSWER_ENDS):
                    if not (piece := one.recv(4096)):
                        raise RuntimeError(f"the connection ended behind {answer!r}")
                    answer += piece
                if not answer.startswith(b"HTTP/1.1 200 "):
                    raise RuntimeError(f"not answered well: {answer!r}")


def count(peer: Peer, functions: int) -> float:
    """Instructions per request of a peer that has warmed up; lists the dearest functions on stderr."""
    with (
        Instances(places=PLACES, service="constant:0", speeds=(1.0,) * 4, seed=1) as instances,
        tempfile.TemporaryDirectory(prefix="bench-hot-path-") as folder,
    ):
        under = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/%p")
        with peer.start(Setting(ports=instances.ports, places=PLACES, under=under)) as running:
            clients = Clients(running.port)
            clients.ask(WARM_UP)
            (process,) = running.processes()
            _control("--zero", process.pid)
            clients.ask(REQUESTS)
            _control("--dump", process.pid)
            counted = Path(folder, f"{process.pid}.1")
            if functions:
                _list(counted, functions)
            totals = re.search(r"^totals: (\d+)", counted.read_text(), re.MULTILINE)
            assert totals is not None, f"no totals in {counted}"
            return int(totals[1]) / REQUESTS


def _control(what: str, pid: int) -> None:
    subprocess.run(["callgrind_control", what, str(pid)], check=True, stdout=subprocess.DEVNULL)


def _list(counted: Path, functions: int) -> None:
    """The functions with the most instructions of their own, per request."""
    names: dict[str, str] = {}
    own: Counter[str] = Counter()
    function, is_call = "", False
    # "fn=(1) name" begins a function, "fn=(1)" one that was named before; lines of numbers are costs, the one
    # behind "calls=" that of what was called. See Callgrind's manual, "Callgrind Format Specification".
    for line in counted.read_text().splitlines():
        if named := re.match(r"c?fn=(\(\d+\)) ?(.*)", line):
            name = names.setdefault(named[1], named[2])
            function = function if line.startswith("c") else name
        elif line.startswith("calls="):
            is_call = True
        elif cost := re.match(r"[-+*\d]\S* (\d+)", line):
            own[function] += 0 if is_call else int(cost[1])
            is_call = False
    for name, instructions in own.most_common(functions):
        say(f"{instructions / REQUESTS:8.0f}  {name}")


def main() -> int:
    """Measure and report; the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--functions", type=int, default=0, help="list so many of the gateway's")
    functions: int = parser.parse_args().functions
    if shutil.which("valgrind") is None:
        say("left out: valgrind is not installed (apt install valgrind)")
        return 0
    build()
    ours = count(UNISONO, functions)
    findings = [
        Finding(
            claim=f"instructions per request in user space of unisono / {peer.name}",
            figure=round(ours / theirs, 2),
            unit="x",
            goal=GOAL,
            details={"unisono": round(ours), peer.name: round(theirs)},
        )
        for peer in available(NGINX_ALONE)
        for theirs in [count(peer, 0)]
    ]
    return report("hot_path", findings)


if __name__ == "__main__":
    sys.exit(main())
