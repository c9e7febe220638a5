"""XA on two databases of PostgreSQL, and beside it the two plain commits that it makes one of."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.harness import Finding, PrivateNode, free_port, listens, quantile, wait_until
from bench.transactions.bank import ACCOUNTS
from bench.transactions.load import AT_A_TIME, HERE, Asker, Branches, load
from bench.transactions.postgres import Postgres

BANKS = ("north", "south")
_COUNT = 2000  # transactions in a round
_ALONE = 200  # and one at a time


def xa(node: PrivateNode) -> list[Finding]:
    """
    How many a second, with participants that do nothing and with banks on the SDK, and how long one takes at
    such banks when there is no other.
    """
    with Postgres(*BANKS) as server:
        with _participants(server, "prepared.py") as ports:
            idle = _rounds(node, ports)
        with _participants(server, "bank.py") as ports:
            busy = _rounds(node, ports)
            bound = statistics.median([asyncio.run(_plain_rate(ports)) for _ in range(3)])
            alone: list[float] = []
            plain: dict[str, list[float]] = {"one after the other": [], "at the same time": []}
            for _ in range(3):
                alone += asyncio.run(load(node, "xa", _branches(ports), _ALONE, at_a_time=1))[1]
                for how in plain:
                    plain[how] += asyncio.run(_plain(ports, parallel=how == "at the same time"))
        left = sum(server.ask(bank, "SELECT count(*) FROM pg_prepared_xacts")[0][0] for bank in BANKS)
        if left:
            raise RuntimeError(f"{left} transactions were left prepared")
    middle = {how: statistics.median(found) for how, found in plain.items()}
    one = statistics.median(alone)
    banks_rate = statistics.median(rate for rate, _ in busy)
    return [
        Finding(
            claim=f"XA on two databases of PostgreSQL, participants that do nothing, {AT_A_TIME} at a time",
            figure=round(statistics.median(rate for rate, _ in idle)),
            unit="/s",
            goal=1000,
            at_least=True,
            details={
                **_told(idle),
                "banks on the SDK, /s": round(banks_rate),
                **{f"at the banks, {name}": figure for name, figure in _told(busy).items()},
                f"two plain commits at the same banks, {AT_A_TIME} at a time, /s": round(bound),
            },
        ),
        Finding(
            claim="XA, one at a time, as a multiple of two plain commits at the same banks",
            figure=round(one / middle["one after the other"], 2),
            unit="x",
            goal=2.0,
            details={
                "XA p50 ms": round(one * 1000, 2),
                **{f"plain, {how}, p50 ms": round(found * 1000, 2) for how, found in middle.items()},
                "as a multiple of the latter": round(one / middle["at the same time"], 2),
            },
        ),
    ]


def _branches(ports: list[int]) -> Branches:
    def made() -> list[dict[str, Any]]:
        return [
            {"id": bank, "url": f"http://127.0.0.1:{port}/xa", "payload": _entry()}
            for bank, port in zip(BANKS, ports, strict=True)
        ]

    return made


def _rounds(node: PrivateNode, ports: list[int]) -> list[tuple[float, list[float]]]:
    """Of three rounds: transactions per second, and the seconds that each took."""
    branches = _branches(ports)
    asyncio.run(load(node, "xa", branches, 500))  # warms up
    rounds = [asyncio.run(load(node, "xa", branches, _COUNT)) for _ in range(3)]
    if not all(end["committed"] for _, _, ends in rounds for end in ends):
        raise RuntimeError("a transaction did not commit")
    return [(rate, took) for rate, took, _ in rounds]


def _told(rounds: list[tuple[float, list[float]]]) -> dict[str, Any]:
    took = [seconds for _, all_took in rounds for seconds in all_took]
    return {
        "rounds": [round(rate) for rate, _ in rounds],
        "p50 ms": round(quantile(took, 0.5) * 1000, 1),
        "p99 ms": round(quantile(took, 0.99) * 1000, 1),
    }


def _entry() -> dict[str, int]:
    return {"account": random.randint(1, ACCOUNTS), "amount": 1}


@contextmanager
def _participants(server: Postgres, program: str) -> Iterator[list[int]]:
    """A process of a program for each bank; their ports."""
    ports = [free_port() for _ in BANKS]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for bank, port in zip(BANKS, ports, strict=True):
            command = [sys.executable, str(HERE / program), str(port), server.url(bank)]
            processes.append(subprocess.Popen(command))
        wait_until(lambda: all(map(listens, ports)), "the participants listen")
        yield ports
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def _plain_rate(ports: list[int]) -> float:
    """How many times a second two plain commits are made at the same time: what XA can't get beyond."""
    began = time.perf_counter()
    await asyncio.gather(*[_plain(ports, parallel=True, count=_COUNT // AT_A_TIME) for _ in range(AT_A_TIME)])
    return _COUNT // AT_A_TIME * AT_A_TIME / (time.perf_counter() - began)


async def _plain(ports: list[int], *, parallel: bool, count: int = _ALONE) -> list[float]:
    """Seconds that two plain commits took, at the same banks and without a coordinator."""
    banks = [await Asker.at_port(port) for port in ports]
    took = []

    async def change(bank: Asker) -> None:
        status, body = await bank.post("/plain", json.dumps(_entry()).encode())
        if status != 204:
            raise RuntimeError(f"a bank answered with {status}: {body!r}")

    for _ in range(count):
        began = time.perf_counter()
        if parallel:
            await asyncio.gather(*map(change, banks))
        else:
            for bank in banks:
                await change(bank)
        took.append(time.perf_counter() - began)
    for bank in banks:
        bank.close()
    return took
