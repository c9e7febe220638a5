"""Tables in shared memory follow the store: what is in them, how old they say they are, when they go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.state.virtual import FaultyStore, VirtualStore, now, virtual_loop
from unisono._engine import SharedReader, SharedValue, SharedWriter
from unisono.state.kv import Kv
from unisono.state.shared_memory import SharedMemory, Table
from unisono.state.tokens import Tokens
from unisono.store.base import Batch, Store
from unisono.timestamps.hybrid import HybridClock

TOKENS = Tokens(b"secret" * 4)
SIZE = 64 * 1024


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(namespace="shop", prefix="config/", path=tmp_path / "memory/shop/table", size=SIZE)


@asynccontextmanager
async def keeping(
    store: Store, table: Table, tell: Callable[[str, str], None] = lambda *_: None
) -> AsyncIterator[SharedMemory]:
    """A node's shared memory with this table, from when it can be read."""
    folder = table.path.parent.parent
    folder.mkdir(exist_ok=True)
    shared = SharedMemory(store, folder, HybridClock(), tell)
    shared.want([table])
    before = table.path.stat().st_ino if table.path.exists() else None
    running = asyncio.create_task(shared.run())
    try:
        await until(lambda: running.done() or (table.path.exists() and table.path.stat().st_ino != before))
        yield shared
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        with virtual_loop().work():  # that of the thread in which tables are made
            await asyncio.get_running_loop().shutdown_default_executor()


async def until(condition: Callable[[], bool]) -> None:
    """In virtual time; a test that hangs is ended by its limit."""
    while not condition():  # noqa: ASYNC110 - what another process or file shows is no event
        await asyncio.sleep(0.01)


def told(found: SharedValue | None) -> tuple[bytes, int] | None:
    return None if found is None else (found.value, found.revision)


async def test_it_holds_what_the_prefix_holds_and_follows(store: VirtualStore, table: Table) -> None:
    """What was there before and what comes after, with its revision and a stamp that rises; nothing else."""
    kv = Kv(store, "shop", TOKENS, clock=now)
    first = (await kv.put("config/a", b"1")).revision
    await kv.put("other/a", b"no")
    await Kv(store, "other", TOKENS, clock=now).put("config/a", b"no")
    async with keeping(store, table):
        reader = SharedReader(table.path)
        before = reader.get("config/a")
        second = (await kv.put("config/a", b"2")).revision
        await kv.put("config/b", b"3")
        last = (await kv.delete("config/b")).revision
        await until(lambda: reader.progress()[0] >= last)
        after = reader.get("config/a")

        assert ((b"1", first), (b"2", second)) == (told(before), told(after))
        assert before is not None
        assert before.timestamp is not None
        assert after is not None
        assert after.timestamp is not None
        assert before.timestamp < after.timestamp
        assert [None, None] == [reader.get(key) for key in ("config/b", "other/a")]


async def test_it_says_how_far_it_is_also_when_others_write(store: VirtualStore, table: Table) -> None:
    """A session that wrote elsewhere must know when memory has come so far."""
    async with keeping(store, table):
        reader = SharedReader(table.path)
        wrote = (await Kv(store, "shop", TOKENS, clock=now).put("other/a", b"1")).revision

        await until(lambda: reader.progress()[0] >= wrote)


async def test_while_the_store_answers_it_stays_young(store: VirtualStore, table: Table) -> None:
    """It asks again and again, and is as old as the last question."""
    async with keeping(store, table):
        reader = SharedReader(table.path)
        first = _as_of(reader)

        await until(lambda: _as_of(reader) > first + 1_000_000)


async def test_while_the_store_does_not_answer_it_grows_old(store: VirtualStore, table: Table) -> None:
    """It must not say that it is new when it can't know."""
    cut = FaultyStore(store, random.Random(1), faults=0.0)
    async with keeping(cut, table):
        reader = SharedReader(table.path)
        cut.cut = True
        await asyncio.sleep(1)
        first = _as_of(reader)
        await asyncio.sleep(10)

        assert abs(_as_of(reader) - first) < 1_000_000


async def test_without_a_table_nothing_is_asked(store: VirtualStore, tmp_path: Path) -> None:
    """A node that mirrors nothing sleeps: its loop has no timer to wake for."""
    running = asyncio.create_task(SharedMemory(store, tmp_path, HybridClock(), lambda *_: None).run())
    await asyncio.sleep(10)
    timers = [one for one in virtual_loop()._scheduled if not one.cancelled()]  # type: ignore[attr-defined]
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running

    assert not timers


async def test_a_compaction_that_overtakes_it_leads_to_a_new_table(store: VirtualStore, table: Table) -> None:
    """With all there is: readers go over to it, and miss neither a change nor a removal."""
    kv = Kv(store, "shop", TOKENS, clock=now)
    await kv.put("config/gone", b"1")
    behind = _Behind(store)
    async with keeping(behind, table):
        reader = SharedReader(table.path)
        behind.hold.clear()
        await kv.put("config/new", b"2")
        await kv.delete("config/gone")
        await store.compact((await store.scan("")).revision)
        behind.hold.set()
        await until(lambda: reader.progress()[2] == 2)

        assert reader.get("config/gone") is None
        new = reader.get("config/new")
        assert new is not None
        assert new.value == b"2"


async def test_what_finds_no_room_is_not_there_and_not_denied(store: VirtualStore, table: Table) -> None:
    """Neither the old value nor absence is believed; the rest is; an operator hears of it once."""
    kv = Kv(store, "shop", TOKENS, clock=now)
    await kv.put("config/small", b"1")
    await kv.put("config/grows", b"2")
    heard: list[tuple[str, str]] = []
    async with keeping(store, table, lambda kind, message: heard.append((kind, message))):
        reader = SharedReader(table.path)
        await kv.put("config/grows", bytes(SIZE))
        last = (await kv.put("config/grows", bytes(2 * SIZE))).revision
        await until(lambda: reader.progress()[0] >= last)

        for key in ("config/grows", "config/never"):
            with pytest.raises(BlockingIOError, match="no room for all"):
                reader.get(key)
        small = reader.get("config/small")
        assert small is not None
        assert small.value == b"1"
        assert ["shared-memory-full"] == [kind for kind, _ in heard]
        assert "shop/config/" in heard[0][1]


async def test_more_room_heals_it(store: VirtualStore, table: Table) -> None:
    """Another size is a new table in the old one's place."""
    kv = Kv(store, "shop", TOKENS, clock=now)
    await kv.put("config/large", bytes(SIZE))
    async with keeping(store, table) as shared:
        reader = SharedReader(table.path)
        shared.want([replace(table, size=4 * SIZE)])
        await until(lambda: reader.progress()[2] == 2)
        found = reader.get("config/large")

        assert found is not None
        assert len(found.value) == SIZE


async def test_what_is_wanted_no_more_goes_and_its_readers_learn_it(
    store: VirtualStore, table: Table
) -> None:
    """No file is left, and nobody reads for ever what is kept no more."""
    async with keeping(store, table) as shared:
        reader = SharedReader(table.path)
        shared.want([])
        await until(lambda: not table.path.parent.parent.exists())

        with pytest.raises(FileNotFoundError):
            reader.get("config/a")


async def test_what_an_earlier_node_left_is_taken_over_or_away(store: VirtualStore, table: Table) -> None:
    """Readers of before go over to the new table; an application that went meanwhile leaves nothing."""
    stale = table.path.parent.parent / "gone/table"
    for path in (table.path, stale):
        path.parent.mkdir(parents=True)
        SharedWriter(path, SIZE).publish(1)
    reader = SharedReader(table.path)
    await Kv(store, "shop", TOKENS, clock=now).put("config/a", b"1")
    async with keeping(store, table):
        found = reader.get("config/a")

        assert found is not None
        assert found.value == b"1"
        assert 2 == reader.progress()[2]
        assert not stale.parent.exists()


async def test_the_end_of_the_node_leaves_the_table(store: VirtualStore, table: Table) -> None:
    """Instances live on and read it; it grows old, and only its owner can read it."""
    await Kv(store, "shop", TOKENS, clock=now).put("config/a", b"1")
    async with keeping(store, table):
        reader = SharedReader(table.path)
    found = reader.get("config/a")

    assert found is not None
    assert found.value == b"1"
    assert 0o600 == table.path.stat().st_mode & 0o777


def _as_of(reader: SharedReader) -> int:
    """As of when the table was all there was, within what reading it takes."""
    import time  # noqa: PLC0415 - the machine's own, in a test of virtual time

    return time.monotonic_ns() - reader.progress()[1]


class _Behind(FaultyStore):
    """Its watches are held up while ``hold`` is not set, and then begin anew where they were."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, random.Random(1), faults=0.0)
        self.hold = asyncio.Event()
        self.hold.set()

    async def watch(
        self, prefix: str, *, after: int, marks: bool = False, without: tuple[str, ...] = ()
    ) -> AsyncIterator[Batch]:
        while True:
            async for batch in super().watch(prefix, after=after, marks=marks, without=without):
                if not self.hold.is_set():
                    await self.hold.wait()
                    break
                after = batch.revision
                yield batch
