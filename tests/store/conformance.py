"""
What any store must do, whatever its engine: one suite for all of them.

A store's test module makes a subclass of :class:`Conformance` and gives it a fixture ``harness``. What only
one engine does (its file, its crashes, its retention) stands in that module.

Revisions differ from engine to engine at the start, so nothing here counts on a figure.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from unisono.store.base import (
    MAX_KEY_BYTES,
    MAX_OPERATIONS,
    MAX_TRANSACTION_BYTES,
    MAX_TTL,
    MAX_VALUE_BYTES,
    Batch,
    Broken,
    Compacted,
    Compare,
    Delete,
    Entry,
    Event,
    Field,
    LeaseEnded,
    NotDone,
    Put,
    Store,
)

LIMIT = 30.0  # seconds, generous: it is reached only when something is wrong


class Harness(Protocol):
    """What the suite needs of an engine."""

    store: Store

    async def reopen(self) -> Store:
        """Close the store in an orderly way, and open it again."""

    async def pass_time(self, seconds: float) -> None:
        """Let so much time pass for leases."""


def put(key: str, value: bytes = b"", lease: int | None = None) -> Put:
    return Put(key=key, value=value, lease=lease)


async def write(store: Store, *operations: Put | Delete) -> int:
    """Run operations without a condition; returns the revision."""
    return (await store.transact(success=operations)).revision


async def take(watch: AsyncIterator[Batch], count: int) -> list[Batch]:
    """The next ``count`` batches."""
    async with asyncio.timeout(LIMIT):
        return [await anext(watch) for _ in range(count)]


async def gone(store: Store, key: str, revision: int) -> Batch:
    """Wait for the first change of ``key`` after ``revision``."""
    return (await take(store.watch(key, after=revision), 1))[0]


def keys(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.key for entry in entries]


class Conformance:
    """The suite."""

    @pytest.fixture
    def store(self, harness: Harness) -> Store:
        return harness.store

    # --- get and scan

    async def test_a_missing_key_is_none(self, store: Store) -> None:
        """get() of a key that does not exist is None."""
        assert await store.get("nothing") is None

    async def test_an_entry_remembers_its_revisions(self, store: Store) -> None:
        """created is the revision that made the key, modified the one that last changed it."""
        first = await write(store, put("a", b"1"))
        second = await write(store, put("a", b"2"))

        assert await store.get("a") == Entry(key="a", value=b"2", created=first, modified=second)

    async def test_a_key_made_anew_is_new(self, store: Store) -> None:
        """A key that was removed and put again has a new created."""
        await write(store, put("a"))
        await write(store, Delete(key="a"))
        again = await write(store, put("a"))

        assert await store.get("a") == Entry(key="a", value=b"", created=again, modified=again)

    async def test_scan_is_ordered_and_whole(self, store: Store) -> None:
        """A scan has the keys that begin with the prefix, itself included, in the order of UTF-8."""
        await write(store, *(put(key) for key in ("b", "a/ü", "a/", "a", "a0", "a/\U0010ffff", "a/~", "c")))

        snapshot = await store.scan("a/")

        assert keys(snapshot.entries) == ["a/", "a/~", "a/ü", "a/\U0010ffff"]
        assert keys((await store.scan("")).entries) == [
            "a", "a/", "a/~", "a/ü", "a/\U0010ffff", "a0", "b", "c",
        ]  # fmt: skip

    @pytest.mark.parametrize("prefix", ["\ud7ff", "x\U0010ffff", "\U0010ffff", "\x00"])
    async def test_scan_at_the_edges_of_unicode(self, store: Store, prefix: str) -> None:
        """Prefixes beside the surrogates, at the last code point and at NUL end where they should."""
        await write(store, put(prefix), put(prefix + "y"), put("\ue000"), put("a"), put("x"))

        assert keys((await store.scan(prefix)).entries) == [prefix, prefix + "y"]

    async def test_a_snapshot_carries_the_revision(self, store: Store) -> None:
        """A scan says as of which revision it is, also where it found nothing."""
        revision = await write(store, put("a"))

        assert (await store.scan("b")).revision == revision

    async def test_scan_of_the_past(self, store: Store) -> None:
        """A scan at an older revision shows what was then: put since, changed since, removed since."""
        await write(store, put("k/kept", b"0"), put("k/changed", b"1"), put("other"))
        then = await write(store, put("k/removed", b"2"))
        before = (await store.scan("k/")).entries
        await write(store, put("k/changed", b"3"), Delete(key="k/removed"), put("k/new"))
        await write(store, put("k/removed", b"4"))
        await write(store, put("k/changed", b"5"))

        snapshot = await store.scan("k/", revision=then)

        assert snapshot.revision == then
        assert snapshot.entries == before

    async def test_scan_of_the_future_is_refused(self, store: Store) -> None:
        """A revision that has not been is a ValueError, which names it and the newest."""
        revision = await write(store, put("a"))

        with pytest.raises(ValueError, match=f"revision {revision + 1} .* {revision}"):
            await store.scan("", revision=revision + 1)

    # --- transactions

    async def test_revisions_rise_by_one(self, store: Store) -> None:
        """Each transaction that changes something has the next revision, however much it changes."""
        first = await write(store, put("a"))

        assert await write(store, put("b"), put("c"), Delete(key="a")) == first + 1
        assert await write(store, put("b")) == first + 2

    async def test_changing_nothing_leaves_the_revision(self, store: Store) -> None:
        """Removing what does not exist, or doing nothing, is no change."""
        revision = await write(store, put("a"))

        assert await write(store, Delete(key="b"), Delete(key="c", prefix=True)) == revision
        assert await write(store) == revision

    async def test_putting_the_same_value_is_a_change(self, store: Store) -> None:
        """A put counts even if the value is what it was."""
        revision = await write(store, put("a", b"1"))

        assert await write(store, put("a", b"1")) == revision + 1

    @pytest.mark.parametrize(
        ("field", "offset", "holds"),
        [("created", 0, True), ("created", 1, False), ("modified", 1, True), ("modified", 0, False)],
    )
    async def test_compare_revisions(self, store: Store, field: str, offset: int, holds: bool) -> None:
        """A compare of created or modified holds when it is that revision, and only then."""
        created = await write(store, put("a"))
        await write(store, put("a"))
        compare = Compare(key="a", field=Field(field), target=created + offset)

        outcome = await store.transact(compares=[compare], success=[put("yes")], failure=[put("no")])

        assert outcome.succeeded is holds
        assert (await store.get("yes") is not None, await store.get("no") is not None) == (holds, not holds)

    async def test_compare_values(self, store: Store) -> None:
        """A compare of a value holds when it is that value, and only then."""
        await write(store, put("a", b"1"))

        for value, holds in ((b"1", True), (b"2", False), (b"", False)):
            compare = Compare(key="a", field=Field.VALUE, target=value)
            assert (await store.transact(compares=[compare])).succeeded is holds

    async def test_compare_a_missing_key(self, store: Store) -> None:
        """A key that does not exist has created and modified 0, and no value, not even an empty one."""
        for field, target, holds in (
            (Field.CREATED, 0, True),
            (Field.MODIFIED, 0, True),
            (Field.CREATED, 1, False),
            (Field.VALUE, b"", False),
        ):
            compare = Compare(key="nothing", field=field, target=target)
            assert (await store.transact(compares=[compare])).succeeded is holds

    async def test_all_compares_must_hold(self, store: Store) -> None:
        """One compare that does not hold is enough for failure, and success then leaves no trace."""
        revision = await write(store, put("a", b"1"), put("b", b"2"))
        compares = [
            Compare(key="a", field=Field.VALUE, target=b"1"),
            Compare(key="b", field=Field.VALUE, target=b"1"),
        ]

        outcome = await store.transact(compares=compares, success=[put("a", b"9"), put("c")])

        assert (outcome.succeeded, outcome.revision) == (False, revision)
        assert (await store.scan("")).entries == (
            Entry(key="a", value=b"1", created=revision, modified=revision),
            Entry(key="b", value=b"2", created=revision, modified=revision),
        )

    async def test_a_prefix_is_removed_whole(self, store: Store) -> None:
        """Delete with prefix removes what begins with it, at one revision, and nothing else."""
        await write(store, put("a/1"), put("a/2"), put("b"), put("a"))

        revision = await write(store, Delete(key="a/", prefix=True))

        snapshot = await store.scan("")
        assert (snapshot.revision, keys(snapshot.entries)) == (revision, ["a", "b"])

    async def test_many_keys_at_once(self, store: Store) -> None:
        """As many puts as are allowed at one revision, scanned in order and removed at one revision."""
        names = [f"k/{(number * 7919) % MAX_OPERATIONS:04}" for number in range(MAX_OPERATIONS)]
        revision = await write(store, *(put(name) for name in names))

        assert keys((await store.scan("k/")).entries) == sorted(names)
        assert await write(store, Delete(key="k/", prefix=True)) == revision + 1
        assert (await store.scan("")).entries == ()

    async def test_transactions_queue_up_one_after_the_other(self, store: Store) -> None:
        """Transactions sent at once each find the state left by the one before: no update is lost."""

        async def add_one() -> None:
            while True:
                entry = await store.get("sum")
                compare = Compare(key="sum", field=Field.MODIFIED, target=entry.modified if entry else 0)
                value = b"%d" % (int(entry.value) + 1 if entry else 1)
                if (await store.transact(compares=[compare], success=[put("sum", value)])).succeeded:
                    return

        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*(add_one() for _ in range(20)))

        entry = await store.get("sum")
        assert entry is not None
        assert entry.value == b"20"

    async def test_only_one_of_many_creates(self, store: Store) -> None:
        """Of many that want to make one key only if it does not exist, exactly one does."""
        absent = Compare(key="leader", field=Field.CREATED, target=0)

        outcomes = await asyncio.gather(
            *(store.transact(compares=[absent], success=[put("leader", b"%d" % n)]) for n in range(30))
        )

        winners = [n for n, outcome in enumerate(outcomes) if outcome.succeeded]
        entry = await store.get("leader")
        assert entry is not None
        assert [entry.value] == [b"%d" % n for n in winners]

    async def test_a_removal_queued_sees_puts_queued(self, store: Store) -> None:
        """Sent at once, a removal by prefix takes what the put before it made."""
        await write(store, put("a/old"))

        await asyncio.gather(
            write(store, put("a/new")),
            write(store, Delete(key="a/", prefix=True)),
            write(store, put("a/last")),
        )

        assert keys((await store.scan("")).entries) == ["a/last"]

    async def test_cancelling_disturbs_no_other(self, store: Store) -> None:
        """Of transactions sent at once every third is cancelled: the others are answered and hold."""
        tasks = [asyncio.create_task(write(store, put(f"k{n}"))) for n in range(30)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()

        results = await asyncio.gather(*tasks, return_exceptions=True)

        done = {f"k{n}" for n, result in enumerate(results) if isinstance(result, int)}
        assert len(done) == 20
        assert done <= set(keys((await store.scan("")).entries))

    # --- limits

    @pytest.mark.parametrize(
        ("key", "says"),
        [
            ("", "empty"),
            ("x" * (MAX_KEY_BYTES + 1), f"{MAX_KEY_BYTES + 1} bytes; at most {MAX_KEY_BYTES}"),
            ("ü" * (MAX_KEY_BYTES // 2 + 1), f"at most {MAX_KEY_BYTES}"),
            ("\ud800", "surrogate"),
            (b"bytes", "found bytes"),
        ],
        ids=["empty", "long", "long in UTF-8", "surrogate", "bytes"],
    )
    async def test_bad_keys_are_refused(self, store: Store, key: str, says: str) -> None:
        """What can't be a key is a ValueError in every place that takes one, and changes nothing."""
        revision = (await store.scan("")).revision

        with pytest.raises(ValueError, match=says):
            await store.get(key)
        with pytest.raises(ValueError, match=says):
            await write(store, put("good"), put(key))
        with pytest.raises(ValueError, match=says):
            await write(store, Delete(key=key))
        with pytest.raises(ValueError, match=says):
            await store.transact(compares=[Compare(key=key, field=Field.CREATED, target=0)])
        assert (await store.scan("")).revision == revision

    async def test_the_longest_key_and_value_are_kept(self, store: Store, harness: Harness) -> None:
        """Keys and values at their limits come back as they were, also after reopening."""
        key, value = "ü" * (MAX_KEY_BYTES // 2), bytes(range(256)) * (MAX_VALUE_BYTES // 256)
        revision = await write(store, put(key, value))

        again = await harness.reopen()

        assert await again.get(key) == Entry(key=key, value=value, created=revision, modified=revision)

    async def test_a_value_over_its_limit_is_refused(self, store: Store) -> None:
        """One byte more than allowed is a ValueError that names key, size and limit."""
        with pytest.raises(
            ValueError, match=f"'a' has {MAX_VALUE_BYTES + 1} bytes; at most {MAX_VALUE_BYTES}"
        ):
            await write(store, put("a", b"x" * (MAX_VALUE_BYTES + 1)))

    async def test_a_transaction_over_its_limits_is_refused(self, store: Store) -> None:
        """Too many operations, or too many bytes, are a ValueError."""
        with pytest.raises(ValueError, match=f"{MAX_OPERATIONS + 1} operations; at most {MAX_OPERATIONS}"):
            await write(store, *(put(f"k{n}") for n in range(MAX_OPERATIONS + 1)))
        count = MAX_TRANSACTION_BYTES // MAX_VALUE_BYTES + 1
        with pytest.raises(ValueError, match=f"at most {MAX_TRANSACTION_BYTES}"):
            await write(store, *(put(f"k{n}", b"x" * MAX_VALUE_BYTES) for n in range(count)))

    @pytest.mark.parametrize(
        "operations",
        [
            [put("a"), put("a")],
            [put("a"), Delete(key="a")],
            [put("a/x"), Delete(key="b"), Delete(key="a/", prefix=True)],
            [Delete(key="a", prefix=True), Delete(key="ab", prefix=True)],
            [Delete(key="", prefix=True), put("a")],
        ],
        ids=["put put", "put delete", "put under prefix", "prefix in prefix", "all"],
    )
    async def test_changing_a_key_twice_is_refused(
        self, store: Store, operations: list[Put | Delete]
    ) -> None:
        """One list may change a key once only, in whatever order; success and failure may both."""
        with pytest.raises(ValueError, match="twice"):
            await store.transact(success=operations)
        with pytest.raises(ValueError, match="twice"):
            await store.transact(failure=operations)
        await store.transact(success=operations[:1], failure=operations[:1])

    async def test_values_of_a_wrong_type_are_refused(self, store: Store) -> None:
        """A value is bytes, and what is compared has the type of its field."""
        with pytest.raises(ValueError, match="must be bytes, found str"):
            await write(store, put("a", "text"))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="must be bytes, found int"):
            await store.transact(compares=[Compare(key="a", field=Field.VALUE, target=1)])
        with pytest.raises(ValueError, match="whole number, found bytes"):
            await store.transact(compares=[Compare(key="a", field=Field.CREATED, target=b"")])

    # --- watches

    async def test_a_watch_tells_the_past_then_the_present(self, store: Store) -> None:
        """A watch has all after its revision, what was and what comes, once and in order."""
        start = await write(store, put("before"))
        revisions = [await write(store, put("k", b"%d" % n)) for n in range(3)]
        watch = store.watch("", after=start)

        past = await take(watch, 3)
        revisions += [await write(store, put("k", b"%d" % n)) for n in range(3)]
        present = await take(watch, 3)

        assert [batch.revision for batch in past + present] == revisions

    async def test_events_of_a_revision_come_together(self, store: Store) -> None:
        """One batch has all changes of one transaction under the prefix, in its order, and no other."""
        start = await write(store, put("w/a"))
        live = store.watch("w/", after=start)
        waiting = asyncio.create_task(take(live, 1))
        await asyncio.sleep(0)

        revision = await write(store, put("w/z", b"1"), put("other"), Delete(key="w/a"), put("w/b"))

        made = dict(created=revision, modified=revision)
        expected = Batch(
            revision=revision,
            events=(
                Event(key="w/z", revision=revision, entry=Entry(key="w/z", value=b"1", **made)),
                Event(key="w/a", revision=revision, entry=None),
                Event(key="w/b", revision=revision, entry=Entry(key="w/b", value=b"", **made)),
            ),
        )
        assert await waiting == [expected]
        assert await take(store.watch("w/", after=start), 1) == [expected]

    async def test_a_watch_ignores_other_keys(self, store: Store) -> None:
        """What does not begin with the prefix makes no batch, be it shorter, longer or beside it."""
        start = await write(store, put("x"))
        live = store.watch("ab", after=start)
        waiting = asyncio.create_task(take(live, 1))
        await asyncio.sleep(0)
        await write(store, put("a"), put("b"), put("ac"), put("aab"))
        revision = await write(store, put("abc"))

        assert [batch.revision for batch in await waiting] == [revision]

    async def test_a_watch_leaves_out_what_it_is_told_to(self, store: Store) -> None:
        """Live and in the past, without a batch for what is all left out; marks still say how far it is."""
        start = await write(store, put("x"))
        live = store.watch("", after=start, without=("data/", "more/"))
        waiting = asyncio.create_task(take(live, 2))
        await asyncio.sleep(0)
        first = await write(store, put("a"), put("data/1"))
        await write(store, put("data/2"), put("more/1"))
        last = await write(store, put("dat"))
        marked = store.watch("", after=last, marks=True, without=("data/",))
        unseen = await write(store, put("data/3"))

        expected = [(first, ["a"]), (last, ["dat"])]
        for batches in (
            await waiting,
            await take(store.watch("", after=start, without=("data/", "more/")), 2),
        ):
            assert expected == [(b.revision, [event.key for event in b.events]) for b in batches]
        async with asyncio.timeout(LIMIT):
            told = await anext(marked)
            while told.revision < unseen:
                assert () == told.events
                told = await anext(marked)
        assert () == told.events

    async def test_watches_of_nested_prefixes(self, store: Store) -> None:
        """Each of several watches, of a key and of beginnings of it, has each event once."""
        start = await write(store, put("x"))
        watches = {prefix: store.watch(prefix, after=start) for prefix in ("", "a", "ab", "abc")}
        waiting = {prefix: asyncio.create_task(take(watch, 1)) for prefix, watch in watches.items()}
        await asyncio.sleep(0)
        await write(store, put("a"), put("ab"), put("abc"), put("b"))

        seen = {prefix: [event.key for event in (await task)[0].events] for prefix, task in waiting.items()}

        assert seen == {
            "": ["a", "ab", "abc", "b"],
            "a": ["a", "ab", "abc"],
            "ab": ["ab", "abc"],
            "abc": ["abc"],
        }

    async def test_watching_the_future_waits_for_it(self, store: Store) -> None:
        """A watch after a revision to come skips what is before it."""
        now = await write(store, put("a"))
        watch = store.watch("", after=now + 2)
        waiting = asyncio.create_task(take(watch, 1))
        await asyncio.sleep(0)
        for _ in range(3):
            await write(store, put("a"))

        assert [batch.revision for batch in await waiting] == [now + 3]

    async def test_no_gap_and_no_repeat_under_writes(self, store: Store) -> None:
        """Watches opened at any moment, from any revision, while others write, miss and repeat nothing."""
        start = (await store.scan("")).revision
        total = 300

        async def write_all() -> None:
            for n in range(total):
                await write(store, put(f"k{n % 7}", b"%d" % n))

        async def watch_from(after: int) -> list[int]:
            return [
                batch.revision for batch in await take(store.watch("k", after=after), start + total - after)
            ]

        writing = asyncio.create_task(write_all())
        watching: list[tuple[int, asyncio.Task[list[int]]]] = []
        while not writing.done():
            now = (await store.scan("")).revision
            after = start + (len(watching) * 37) % (now - start + 1)
            watching.append((after, asyncio.create_task(watch_from(after))))
            await asyncio.sleep(0.003)
        await writing

        for after, task in watching:
            assert await task == list(range(after + 1, start + total + 1))

    async def test_a_slow_watch_loses_nothing_and_holds_nobody_up(self, store: Store) -> None:
        """A watch that takes nothing while thousands are written gets them all afterwards."""
        start = await write(store, put("k"))
        watch = store.watch("k", after=start)
        first = asyncio.create_task(take(watch, 1))
        await asyncio.sleep(0)
        count = 2000

        revisions = await asyncio.gather(*(write(store, put("k", b"%d" % n)) for n in range(count)))
        batches = await first + await take(watch, count - 1)

        assert [batch.revision for batch in batches] == sorted(revisions)

    async def test_cancelling_a_step_loses_nothing(self, store: Store) -> None:
        """A step of a watch that is given up leaves the watch where it was."""
        start = await write(store, put("k"))
        watch = store.watch("k", after=start)
        for _ in range(3):
            step = asyncio.create_task(take(watch, 1))
            await asyncio.sleep(0)
            step.cancel()
            await asyncio.wait([step])
        revision = await write(store, put("k"))

        assert [batch.revision for batch in await take(watch, 1)] == [revision]

    async def test_a_dropped_watch_disturbs_nobody(self, store: Store) -> None:
        """A watch that was given up in the middle of waiting leaves the others as they were."""
        start = await write(store, put("k"))
        kept = store.watch("k", after=start)
        step = asyncio.create_task(take(store.watch("k", after=start), 1))
        await asyncio.sleep(0)
        step.cancel()
        await asyncio.wait([step])
        del step
        gc.collect()
        revision = await write(store, put("k"))

        assert [batch.revision for batch in await take(kept, 1)] == [revision]

    async def test_a_watch_ends_with_the_store(self, harness: Harness) -> None:
        """Closing the store ends a watch, after what had reached it."""
        revision = await write(harness.store, put("k"))
        seen: list[int] = []

        async def follow() -> None:
            async for batch in harness.store.watch("k", after=revision - 1):
                seen.append(batch.revision)

        following = asyncio.create_task(follow())
        await asyncio.sleep(0)
        await write(harness.store, put("k"))
        await harness.reopen()
        async with asyncio.timeout(LIMIT):
            await following

        assert seen == [revision, revision + 1]

    # --- marks

    async def test_a_mark_says_how_far_a_watch_is(self, store: Store) -> None:
        """A watch that asks for marks hears of a revision that left its prefix alone, as an empty batch."""
        start = await write(store, put("mine"))
        watch = store.watch("mine", after=start, marks=True)
        waiting = asyncio.create_task(take(watch, 1))
        await asyncio.sleep(0)

        other = await write(store, put("other"))

        (mark,) = await waiting
        assert (mark.revision >= other, mark.events) == (True, ())

    async def test_marks_come_after_the_changes_they_cover(self, store: Store) -> None:
        """Up to each batch or mark all changes have been told: none comes with a revision below it."""
        start = await write(store, put("mine"))
        watch = store.watch("mine", after=start, marks=True)
        revisions = [await write(store, put("mine" if n % 3 == 0 else "other")) for n in range(30)]

        seen: list[Batch] = []
        while not seen or seen[-1].revision < revisions[-1]:
            seen += await take(watch, 1)

        told = [batch.revision for batch in seen]
        assert told == sorted(set(told))
        assert [batch.revision for batch in seen if batch.events] == revisions[::3]

    async def test_a_mark_follows_what_was_read(self, store: Store) -> None:
        """A watch opened in the past is told up to the revision of any scan, also where nothing changed."""
        start = await write(store, put("mine"))
        await write(store, put("other"))
        revision = (await store.scan("mine")).revision
        watch = store.watch("mine", after=start, marks=True)

        async with asyncio.timeout(LIMIT):
            while (await anext(watch)).revision < revision:
                pass

    async def test_who_asks_for_no_marks_has_none(self, store: Store) -> None:
        """A plain watch beside one with marks has batches with events only."""
        start = await write(store, put("mine"))
        plain, marked = store.watch("mine", after=start), store.watch("mine", after=start, marks=True)
        waiting = asyncio.create_task(take(plain, 1))
        await write(store, put("other"))
        await take(marked, 1)

        last = await write(store, put("mine"))

        assert [(batch.revision, len(batch.events)) for batch in await waiting] == [(last, 1)]

    # --- compaction

    async def test_compaction_keeps_the_entries(self, store: Store) -> None:
        """As of the compacted revision and after it everything is as before."""
        await write(store, put("a", b"1"), put("b", b"1"))
        await write(store, put("a", b"2"), Delete(key="b"))
        middle = await write(store, put("c"))
        then = (await store.scan("")).entries
        await write(store, put("a", b"3"))
        now = (await store.scan("")).entries

        await store.compact(middle)

        assert (await store.scan("", revision=middle)).entries == then
        assert (await store.scan("")).entries == now

    async def test_what_is_compacted_says_so(self, store: Store) -> None:
        """A scan or a watch below the compacted revision raises Compacted, which names the oldest."""
        first = await write(store, put("a"))
        for _ in range(3):
            revision = await write(store, put("a"))
        await store.compact(revision)

        with pytest.raises(Compacted) as scan:
            await store.scan("", revision=first)
        with pytest.raises(Compacted) as watch:
            await take(store.watch("", after=first), 1)

        assert (scan.value.revision, watch.value.revision) == (revision, revision)

    async def test_a_watch_goes_on_from_a_compacted_scan(self, store: Store) -> None:
        """After Compacted: scan, then watch from the scan's revision, and nothing is missed."""
        for _ in range(3):
            revision = await write(store, put("a"))
        await store.compact(revision)
        snapshot = await store.scan("")
        later = await write(store, put("a"))

        assert [batch.revision for batch in await take(store.watch("", after=snapshot.revision), 1)] == [
            later
        ]

    async def test_a_live_watch_survives_compaction(self, store: Store) -> None:
        """A watch that has caught up does not mind that the past goes, though nothing came for it."""
        start = await write(store, put("mine"))
        watch = store.watch("mine", after=start)
        step = asyncio.create_task(take(watch, 1))
        await asyncio.sleep(0)
        for _ in range(3):
            revision = await write(store, put("other"))
        await store.compact(revision)
        last = await write(store, put("mine"))

        assert [batch.revision for batch in await step] == [last]

    async def test_compacting_twice_and_the_future(self, store: Store) -> None:
        """Compacting what is compacted is no error; compacting what has not been is a ValueError."""
        for _ in range(3):
            revision = await write(store, put("a"))

        await store.compact(revision)
        await store.compact(revision)
        with pytest.raises(ValueError, match=f"{revision + 1}"):
            await store.compact(revision + 1)

    async def test_a_compacted_end_keeps_the_revision(self, store: Store, harness: Harness) -> None:
        """When the last change was a removal and is compacted, revisions still go on from it."""
        await write(store, put("a"))
        revision = await write(store, Delete(key="a"))
        await store.compact(revision)

        again = await harness.reopen()

        assert (await again.scan("")).revision == revision
        assert await write(again, put("b")) == revision + 1
        assert keys((await again.scan("")).entries) == ["b"]

    # --- leases

    async def test_a_lease_takes_its_keys_with_it(self, store: Store, harness: Harness) -> None:
        """When the time of a lease is up its keys go, all at one revision, and no others."""
        lease = await store.grant(2.0)
        await write(store, put("l/1", lease=lease), put("plain"))
        revision = await write(store, put("l/2", lease=lease))

        await harness.pass_time(2.0)

        batch = await gone(store, "l/", revision)
        assert [(event.key, event.entry) for event in batch.events] == [("l/1", None), ("l/2", None)]
        assert keys((await store.scan("")).entries) == ["plain"]

    async def test_an_entry_names_its_lease(self, store: Store) -> None:
        """An entry put with a lease says so."""
        lease = await store.grant(60.0)
        await write(store, put("k", lease=lease))

        entry = await store.get("k")
        assert entry is not None
        assert entry.lease == lease

    async def test_keeping_alive_prolongs(self, store: Store, harness: Harness) -> None:
        """A lease kept alive lives on past its first time."""
        lease = await store.grant(4.0)
        await write(store, put("k", lease=lease))
        for _ in range(3):
            await harness.pass_time(2.0)
            await store.keep_alive(lease)

        assert await store.get("k") is not None

    async def test_an_ended_lease_is_refused(self, store: Store, harness: Harness) -> None:
        """keep_alive of, or a put with, a lease that has ended is NotDone, and changes nothing."""
        lease = await store.grant(2.0)
        await harness.pass_time(2.0)
        revision = (await store.scan("")).revision

        with pytest.raises(LeaseEnded, match=f"lease {lease} "):
            await store.keep_alive(lease)
        with pytest.raises(LeaseEnded, match=f"lease {lease} "):
            await write(store, put("good"), put("k", lease=lease))
        assert (await store.scan("")).revision == revision

    async def test_an_unknown_lease_is_refused(self, store: Store) -> None:
        """A lease that never was is NotDone, but only if the list that names it is the one that runs."""
        with pytest.raises(LeaseEnded, match="lease 12345 "):
            await write(store, put("k", lease=12345))
        with pytest.raises(LeaseEnded, match="lease 12345 "):
            await store.keep_alive(12345)
        await store.transact(success=[put("k")], failure=[put("k", lease=12345)])

    async def test_revoking_removes_at_once(self, store: Store) -> None:
        """After revoke() the keys are gone; revoking again, or an unknown one, is no error."""
        lease = await store.grant(60.0)
        await write(store, put("a", lease=lease), put("b", lease=lease), put("c"))

        await asyncio.gather(store.revoke(lease), store.revoke(lease))
        await store.revoke(lease)
        await store.revoke(12345)

        assert keys((await store.scan("")).entries) == ["c"]

    async def test_revoking_what_is_just_ending_waits_for_it(self, store: Store) -> None:
        """A second revoke() returns no earlier than the keys are gone."""
        lease = await store.grant(60.0)
        await write(store, put("k", lease=lease))
        first = asyncio.create_task(store.revoke(lease))
        await asyncio.sleep(0)

        await store.revoke(lease)

        assert await store.get("k") is None
        await first

    async def test_a_put_queued_behind_a_revoke_is_refused(self, store: Store) -> None:
        """Sent right after revoke(), a put with that lease does not outlive it."""
        lease = await store.grant(60.0)

        _, late = await asyncio.gather(
            store.revoke(lease), write(store, put("k", lease=lease)), return_exceptions=True
        )

        assert isinstance(late, NotDone)
        assert await store.get("k") is None

    async def test_a_put_queued_before_a_revoke_goes_with_it(self, store: Store) -> None:
        """Sent right before revoke(), a put with that lease does not outlive it either."""
        lease = await store.grant(60.0)

        await asyncio.gather(write(store, put("k", lease=lease)), store.revoke(lease))

        assert await store.get("k") is None

    async def test_a_key_follows_its_last_put(self, store: Store) -> None:
        """A key put again without the lease, or with another, no longer goes with it."""
        first, second = await store.grant(60.0), await store.grant(60.0)
        await write(store, *(put(key, lease=first) for key in ("freed", "moved", "kept")))
        await write(store, put("freed"), put("moved", lease=second))

        await store.revoke(first)

        assert keys((await store.scan("")).entries) == ["freed", "moved"]

    async def test_leases_are_never_given_twice(self, store: Store, harness: Harness) -> None:
        """An id is not used again, also not after its lease has ended and the store was reopened."""
        first = await store.grant(60.0)
        await store.revoke(first)
        again = await harness.reopen()

        assert await again.grant(60.0) != first

    @pytest.mark.parametrize("ttl", [0.0, -1.0, float("nan"), float("inf"), MAX_TTL + 1])
    async def test_bad_times_are_refused(self, store: Store, ttl: float) -> None:
        """A lease has a time above 0 and within the limit."""
        with pytest.raises(ValueError, match="lease of"):
            await store.grant(ttl)

    # --- closing and reopening

    async def test_everything_is_there_after_reopening(self, store: Store, harness: Harness) -> None:
        """Entries, revision, history and leases are as they were."""
        lease = await store.grant(60.0)
        first = await write(store, put("a", b"1"), put("b", lease=lease))
        revision = await write(store, put("a", b"2"), put("ü", b"\x00\xff"))
        before = (await store.scan("")).entries

        again = await harness.reopen()

        assert await again.scan("") == await again.scan("", revision=revision)
        assert (await again.scan("")).entries == before
        assert [batch.revision for batch in await take(again.watch("", after=first), 1)] == [revision]
        await again.revoke(lease)
        assert keys((await again.scan("")).entries) == ["a", "ü"]

    async def test_closing_finishes_what_was_accepted(self, store: Store, harness: Harness) -> None:
        """Transactions sent before close() are answered and kept."""
        tasks = [asyncio.create_task(write(store, put(f"k{n:02}"))) for n in range(50)]
        await asyncio.sleep(0)

        again = await harness.reopen()

        revisions = await asyncio.gather(*tasks)
        assert len(set(revisions)) == 50
        assert keys((await again.scan("")).entries) == [f"k{n:02}" for n in range(50)]

    async def test_a_closed_store_says_so(self, store: Store, harness: Harness) -> None:
        """Every operation on a closed store is Broken; closing again is no error."""
        await harness.reopen()

        await store.close()
        for operation in (
            store.get("a"),
            store.scan(""),
            store.transact(),
            store.grant(1.0),
            store.keep_alive(1),
            store.revoke(1),
            store.compact(0),
        ):
            with pytest.raises(Broken, match="closed"):
                await operation
        with pytest.raises(Broken, match="closed"):
            await take(store.watch("", after=0), 1)
