"""
What is kept of transactions that are over: records and bytes, for longer than they are remembered.

A node remembers them for an hour, which no measurement waits for: by age it is measured on a coordinator in
this process whose clock runs 360 times as fast, by number on a node as it is.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.harness import Finding, PrivateNode
from bench.transactions.load import Participant, load
from bench.transactions.measures import figure_of
from unisono.store.sqlite import SqliteStore
from unisono.timestamps.hybrid import HybridClock
from unisono.transactions import records
from unisono.transactions.calls import HttpCaller
from unisono.transactions.coordinator import Coordinator
from unisono.transactions.modes import Mode
from unisono.transactions.retention import MAX_FINAL, RETENTION
from unisono.transactions.submission import BranchSpec, Submission

SPEED = 360.0  # one hour in ten seconds
HOURS = 5
RATE = 500  # transactions begun in a real second
_TIMEOUT_MS = 3_600_000  # of the fast clock
_AT_A_TIME = 16


def by_number(node: PrivateNode, participant: Participant) -> Finding:
    """After more transactions than are remembered."""
    store = node.folder.store_file
    sizes = []
    for _ in range(3):
        asyncio.run(load(node, "saga", participant.branches(2), 20_000))
        sizes.append(_megabytes(store))
    return Finding(
        claim="final transactions remembered after 60 000 more",
        figure=figure_of(node, "unisono_transactions_remembered"),
        unit="",
        goal=MAX_FINAL,
        details={"store MB after each 20 000": sizes},
    )


def by_age(participant: Participant) -> Finding:
    """Records in the store, less those that ended within the last hour, after four hours."""
    counts, sizes, begun, younger = asyncio.run(_age(participant))
    return Finding(
        claim=f"records kept after {HOURS} hours, per transaction that ended in the last one",
        figure=round(counts[-1] / max(1, younger), 3),
        unit="",
        goal=1.05,  # what ends takes along what is too old, so some may be left for a moment
        details={
            "transactions": begun,
            "of the last hour": younger,
            "records after each hour": counts,
            "store MB": sizes,
            "clock": f"{SPEED:g} times as fast",
        },
    )


async def _age(participant: Participant) -> tuple[list[int], list[float], int, int]:
    began = time.time()

    def now() -> float:
        return began + (time.time() - began) * SPEED

    with tempfile.TemporaryDirectory(prefix="unisono-bench-growth-") as folder:
        path = Path(folder) / "store.db"
        store, caller = await SqliteStore.open(path), HttpCaller()
        coordinator = Coordinator(store, "n1", caller, _NoServices(), stamp=HybridClock().now, now=now)
        serving = asyncio.create_task(coordinator.run())
        ends: list[float] = []
        counts, sizes = [], []
        try:
            for hour in range(1, HOURS + 1):
                until = began + hour * RETENTION
                work = [_initiate(coordinator, participant, now, until, ends) for _ in range(_AT_A_TIME)]
                await asyncio.gather(*work)
                counts.append(len((await store.scan(records.ROOT)).entries))
                sizes.append(_megabytes(path))
            younger = sum(end > now() - RETENTION for end in ends)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await caller.close()
            await store.close()
    return counts, sizes, len(ends), younger


async def _initiate(
    coordinator: Coordinator,
    participant: Participant,
    now: Callable[[], float],
    until: float,
    ends: list[float],
) -> None:
    loop = asyncio.get_running_loop()
    turn = loop.time()
    while now() < until:
        turn += _AT_A_TIME / RATE
        await asyncio.sleep(max(0.0, turn - loop.time()))
        branches = tuple(BranchSpec.of(one, "") for one in participant.branches(2)())
        gid = _gid_made(now())
        given = Submission(gid=gid, mode=Mode.SAGA, branches=branches, timeout_ms=_TIMEOUT_MS)
        begun = await coordinator.begin("bench", given, trusted=True)
        if begun.running is None:
            raise RuntimeError(f"{gid} is no new transaction")
        view = await coordinator.wait(begun.running, 30)
        if view["status"] != "committed":
            raise RuntimeError(f"{gid} did not commit: {view['reason']}")
        ends.append(view["ended_at"])


def _gid_made(at: float) -> str:
    """A UUIDv7 of that time: what is forgotten goes by it."""
    digits = f"{int(at * 1000):012x}7{random.getrandbits(12):03x}8{random.getrandbits(60):015x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class _NoServices:
    def port_of(self, application: str, service: str) -> int | None:
        return None

    def has_port(self, application: str, port: int) -> bool:
        return False

    def allows(self, application: str, url: str) -> bool:
        return False


def _megabytes(store: Path) -> float:
    return round(sum(file.stat().st_size for file in store.parent.glob(store.name + "*")) / 1e6, 1)
