"""
How many durable puts and linearizable gets a second the store on SQLite does, beside bare SQLite.

    python -m bench.store

The peer is the least that one can write by hand: one table, one loop, one commit per put, with the same
durability (WAL, synchronous=FULL). Values have 100 bytes, clients are tasks of one event loop that each wait
for an answer before they go on. All write to one folder beside this file, hence to the same disk. Rounds of
store and peer take turns, and medians are printed, for other work on the machine disturbs both.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from unisono.store.base import Put
from unisono.store.sqlite import SqliteStore

ROUNDS = 5
KEYS = 1000
VALUE = os.urandom(100)
PUTS_ALONE = 1500  # in a round
PUTS_TOGETHER = 20_000
GETS = 100_000
CLIENTS = 64


def bare_puts(path: Path) -> float:
    """Puts per second of bare SQLite: one commit each."""
    db = _bare(path)
    started = time.perf_counter()
    for n in range(PUTS_ALONE):
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT OR REPLACE INTO kv VALUES (?, ?)", (_key(n), VALUE))
        db.execute("COMMIT")
    rate = PUTS_ALONE / (time.perf_counter() - started)
    db.close()
    return rate


def bare_gets(path: Path) -> float:
    """Gets per second of bare SQLite."""
    db = _bare(path)
    db.executemany("INSERT OR REPLACE INTO kv VALUES (?, ?)", ((_key(n), VALUE) for n in range(KEYS)))
    started = time.perf_counter()
    for n in range(GETS):
        db.execute("SELECT value FROM kv WHERE key = ?", (_key(n),)).fetchone()
    rate = GETS / (time.perf_counter() - started)
    db.close()
    return rate


def store_puts(path: Path, clients: int, count: int) -> float:
    """Puts per second of the store, each acknowledged before its client goes on."""

    async def client(store: SqliteStore, number: int) -> None:
        for n in range(number, count, clients):
            await store.transact(success=[Put(key=_key(n), value=VALUE)])

    async def run() -> float:
        store = await SqliteStore.open(path)
        started = time.perf_counter()
        await asyncio.gather(*(client(store, number) for number in range(clients)))
        rate = count / (time.perf_counter() - started)
        await store.close()
        return rate

    return asyncio.run(run())


def store_gets(path: Path, clients: int) -> float:
    """Gets per second of the store."""

    async def client(store: SqliteStore, number: int) -> None:
        for n in range(number, GETS, clients):
            await store.get(_key(n))

    async def run() -> float:
        store = await SqliteStore.open(path)
        await store.transact(success=[Put(key=_key(n), value=VALUE) for n in range(KEYS)])
        started = time.perf_counter()
        await asyncio.gather(*(client(store, number) for number in range(clients)))
        rate = GETS / (time.perf_counter() - started)
        await store.close()
        return rate

    return asyncio.run(run())


def main() -> None:
    """Measure everything in turns and print a table."""
    peers: dict[str, Callable[[Path], float]] = {"puts": bare_puts, "gets": bare_gets}
    ours: dict[tuple[str, int], Callable[[Path], float]] = {
        ("puts", 1): lambda path: store_puts(path, 1, PUTS_ALONE),
        ("puts", CLIENTS): lambda path: store_puts(path, CLIENTS, PUTS_TOGETHER),
        ("gets", 1): lambda path: store_gets(path, 1),
        ("gets", CLIENTS): lambda path: store_gets(path, CLIENTS),
    }
    peer_rates: dict[str, list[float]] = {what: [] for what in peers}
    our_rates: dict[tuple[str, int], list[float]] = {what: [] for what in ours}
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent, prefix=".store-") as folder:
        for number in range(ROUNDS):
            for what, measure in peers.items():
                peer_rates[what].append(measure(Path(folder) / f"bare-{what}-{number}.db"))
            for (what, clients), measure in ours.items():
                path = Path(folder) / f"store-{what}-{clients}-{number}.db"
                our_rates[what, clients].append(measure(path))
    print(f"{'':24}{'store':>12}{'bare SQLite':>14}{'ratio':>8}")
    for (what, clients), rates in our_rates.items():
        rate, peer = statistics.median(rates), statistics.median(peer_rates[what])
        title = f"{what}/s, {clients} client{'s' if clients > 1 else ''}"
        print(f"{title:24}{rate:12,.0f}{peer:14,.0f}{rate / peer:8.2f}")


def _bare(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE kv (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
    return db


def _key(n: int) -> str:
    return f"key/{n % KEYS:04}"


if __name__ == "__main__":
    main()
