"""
Claims: what a stamp of the hybrid logical clock costs, and how many timestamps the oracle gives out.

    python -m bench.timestamps [--rounds 5] [--seconds 3]

The clock is that of the engine, called from Python in this thread; the figure holds what the loop costs.

The oracle is that of our node, on SQLite with full sync, asked over HTTP/1.1 at the services' socket by
nghttp2's h2load: 64 connections that each ask again as soon as they are answered. With batching, each of them
stands for a process whose callers share a request, as ``client.tso()`` has it: so many that 1,000 wait at a
time. Without, each request is for one timestamp. A fresh etcd member beside it does durable puts over gRPC,
in turns with our rounds, on the same disk; medians are compared. What one Python process gets through the
client, with 64 tasks that each wait for one timestamp after the other, is in the details.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.harness import HERE, Finding, report
from bench.state import CLIENTS, EtcdPeer, OurNode, etcd_peer, our_node
from unisono._engine import Clock
from unisono.client.shared import Shared
from unisono.client.stamping import Clock as ClientClock

CALLS = 1000  # of the clock, in a sample
SAMPLES = 2000
SHARED_BY = 1000  # callers of a process that wait at a time
STAMP_GOAL_US = 0.3
BATCHED_GOAL = 2e6
UNBATCHED_GOAL = 3.0


def main() -> int:
    """Measure in turns and report; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.timestamps")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left running then either
    for program, package in (("etcd", "etcd-server"), ("h2load", "nghttp2-client")):
        if shutil.which(program) is None:
            print(f"{program} is missing (Debian and Ubuntu: apt install {package})", file=sys.stderr)
            return 1
    stamps = _stamps()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=HERE, prefix=".timestamps-")))
        node = stack.enter_context(our_node(folder / "node"))
        etcd = stack.enter_context(etcd_peer(folder / "etcd"))
        rates = _rates(_ways(node, etcd, given.seconds, folder), given.rounds)
    return report("timestamps", [stamps, *_oracle(rates)])


def _stamps() -> Finding:
    own, client = Clock(), ClientClock()
    engine_us, client_us = _call_us(own.now), _call_us(client.now)
    return Finding(
        claim="a stamp of the engine's clock, from Python; median",
        figure=round(engine_us, 3),
        unit="us",
        goal=STAMP_GOAL_US,
        details={"client.clock.now()": f"{client_us:.3f} us"},
    )


def _call_us(call: Callable[[], int]) -> float:
    """Microseconds of one call: the median of samples of many calls."""
    found = []
    for _ in range(SAMPLES):
        began = time.perf_counter()
        for _ in range(CALLS):
            call()
        found.append(time.perf_counter() - began)
    return statistics.median(found) / CALLS * 1e6


def _ways(node: OurNode, etcd: EtcdPeer, seconds: float, folder: Path) -> dict[str, Callable[[], float]]:
    alone = node.asked_for_timestamps(1, seconds, folder)
    shared = node.asked_for_timestamps(SHARED_BY, seconds, folder)
    return {
        "batched": lambda: shared() * SHARED_BY,
        "unbatched": alone,
        "etcd": etcd.asked_by_grpc("puts", seconds, folder),
        "client": lambda: asyncio.run(_through_the_client(node.shared(), seconds)),
    }


def _rates(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Medians of so many rounds in turns, after one for warming up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for n in range(rounds + 1):
        for name, way in ways.items():
            rate = way()
            if n:
                found[name].append(rate)
    return {name: statistics.median(rates) for name, rates in found.items()}


async def _through_the_client(shared: Shared, seconds: float) -> float:
    """Timestamps per second of tasks of one process that each wait for one after the other."""
    ends, count = time.perf_counter() + seconds, 0

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < ends:
            await shared.tso()
            count += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(caller())
    return count / seconds


def _oracle(rates: dict[str, float]) -> list[Finding]:
    return [
        Finding(
            claim=f"timestamps/s, {CLIENTS} clients that share requests among {SHARED_BY:,} callers each",
            figure=round(rates["batched"]),
            unit="/s",
            goal=BATCHED_GOAL,
            details={"one Python process with 64 tasks": f"{rates['client']:,.0f}/s"},
            at_least=True,
        ),
        Finding(
            claim=f"timestamps/s, {CLIENTS} clients, one in a request, as a multiple of etcd's puts/s",
            figure=round(rates["unbatched"] / rates["etcd"], 2),
            unit="x",
            goal=UNBATCHED_GOAL,
            details={
                "unisono": f"{rates['unbatched']:,.0f}/s",
                "etcd, gRPC": f"{rates['etcd']:,.0f}/s",
            },
            at_least=True,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
