"""What the store on SQLite keeps of its past, and how it forgets the rest."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.store.asking import LIMIT, keys, put, take, write
from tests.store.sqlite_files import SqliteHarness
from unisono.store.base import Batch, Compacted, Delete
from unisono.store.sqlite import SqliteStore


async def collect(watch: AsyncIterator[Batch], revisions: list[int]) -> None:
    async with asyncio.timeout(LIMIT):
        async for batch in watch:
            revisions.append(batch.revision)


class TestRetention:
    """The store compacts itself."""

    async def test_old_revisions_go_by_themselves(self, tmp_path: Path) -> None:
        """At least the last revisions asked for are kept, and soon not many more."""
        store = await SqliteStore.open(tmp_path / "store.db", keep_revisions=100)
        for n in range(20):
            revision = (await asyncio.gather(*(write(store, put(f"k{m % 3}")) for m in range(50))))[-1]
            await store.scan("", revision=revision - min(99, 50 * n))
        await store.compact(0)  # behind whatever compacts in the background

        with pytest.raises(Compacted) as error:
            await store.scan("", revision=revision - 500)
        assert revision - 200 < error.value.revision <= revision - 100
        await store.close()

    async def test_the_file_stops_growing(self, tmp_path: Path) -> None:
        """Overwriting the same keys for ever takes a bounded file."""
        path = tmp_path / "store.db"
        store = await SqliteStore.open(path, keep_revisions=50)
        sizes = []
        for n in range(1500):
            await write(store, put(f"k{n % 5}", os.urandom(4000)), put("counter", b"%d" % n))
            if n % 500 == 499:
                await store.close()
                sizes.append(path.stat().st_size)
                store = await SqliteStore.open(path, keep_revisions=50)

        assert sizes[-1] < 2 * 1024 * 1024  # 6 MB were written
        assert sizes[-1] <= sizes[0] * 1.5
        await store.close()

    async def test_large_values_do_not_fill_the_disk(self, tmp_path: Path) -> None:
        """Few revisions can be many bytes."""
        path = tmp_path / "store.db"
        store = await SqliteStore.open(path, keep_bytes=4 * 1024 * 1024)
        for _ in range(60):
            await write(store, put("large", os.urandom(1024 * 1024)))
        await store.compact(0)  # behind whatever compacts in the background

        with pytest.raises(Compacted):
            await store.scan("", revision=20)
        await store.close()
        assert path.stat().st_size < 16 * 1024 * 1024  # 60 MB were written

    async def test_rows_made_after_a_compacted_end_go_too(self, harness: SqliteHarness) -> None:
        """When compaction took the last rows, those made after reopening are compacted like any other."""
        await write(harness.store, put("a"))
        await harness.store.compact(await write(harness.store, Delete(key="a")))
        store = await harness.reopen()
        for _ in range(3):
            revision = await write(store, put("b"))
        await store.compact(revision)
        await store.close()

        with sqlite3.connect(harness.path) as db:
            assert db.execute("SELECT count(*) FROM change").fetchone() == (1,)
        db.close()

    async def test_compactions_at_once_never_go_back(self, harness: SqliteHarness) -> None:
        """Of two sent at once the later revision counts, also after reopening."""
        revisions = [await write(harness.store, put("k")) for _ in range(5)]
        await asyncio.gather(harness.store.compact(revisions[4]), harness.store.compact(revisions[1]))
        store = await harness.reopen()

        with pytest.raises(Compacted):
            await store.scan("", revision=revisions[2])

    async def test_compaction_goes_on_after_a_crash(self, harness: SqliteHarness) -> None:
        """What was marked as compacted but not yet deleted is deleted by the next compaction."""
        for n in range(20):
            revision = await write(harness.store, put("k", b"%d" % n))
        await harness.store.close()
        with sqlite3.connect(harness.path) as db:
            db.execute("UPDATE mark SET compacted = ?", (revision,))
        db.close()

        store = await harness.open()
        with pytest.raises(Compacted):
            await store.scan("", revision=revision - 1)
        await store.compact(revision)
        await store.close()

        with sqlite3.connect(harness.path) as db:
            assert db.execute("SELECT count(*) FROM change").fetchone() == (1,)
        db.close()

    async def test_compaction_in_the_middle_of_a_watch(self, harness: SqliteHarness) -> None:
        """A watch that reads the past when it is compacted gives what it has, then says so."""
        store = harness.store
        big = b"x" * 1_000_000
        start = await write(store, put("a"))
        for _ in range(12):
            revision = await write(store, put("big", big))
        watch = store.watch("big", after=start)
        (first,) = await take(watch, 1)
        await store.compact(revision)

        seen = [first.revision]
        with pytest.raises(Compacted):
            await collect(watch, seen)

        assert seen == list(range(start + 1, start + 1 + len(seen)))
        assert len(seen) < 12

    async def test_cancelling_a_read_of_the_past(self, harness: SqliteHarness) -> None:
        """A step given up while its page is read, and asked again at once, repeats nothing."""
        start = await write(harness.store, put("k"))
        revisions = [await write(harness.store, put("k")) for _ in range(5)]
        watch = harness.store.watch("k", after=start)
        seen: list[Batch] = []
        for _ in range(3):
            step = asyncio.create_task(take(watch, 1))
            await asyncio.sleep(0)
            step.cancel()
            await asyncio.wait([step])
            seen += [] if step.cancelled() else step.result()  # it may have been quick
        seen += await take(watch, 5 - len(seen))
        revisions.append(await write(harness.store, put("k")))
        seen += await take(watch, 1)

        assert [batch.revision for batch in seen] == revisions

    async def test_a_watch_catches_up_under_steady_writes(self, harness: SqliteHarness) -> None:
        """A write in each batch, or a past that ends with others' keys, needs no second page."""
        start = await write(harness.store, put("k"))
        await write(harness.store, put("k"))
        await write(harness.store, put("other"))
        watch = harness.store.watch("k", after=start)

        await asyncio.gather(take(watch, 1), write(harness.store, put("other")))

        assert watch._feed.live

    @pytest.mark.parametrize("ahead", [True, False])
    @pytest.mark.parametrize("lead", range(7))
    async def test_compaction_in_the_middle_of_a_scan(
        self, harness: SqliteHarness, lead: int, ahead: bool
    ) -> None:
        """A scan of the past that is overtaken by compaction, at whatever point, is right or Compacted."""
        store = harness.store
        big = [f"big/{n}" for n in range(7)]
        then = await store.scan("", revision=await write(store, *(put(key, b"x" * 1_000_000) for key in big)))
        for _ in range(3):
            await write(store, *(put(f"k/{n}") for n in range(1000)))
        await write(
            store, *(Delete(key=key) for key in reversed(big))
        )  # deleted last first, read first first
        for _ in range(3):
            newest = await write(store, *(put(f"k/{n}") for n in range(1000)))

        async def compact() -> None:
            for _ in range(lead):
                await write(store, put("tick"))  # so many batches later
            await store.compact(newest)

        compacting = asyncio.create_task(compact()) if ahead else None
        scanning = asyncio.create_task(store.scan("", revision=then.revision))
        compacting = compacting or asyncio.create_task(compact())
        found, _ = await asyncio.gather(scanning, compacting, return_exceptions=True)

        assert found == then or isinstance(found, Compacted)
        assert await write(store, put("after")) > newest

    async def test_the_past_in_many_pages(self, harness: SqliteHarness) -> None:
        """More history than one page holds, revisions larger than a page among it, is read whole."""
        store = harness.store
        start = await write(store, put("first"))
        for n in range(5):
            await write(store, *(put(f"k{n}/{m:04}") for m in range(1000)))
        then = await store.scan("")
        await write(store, Delete(key="k", prefix=True))
        last = await write(store, put("last"))

        batches = await take(store.watch("", after=start), 7)

        assert [len(batch.events) for batch in batches] == [1000] * 5 + [5000, 1]
        assert batches[-1].revision == last
        assert (await store.scan("", revision=then.revision)) == then
        assert keys((await store.scan("", revision=start)).entries) == ["first"]
