"""
Transactions: how many a second, how long a phase takes, how soon they go on after a crash, and M4 beside
them.

``python -m bench.transactions``: a node of its own on SQLite with full sync, a participant process that does
nothing, and 64 initiators in this process, all over HTTP and on the same two cores.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection
from typing import Any

import httptools

from bench.harness import HERE, Finding, PrivateNode, free_port, listens, quantile, report, wait_until
from unisono.queueing.commit import commit_probability, phase_latency
from unisono.transactions.submission import new_gid

AT_A_TIME = 64
OPEN = 10_000
REMEMBERED_MAX = 50_000  # as docs/reference/transactions.md promises
_Branches = Callable[[], list[dict[str, Any]]]


class Participant:
    """The participant process, at an address that stays the same when it is started again."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Participant:
        command = [sys.executable, str(HERE / "transaction_participant.py"), str(self.port)]
        self._process = subprocess.Popen(command)
        wait_until(lambda: listens(self.port), "the participant listens")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def branches(self, count: int, kind: str = "do") -> _Branches:
        """Makes the branches of a transaction."""

        def made() -> list[dict[str, Any]]:
            return [
                {"id": f"b{n}", "url": f"http://127.0.0.1:{self.port}/{kind}/{n}", "payload": {"n": n}}
                for n in range(count)
            ]

        return made

    def first_call(self) -> float | None:
        """When it was called first, in seconds since the epoch."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/calls") as answer:
            first: float | None = json.load(answer)["first"]
        return first


class _Initiator(asyncio.Protocol):
    """One connection to the node's API."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        assert self._answer is not None
        self._answer.set_result((self._parser.get_status_code(), self._body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the node closed the connection"))

    async def begin(self, mode: str, branches: _Branches, wait_ms: int, timeout_ms: int) -> tuple[int, bytes]:
        """Submit one transaction, and wait for its end."""
        self._answer = asyncio.get_running_loop().create_future()
        given = {"gid": new_gid(), "mode": mode, "wait_ms": wait_ms, "timeout_ms": timeout_ms}
        body = json.dumps({**given, "branches": branches()}).encode()
        head = b"POST /v1/transactions?namespace=bench HTTP/1.1\r\nHost: node\r\n"
        head += b"Content-Type: application/json\r\n"
        self._transport.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return await self._answer

    def close(self) -> None:
        self._transport.close()


async def _load(
    node: PrivateNode,
    mode: str,
    branches: _Branches,
    count: int,
    *,
    at_a_time: int = AT_A_TIME,
    wait_ms: int = 30_000,
    timeout_ms: int = 30_000,
) -> tuple[float, list[float], list[dict[str, Any]]]:
    """Transactions per second, the seconds that each took, and what became of each."""
    left = count
    took: list[float] = []
    ends: list[dict[str, Any]] = []

    async def initiator() -> None:
        nonlocal left
        loop = asyncio.get_running_loop()
        _, one = await loop.create_unix_connection(_Initiator, str(node.folder.api_socket))
        while left > 0:
            left -= 1
            began = time.perf_counter()
            status, body = await one.begin(mode, branches, wait_ms, timeout_ms)
            took.append(time.perf_counter() - began)
            if status != 201:
                raise RuntimeError(f"begin was answered with {status}: {body!r}")
            ends.append(json.loads(body) if at_a_time < AT_A_TIME else {"committed": b'"committed"' in body})
        one.close()

    began = time.perf_counter()
    await asyncio.gather(*[initiator() for _ in range(at_a_time)])
    return count / (time.perf_counter() - began), took, ends


def rates(node: PrivateNode, participant: Participant) -> list[Finding]:
    """Durable transactions of two branches per second; the median of three rounds."""
    findings = []
    for mode, goal in (("saga", 1500), ("tcc", 1000)):
        asyncio.run(_load(node, mode, participant.branches(2), 1000))  # warms up
        rounds = [asyncio.run(_load(node, mode, participant.branches(2), 4000)) for _ in range(3)]
        if not all(end["committed"] for _, _, ends in rounds for end in ends):
            raise RuntimeError("a transaction did not commit")
        took = [seconds for _, all_took, _ in rounds for seconds in all_took]
        findings.append(
            Finding(
                claim=f"durable {mode} of two branches, {AT_A_TIME} at a time",
                figure=round(statistics.median(rate for rate, _, _ in rounds)),
                unit="/s",
                goal=goal,
                at_least=True,
                details={
                    "rounds": [round(rate) for rate, _, _ in rounds],
                    "p50 ms": round(quantile(took, 0.5) * 1000, 1),
                    "p99 ms": round(quantile(took, 0.99) * 1000, 1),
                },
            )
        )
    return findings


def parallel_phase(node: PrivateNode, participant: Participant) -> Finding:
    """A phase of 8 branches of 20 ms each; the slower of the two phases of a TCC, the median of 50."""
    _, _, ends = asyncio.run(_load(node, "tcc", participant.branches(8, "slow/20"), 50, at_a_time=1))
    phases = [
        [(end["decided_at"] - end["began_at"]) * 1000 for end in ends],
        [(end["ended_at"] - end["decided_at"]) * 1000 for end in ends],
    ]
    predicted = phase_latency([0.02] * 8, parallel=True) * 1000
    return Finding(
        claim="a phase of 8 branches of 20 ms each",
        figure=round(max(statistics.median(phase) for phase in phases), 1),
        unit="ms",
        goal=25,
        details={
            "try, with the begin made durable": round(statistics.median(phases[0]), 1),
            "confirm, with the decision": round(statistics.median(phases[1]), 1),
            "M4 (the slowest branch)": predicted,
        },
    )


def dead_participant(node: PrivateNode, participant: Participant) -> Finding:
    """Throughput of others while as many again call a participant that is dead."""
    port = free_port()
    dead = Participant(port).branches(2)

    async def both() -> float:
        storm = asyncio.create_task(
            _load(node, "saga", dead, 100_000, at_a_time=AT_A_TIME, wait_ms=2000, timeout_ms=1500)
        )
        await asyncio.sleep(1.0)
        rate, _, _ = await _load(node, "saga", participant.branches(2), 4000)
        storm.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await storm
        return rate

    alone = [asyncio.run(_load(node, "saga", participant.branches(2), 4000))[0] for _ in range(2)]
    beside = [asyncio.run(both()) for _ in range(2)]
    return Finding(
        claim="throughput of others while one participant is dead, as a share of that without",
        figure=round(100 * max(beside) / max(alone), 1),
        unit="%",
        goal=90,
        at_least=True,
        details={"alone": [round(r) for r in alone], "beside": [round(r) for r in beside]},
    )


def model(node: PrivateNode, participant: Participant) -> Finding:
    """M4 beside the figures: the share of sagas of three branches, each refusing 10 %, that commits."""
    count = 2000
    _, _, ends = asyncio.run(_load(node, "saga", participant.branches(3, "refuse/100"), count))
    share = sum(end["committed"] for end in ends) / count
    predicted = commit_probability([0.9] * 3)
    return Finding(
        claim="M4: predicted share that commits, less the measured",
        figure=round(abs(predicted - share), 4),
        unit="",
        goal=0.05,  # above four standard deviations of 2000 trials
        details={"predicted": round(predicted, 4), "measured": round(share, 4)},
    )


def growth(node: PrivateNode, participant: Participant) -> Finding:
    """What is remembered, and the store's size, after more transactions than are remembered."""
    store = node.folder.store_file
    sizes = []
    for _ in range(3):
        asyncio.run(_load(node, "saga", participant.branches(2), 20_000))
        sizes.append(sum(f.stat().st_size for f in store.parent.glob(store.name + "*")) / 1e6)
    return Finding(
        claim="final transactions remembered after 60 000 more",
        figure=_remembered(node),
        unit="",
        goal=REMEMBERED_MAX,
        details={"store MB after each 20 000": [round(size, 1) for size in sizes]},
    )


def _remembered(node: PrivateNode) -> int:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(node.folder.api_socket))
    connection = HTTPConnection("node")
    connection.sock = sock
    connection.request("GET", "/v1/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.search(r"^unisono_transactions_remembered (\d+)", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"the node does not tell what it remembers: {text[-500:]}")
    return int(found[1])


def recovery(node: PrivateNode) -> Finding:
    """``kill -9`` of the node with 10 000 open transactions, to all of them moving again."""
    port = free_port()
    gone = Participant(port)
    asyncio.run(_load(node, "saga", gone.branches(2), OPEN, wait_ms=0, timeout_ms=3_600_000))
    node.kill()
    line = f" {OPEN} open transactions go on"
    log = node.path / "node.log"
    with Participant(port) as participant:
        began = time.time()
        starting = threading.Thread(target=node.start)
        starting.start()
        resumed = wait_until(lambda: line in log.read_text(), "all have been taken up", interval=0.005)
        starting.join()
        answered = time.time() - began
        wait_until(lambda: participant.first_call() is not None, "a participant is called")
        first = participant.first_call()
        if first is None:
            raise RuntimeError("the participant forgot its first call")
    return Finding(
        claim=f"node started again to all {OPEN} open transactions moving",
        figure=round(resumed * 1000),
        unit="ms",
        goal=500,
        details={
            "of it, from the store opened to all found": re.findall(
                r"found again in (\d+ ms)", log.read_text()
            )[-1],
            "first call ms": round((first - began) * 1000),
            "API answers ms": round(answered * 1000),
        },
    )


def main() -> int:
    """Measure everything."""
    findings: list[Finding] = []
    with PrivateNode() as node, Participant() as participant:
        findings += rates(node, participant)
        findings.append(parallel_phase(node, participant))
        findings.append(model(node, participant))
        findings.append(dead_participant(node, participant))
        findings.append(growth(node, participant))
    with PrivateNode() as node:
        findings.append(recovery(node))
    return report("transactions", findings)


if __name__ == "__main__":
    sys.exit(main())
