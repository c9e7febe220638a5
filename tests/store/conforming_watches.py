"""What any store must do for who follows it: watches, marks, compaction. Part of the suite in conformance."""

from __future__ import annotations

import asyncio
import gc

import pytest

from tests.store.asking import LIMIT, Harness, keys, put, take, write
from unisono.store.base import (
    Batch,
    Compacted,
    Delete,
    Entry,
    Event,
    Store,
)


class Watches:
    """Watches, marks, compaction."""

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
