"""Concurrent clients of one store see one order, as if each operation happened at one moment."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

import pytest

from tests.store.asking import put, write
from tests.store.linearizability import Operation, linearizable
from unisono.store.base import Entry
from unisono.store.sqlite import SqliteStore


class StaleStore(SqliteStore):
    """A planted fault: a read shows what was before the last change it knows of."""

    before: Entry | None = None

    async def get(self, key: str) -> Entry | None:
        entry = await super().get(key)
        stale, self.before = self.before, entry
        return stale


async def record(store: SqliteStore, seed: int) -> list[Operation]:
    """What 6 clients see who read and write one key for a while; each write has a value of its own."""
    clock, values = itertools.count(), itertools.count(1)
    history: list[Operation] = []

    async def client(chance: random.Random) -> None:
        for _ in range(12):
            called = next(clock)
            if chance.random() < 0.4:
                value = next(values)
                await write(store, put("register", b"%d" % value))
                history.append(Operation("write", value, called, next(clock)))
            else:
                entry = await store.get("register")
                history.append(Operation("read", int(entry.value) if entry else 0, called, next(clock)))
                await asyncio.sleep(chance.choice((0, 0.0005)))

    await asyncio.gather(*(client(random.Random(seed * 10 + n)) for n in range(6)))
    return history


@pytest.mark.parametrize("seed", range(8))
async def test_reads_and_writes_are_linearizable(tmp_path: Path, seed: int) -> None:
    """Whatever way clients interleave, one order explains what they saw."""
    store = await SqliteStore.open(tmp_path / "store.db")

    history = await record(store, seed)

    assert linearizable(history)
    await store.close()


async def test_a_stale_read_is_found(tmp_path: Path) -> None:
    """The check can fail: a store that shows an old value is caught."""
    store = await StaleStore.open(tmp_path / "store.db")

    history = await record(store, 1)

    assert not linearizable(history)
    await store.close()


def test_the_checker_knows_good_from_bad() -> None:
    """Overlapping operations may go in either order, others may not."""
    write_1, write_2 = Operation("write", 1, 0, 1), Operation("write", 2, 2, 5)

    assert linearizable([write_1, write_2, Operation("read", 1, 3, 4)])
    assert linearizable([write_1, write_2, Operation("read", 2, 3, 4)])
    assert linearizable([write_1, write_2, Operation("read", 2, 3, 4), Operation("read", 2, 6, 7)])
    assert not linearizable([write_1, write_2, Operation("read", 1, 6, 7)])
    assert not linearizable([write_1, write_2, Operation("read", 0, 3, 4)])
    assert not linearizable([write_1, write_2, Operation("read", 2, 3, 4), Operation("read", 1, 6, 7)])
