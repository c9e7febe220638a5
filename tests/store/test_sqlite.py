"""The store on SQLite: the conformance suite, and what only this engine does with its file."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.store.asking import put, take, write
from tests.store.conformance import Conformance
from tests.store.sqlite_files import SqliteHarness
from unisono.store.base import Broken, Delete
from unisono.store.sqlite import SqliteStore


class TestSqlite(Conformance):
    """Every claim of the suite."""


class TestLocal:
    """What only a store of one process can promise (:mod:`unisono.store.local`)."""

    async def test_a_follower_hears_of_a_commit_before_its_writer(self, harness: SqliteHarness) -> None:
        """So what it answers is never older than what anybody knows."""
        heard: list[int] = []
        harness.store.follow("", lambda changes, revision: heard.append(revision))

        for _ in range(20):
            revision = await write(harness.store, put("a"))
            assert revision == heard[-1]

    async def test_a_follower_misses_nothing(self, harness: SqliteHarness) -> None:
        """What is there when it begins, and each change after that, leases' ends among them."""
        store = harness.store
        await write(store, put("a"))
        kept: dict[str, bytes | None] = {}
        found = store.follow(
            "", lambda changes, _: kept.update((c.key, c.entry and c.entry.value) for c in changes)
        )
        kept.update((entry.key, entry.value) for entry in found.entries)
        lease = await store.grant(10)
        await write(store, put("b", lease=lease))
        await store.revoke(lease)
        await write(store, Delete(key="a"))

        assert {"a": None, "b": None} == kept

    async def test_each_put_of_many_has_a_revision_of_its_own(self, harness: SqliteHarness) -> None:
        """As if each had come alone, in their order; a watch sees them so."""
        store = harness.store
        before = (await store.scan("")).revision
        revisions = await store.put_each([(key, b"1") for key in ("a", "b", "a")])
        batches = await take(store.watch("", after=before), 3)

        assert [before + 1, before + 2, before + 3] == list(revisions)
        assert ["a", "b", "a"] == [event.key for batch in batches for event in batch.events]

    async def test_one_bad_put_of_many_leaves_all_undone(self, harness: SqliteHarness) -> None:
        """They succeed or fail together."""
        store = harness.store
        with pytest.raises(ValueError, match="a key is empty"):
            await store.put_each([("a", b"1"), ("", b"1")])

        assert () == (await store.scan("")).entries


class TestLeases:
    """Time, which the suite can't see through."""

    async def test_the_timer_ends_a_lease_by_the_real_clock(self, tmp_path: Path) -> None:
        """Nobody touches the store, and still the key of an ended lease goes."""
        store = await SqliteStore.open(tmp_path / "store.db")
        long = await store.grant(3600.0)
        short = await store.grant(0.05)
        await write(store, put("long", lease=long))
        revision = await write(store, put("short", lease=short))

        (batch,) = await take(store.watch("", after=revision), 1)

        assert [(event.key, event.entry) for event in batch.events] == [("short", None)]
        await store.close()

    async def test_a_lease_has_its_full_time_anew_after_reopening(self, harness: SqliteHarness) -> None:
        """However long the store was away, the holder has the whole time to come back."""
        lease = await harness.store.grant(10.0)
        await write(harness.store, put("k", lease=lease))
        await harness.pass_time(9.0)
        await harness.store.close()
        harness.clock.now += 3600.0

        store = await harness.open()
        await harness.pass_time(9.0)
        await store.keep_alive(lease)

        assert await store.get("k") is not None

    async def test_keeping_alive_writes_nothing(self, harness: SqliteHarness) -> None:
        """A heartbeat costs no disk: the log does not grow."""
        lease = await harness.store.grant(10.0)
        log = harness.path.with_name("store.db-wal")
        before = log.stat().st_size
        for _ in range(100):
            await harness.store.keep_alive(lease)

        await harness.store.revoke(12345)  # an answer from the store, behind which all is done
        assert log.stat().st_size == before


class TestFile:
    """What is found when a file is opened."""

    async def test_only_its_owner_may_read_it(self, harness: SqliteHarness) -> None:
        """The file and its log may hold secrets."""
        modes = {path.name: path.stat().st_mode & 0o777 for path in harness.path.parent.iterdir()}
        assert modes == {"store.db": 0o600, "store.db-wal": 0o600}

    async def test_a_second_one_is_kept_out(self, harness: SqliteHarness) -> None:
        """A file in use is refused, in this process and in another, and its holder goes on."""
        with pytest.raises(Broken, match=r"store\.db is in use by another process"):
            await SqliteStore.open(harness.path)
        script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT * FROM mark')"
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, harness.path, stderr=asyncio.subprocess.PIPE
        )
        _, complaint = await other.communicate()

        assert b"database is locked" in complaint
        assert await write(harness.store, put("a")) == 1

    async def test_a_newer_format_is_refused(self, harness: SqliteHarness) -> None:
        """A file of a newer version names both versions, and is left as it is."""
        await harness.store.close()
        with sqlite3.connect(harness.path) as db:
            db.execute("PRAGMA user_version = 7")
        db.close()
        before = harness.path.read_bytes()

        with pytest.raises(Broken, match="has format 7, this version of unisono knows formats up to 1"):
            await harness.open()

        assert harness.path.read_bytes() == before

    async def test_another_programs_database_is_refused(self, tmp_path: Path) -> None:
        """A database that is not a store is left as it is."""
        path = tmp_path / "other.db"
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE t (x)")
        db.close()
        before = path.read_bytes()

        with pytest.raises(Broken, match="not a unisono store"):
            await SqliteStore.open(path)

        assert path.read_bytes() == before

    async def test_no_database_is_refused(self, tmp_path: Path) -> None:
        """Some other file is called damaged, and is left as it is."""
        path = tmp_path / "store.db"
        path.write_text("services:\n" * 1000)

        with pytest.raises(Broken, match=r"store\.db is damaged .*restore a copy"):
            await SqliteStore.open(path)

        assert path.read_text() == "services:\n" * 1000

    @pytest.mark.parametrize("path", ["missing/store.db", "."])
    async def test_what_cannot_be_opened_is_named(self, tmp_path: Path, path: str) -> None:
        """A folder that does not exist, or a folder as the file, is one clear error."""
        with pytest.raises(Broken, match=r"can't be opened"):
            await SqliteStore.open(tmp_path / path)

    @pytest.mark.parametrize("seed", range(12))
    async def test_damage_is_found_or_harmless(self, harness: SqliteHarness, seed: int) -> None:
        """With bytes of the file overwritten it is either refused, or everything is as it was."""
        chance = random.Random(seed)
        for n in range(200):
            await write(harness.store, put(f"key/{n:03}", chance.randbytes(300)))
        before = await harness.store.scan("")
        await harness.store.close()
        content = bytearray(harness.path.read_bytes())
        at = chance.randrange(100, len(content) - 64)
        content[at : at + 64] = chance.randbytes(64)
        harness.path.write_bytes(content)

        try:
            found: object = await (await harness.open()).scan("")
        except Broken as error:
            found = str(error)

        assert found == before or "damaged" in str(found)

    async def test_a_changed_value_is_found(self, harness: SqliteHarness) -> None:
        """One flipped bit in a value, which SQLite itself would not notice, is damage."""
        await write(harness.store, put("k", b"precious"))
        await harness.store.close()
        harness.path.write_bytes(harness.path.read_bytes().replace(b"precious", b"preciout"))

        with pytest.raises(Broken, match=r"damaged \(the checksum of change 1 is wrong\)"):
            await harness.open()

    async def test_a_cut_file_is_damaged(self, harness: SqliteHarness) -> None:
        """A file that lost its end is refused."""
        await write(harness.store, put("k", os.urandom(50_000)))
        await harness.store.close()
        harness.path.write_bytes(harness.path.read_bytes()[:20_000])

        with pytest.raises(Broken, match="damaged"):
            await harness.open()
