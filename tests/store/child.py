"""
Processes that the crash tests start, and kill: each function is one, given the store's path.

What a child knows it says at once, one JSON value per line, in one write: a line that the test reads was
true before the child could be killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from unisono.store.base import MAX_VALUE_BYTES, Compare, Field, Put, StoreError
from unisono.store.sqlite import SqliteStore

CLIENTS = 8


def say(value: object) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")


async def write(path: Path) -> None:
    """Clients that count up, each in two keys that must never differ, some of the time under a lease."""
    store = await SqliteStore.open(path, keep_revisions=300)

    async def client(number: int) -> None:
        entry = await store.get(f"left/{number}")
        count = int(entry.value) if entry is not None else 0
        chance = random.Random(os.getpid() * CLIENTS + number)
        while True:
            count += 1
            value = b"%d" % count
            left, right = Put(key=f"left/{number}", value=value), Put(key=f"right/{number}", value=value)
            outcome = await store.transact(success=[left, right])
            say(["wrote", number, count, outcome.revision])
            if chance.random() < 0.1:
                lease = await store.grant(60.0)
                brief = Put(key=f"brief/{number}", value=value, lease=lease)
                await store.transact(success=[brief])
                await store.revoke(lease)
                say(["revoked", number, count, lease])

    say(["open"])
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))


async def write_alone(path: Path) -> None:
    """One client that counts up, so that each write is a commit of its own."""
    store = await SqliteStore.open(path)
    count = 0
    while True:
        count += 1
        await store.transact(success=[Put(key="count", value=b"%d" % count)])
        say(count)


async def read(path: Path) -> None:
    """Open, say what is there, and wait to be killed."""
    store = await SqliteStore.open(path)
    entry = await store.get("count")
    say(int(entry.value) if entry is not None else 0)
    await asyncio.Event().wait()


async def fail(path: Path) -> None:
    """Write one after the other until it fails, then once more; then read, close and end."""
    store = await SqliteStore.open(path)
    count = 0
    try:
        while True:
            await store.transact(success=[Put(key="count", value=b"%d" % (count + 1))])
            count += 1
    except StoreError as error:
        say([count, type(error).__name__, str(error)])
    try:
        await store.transact(success=[Put(key="later", value=b"")])
    except StoreError as error:
        say([type(error).__name__, str(error)])
    entry = await store.get("count")
    assert entry is not None
    say(int(entry.value))
    await store.close()


async def fill(path: Path) -> None:
    """Write until the file size limit is met; see that nothing was changed; lift the limit and go on."""
    store = await SqliteStore.open(path)
    limit_files(400_000)
    await _until_full(store, limit_files)


async def fill_disk(path: Path) -> None:
    """The same on a disk that is full while the file named by FAULT_FULL exists."""
    store = await SqliteStore.open(path)
    await store.transact(success=[Put(key="k/before", value=b"")])
    full = os.environ["FAULT_FULL"]
    os.close(os.open(full, os.O_CREAT))
    await _until_full(store, lambda: os.unlink(full))


async def _until_full(store: SqliteStore, make_room: Callable[[], None]) -> None:
    watch = store.watch("", after=0)
    errors: list[str] = []
    while not errors:
        puts = [Put(key=f"k/{random.random()}", value=b"x" * 5000) for _ in range(3)]
        done = await asyncio.gather(*(store.transact(success=[put]) for put in puts), return_exceptions=True)
        errors = [f"{type(error).__name__}: {error}" for error in done if isinstance(error, StoreError)]
    say(errors)
    before = await store.scan("")
    make_room()
    outcome = await store.transact(success=[Put(key="room", value=b"")])
    after = await store.scan("")
    seen = [(await anext(watch)).revision for _ in range(outcome.revision)]
    say(
        {
            "kept": before.entries == after.entries[: len(before.entries)],
            "new": [entry.key for entry in after.entries[len(before.entries) :]],
            "next": outcome.revision == before.revision + 1,
            "gapless": seen == list(range(1, outcome.revision + 1)),
        }
    )
    await store.close()


async def undermine(path: Path) -> None:
    """
    Two batches at once: the first finds no room, the second would, but was decided on top of the first.

    The first is two times as large as a batch may be, so that the second can't be in it.
    """
    store = await SqliteStore.open(path)
    await store.transact(success=[Put(key="count", value=b"1")])
    limit_files(2_000_000)
    # The writer's thread, once awake, waits so long for its turn: all of them are asked for before it takes
    # its batch. With the usual 5 ms a busy machine let it take the first few alone, for which there is room.
    sys.setswitchinterval(60.0)
    ghosts = [Put(key=f"ghost/{n}", value=b"x" * MAX_VALUE_BYTES) for n in range(32)]
    seen = Compare(key="ghost/0", field=Field.CREATED, target=2)
    done = await asyncio.gather(
        *(store.transact(success=[ghost]) for ghost in ghosts),
        store.transact(compares=[seen], success=[Put(key="saw-a-ghost", value=b"")]),
        store.transact(compares=[seen]),
        return_exceptions=True,
    )
    say([type(error).__name__ for error in done])
    outcome = await store.transact(compares=[seen], failure=[Put(key="count", value=b"2")])
    say([outcome.succeeded, outcome.revision, [entry.key for entry in (await store.scan("")).entries]])
    await store.close()


async def flood(path: Path) -> None:
    """More at once than may wait; there is no room on the disk either, so that it ends soon."""
    store = await SqliteStore.open(path)
    limit_files(1_000_000)
    value = b"x" * (MAX_VALUE_BYTES - 1000)
    puts = [Put(key=f"k{n}", value=value) for n in range(8)]
    done = await asyncio.gather(*(store.transact(success=puts) for _ in range(40)), return_exceptions=True)
    say([str(error) for error in done])
    limit_files()
    say((await store.transact(success=puts)).revision)
    await store.close()


def limit_files(size: int | None = None) -> None:
    """No file may grow beyond ``size`` bytes."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](Path(sys.argv[2])))
