"""Watches that survive compaction and repeated events."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

from tests.state.virtual import FaultyStore, VirtualStore, now
from unisono.state.kv import Kv, KvWatch
from unisono.state.tokens import Tokens
from unisono.state.watching import Changes, ResyncingWatch
from unisono.store.base import Batch, Put

TOKENS = Tokens(b"secret" * 4)


def follow(state: dict[str, bytes], changes: Changes) -> None:
    """What a reader does: a resync leaves nothing but its own events."""
    before = dict(state)
    if changes.resync:
        state.clear()
    for event in changes.events:
        if event.entry is None:
            assert event.key in before, "only what was shown is removed"
            state.pop(event.key, None)
        else:
            state[event.key] = event.entry.value


async def listing(kv: Kv, prefix: str) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in (await kv.scan(prefix)).entries}


async def test_a_watch_begins_with_all_there_is(store: VirtualStore) -> None:
    """Without a revision the first batch is a resync, also of nothing."""
    kv = Kv(store, "shop", TOKENS, clock=now)
    empty = await anext(kv.watch())
    await kv.put("k", b"1")
    first = await anext(kv.watch())

    assert (empty.resync, empty.events) == (True, ())
    assert [(event.key, event.entry and event.entry.value) for event in first.events] == [("k", b"1")]


async def test_trap_41_no_gap_between_listing_and_watching(store: VirtualStore) -> None:
    """Scan, then watch after the scan's revision: each change comes once, in order."""
    kv = Kv(store, "shop", TOKENS, clock=now)
    await kv.put("k", b"0")
    revision = (await kv.scan()).revision
    written = [(await kv.put("k", b"%d" % n)).revision for n in range(10)]
    watch = kv.watch(after=revision)
    seen = [await anext(watch) for _ in range(10)]

    assert written == [changes.revision for changes in seen]
    assert not any(changes.resync for changes in seen)


async def test_trap_41_a_watch_behind_a_compaction_resyncs(store: VirtualStore) -> None:
    """With a removal for what it had shown and is gone, and all there is; then it goes on."""
    kv = Kv(store, "shop", TOKENS, clock=now)
    for key in ("gone", "kept", "changed"):
        await kv.put(key, b"1")
    watch = kv.watch()
    await anext(watch)
    await kv.delete("gone")
    await kv.put("unseen", b"1")
    await kv.delete("unseen")
    last = await kv.put("changed", b"2")
    await store.compact(last.revision)
    resync = await anext(watch)
    await kv.put("new", b"1")
    after = await anext(watch)

    assert resync.resync
    assert resync.revision == last.revision
    assert [(event.key, event.entry and event.entry.value) for event in resync.events] == [
        ("gone", None),
        ("changed", b"2"),
        ("kept", b"1"),
    ]
    assert ([event.key for event in after.events], after.resync) == (["new"], False)


async def test_trap_41_a_reader_follows_through_any_compaction(store: VirtualStore) -> None:
    """Random writes, expiry and compactions, steps cancelled at random: in the end it has what there is."""
    for seed in range(5):
        chance = random.Random(seed)
        kv = Kv(store, f"seed{seed}", TOKENS, clock=now)
        watch = kv.watch("k")
        state: dict[str, bytes] = {}
        revision = 0
        for _ in range(60):
            key = f"k{chance.randrange(6)}"
            match chance.randrange(8):
                case 0 | 1 | 2:
                    await kv.put(key, b"%d" % chance.randrange(100))
                case 3:
                    await kv.delete(key)
                case 4:
                    await kv.put(key, b"brief", ttl=0.5)
                case 5:
                    await store.compact((await kv.scan()).revision)
                case _:
                    revision = await take_some(watch, state, revision, chance)
        await kv.put("k-last", b"")
        while "k-last" not in state:
            revision = await take_some(watch, state, revision, chance)

        assert await listing(kv, "k") == state, f"seed {seed}"


async def take_some(watch: KvWatch, state: dict[str, bytes], revision: int, chance: random.Random) -> int:
    """Steps that may be cancelled at any moment, until one found nothing for a while."""
    while True:
        try:
            async with asyncio.timeout(chance.choice([0, 0.001, 0.3])):
                changes = await anext(watch)
        except TimeoutError:
            return revision
        assert changes.revision > revision or changes.resync
        follow(state, changes)
        revision = changes.revision


async def test_trap_42_old_events_sent_again_are_dropped(store: VirtualStore) -> None:
    """As some engines do after a failover: each revision is shown once."""

    class Repeating(FaultyStore):
        """Sends, before each batch, those since two before it again."""

        async def watch(self, prefix: str, *, after: int, marks: bool = False) -> AsyncIterator[Batch]:
            sent: list[Batch] = []
            async for batch in store.watch(prefix, after=after):
                sent.append(batch)
                for again in sent[-3:-1]:
                    yield again
                yield batch

    for n in range(6):
        await store.transact(success=[Put(key=f"k{n}", value=b"")])
    watch = ResyncingWatch(Repeating(store, random.Random(1), faults=0), "k", after=0)
    seen: Sequence[int] = [(await anext(watch)).revision for _ in range(6)]

    assert seen == [1, 2, 3, 4, 5, 6]


async def test_trap_41_a_watch_on_a_store_set_back_resyncs(store: VirtualStore) -> None:
    """After a revision that is yet to come nothing would be shown until then: it begins anew instead."""
    kv = Kv(store, "shop", TOKENS, clock=now)
    await kv.put("k", b"1")
    watch = kv.watch(after=1000)
    first = await anext(watch)
    await kv.put("k", b"2")
    second = await anext(watch)

    assert (first.resync, first.revision) == (True, 1)
    assert (second.resync, second.revision) == (False, 2)


async def test_a_closed_watch_has_let_go(store: VirtualStore) -> None:
    """Nothing feeds it any more."""
    watch = ResyncingWatch(store, "k")
    await anext(watch)
    step = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    step.cancel()
    await asyncio.gather(step, return_exceptions=True)
    await watch.aclose()

    assert store._hub._open == set()
