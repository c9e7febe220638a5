"""The coordinator alone: participants that do nothing, so that what is measured is what it costs."""

from __future__ import annotations

import asyncio
import re
import socket
import statistics
import time
from contextlib import suppress
from http.client import HTTPConnection

from bench.harness import Finding, PrivateNode, free_port, quantile, wait_until
from bench.transactions.load import AT_A_TIME, Participant, load
from unisono.queueing.commit import commit_probability, phase_latency

OPEN = 10_000
REMEMBERED_MAX = 50_000  # as docs/reference/transactions.md promises


def rates(node: PrivateNode, participant: Participant) -> list[Finding]:
    """Durable transactions of two branches per second; the median of three rounds."""
    findings = []
    for mode, goal in (("saga", 1500), ("tcc", 1000)):
        asyncio.run(load(node, mode, participant.branches(2), 1000))  # warms up
        rounds = [asyncio.run(load(node, mode, participant.branches(2), 4000)) for _ in range(3)]
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
    _, _, ends = asyncio.run(load(node, "tcc", participant.branches(8, "slow/20"), 50, at_a_time=1))
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
            load(node, "saga", dead, 100_000, at_a_time=AT_A_TIME, wait_ms=2000, timeout_ms=1500)
        )
        await asyncio.sleep(1.0)
        rate, _, _ = await load(node, "saga", participant.branches(2), 4000)
        storm.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await storm
        return rate

    alone = [asyncio.run(load(node, "saga", participant.branches(2), 4000))[0] for _ in range(2)]
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
    _, _, ends = asyncio.run(load(node, "saga", participant.branches(3, "refuse/100"), count))
    share = sum(end["committed"] for end in ends) / count
    predicted = commit_probability([0.9] * 3)
    return Finding(
        claim="M4: predicted share that commits, less the measured",
        figure=round(abs(predicted - share), 4),
        unit="",
        goal=0.05,  # above four standard deviations of 2000 trials
        details={"predicted": round(predicted, 4), "measured": round(share, 4)},
    )


def recovery(node: PrivateNode) -> Finding:
    """
    ``kill -9`` of the node with 10 000 open transactions, to all of them moving again.

    It counts from the command ``unisono node`` to the moment at which each has its next call under way or in
    its participant's line.
    """
    port = free_port()
    gone = Participant(port)
    asyncio.run(load(node, "saga", gone.branches(2), OPEN, wait_ms=0, timeout_ms=3_600_000))
    node.kill()
    line = f" {OPEN} open transactions go on"
    log = node.path / "node.log"
    before = log.stat().st_size

    def said() -> str:
        return log.read_bytes()[before:].decode()

    with Participant(port) as participant:
        began, clock = time.time(), time.perf_counter()
        node.spawn()
        opened = wait_until(lambda: "the store is" in said(), "the store is open", interval=0.001)
        moving = wait_until(lambda: line in said(), "all have been taken up", interval=0.001) + opened
        node.wait_for_api()
        answered = time.perf_counter() - clock
        wait_until(lambda: participant.first_call() is not None, "a participant is called")
        first = participant.first_call()
        if first is None:
            raise RuntimeError("the participant forgot its first call")
        wait_until(lambda: figure_of(node, "unisono_transactions_open") == 0, "all have ended")
        ended = time.perf_counter() - clock
    (own,) = re.findall(r"found again in (\d+) ms", said())
    return Finding(
        claim=f"`unisono node` started again to all {OPEN} open transactions moving",
        figure=round(moving * 1000),
        unit="ms",
        goal=500,
        details={
            "of it, until the store was open": f"{opened * 1000:.0f} ms",
            "from there, with the term won": f"{own} ms",
            "first call": f"{(first - began) * 1000:.0f} ms",
            "API answers": f"{answered * 1000:.0f} ms",
            "all committed": f"{ended:.1f} s",
        },
    )


def figure_of(node: PrivateNode, name: str) -> int:
    """One of the node's metrics."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(node.folder.api_socket))
    connection = HTTPConnection("node")
    connection.sock = sock
    connection.request("GET", "/v1/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.search(rf"^{name} (\d+)", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"the node does not tell {name}: {text[-500:]}")
    return int(found[1])
