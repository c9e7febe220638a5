"""How fresh a read of a key is, and what its token vouches for: the real store, virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.state.virtual import VirtualStore, kv_of, opened
from unisono.state.kv import EVENTUAL_STALENESS, Consistency, Kv
from unisono.state.tokens import Tokens
from unisono.store.base import NotDone


async def test_trap_45_a_session_reads_what_it_wrote_elsewhere(store: VirtualStore) -> None:
    """With the token of a write through another node, a read is never older than that write."""
    here, there = kv_of(store), kv_of(store)
    await here.put("k", b"1")
    await there.get("k")
    written = await here.put("k", b"2")

    async def session(token: str | None) -> bytes | None:
        entry = (await there.get("k", consistency=Consistency.SESSION, token=token)).entry
        return None if entry is None else entry.value

    cached = await there.get("k", consistency=Consistency.EVENTUAL)
    assert cached.entry is not None
    assert cached.entry.value == b"1"
    assert await session(written.token) == b"2"
    await here.delete("k")
    assert await session(None) is None  # begins with the newest


async def test_a_look_back_takes_nothing_from_a_token(store: VirtualStore, kv: Kv) -> None:
    """The next reader still sees what was seen before."""
    first = await kv.put("k", b"1")
    second = await kv.put("k", b"2")

    old = await kv.at("k", first.revision, token=second.token)

    assert old.entry is not None
    assert (b"1", second.token) == (old.entry.value, old.token)


async def test_trap_45_a_session_never_reads_backwards(store: VirtualStore) -> None:
    """A token of a read that found nothing keeps the next read, elsewhere, from finding what was before."""
    here, there = kv_of(store), kv_of(store)
    await here.put("k", b"1")
    await there.get("k")  # remembers it
    await here.delete("k")
    read = await here.get("k")
    again = await there.get("k", consistency=Consistency.SESSION, token=read.token)

    assert (read.entry, again.entry) == (None, None)


async def test_trap_45_tokens_hold_at_every_level(store: VirtualStore) -> None:
    """A token given to a weaker read binds it too."""
    here, there = kv_of(store), kv_of(store)
    await here.put("k", b"1")
    await there.get("k")
    token = (await here.put("k", b"2")).token
    levels = [
        await there.get("k", consistency=Consistency.EVENTUAL, token=token),
        await there.get("k", consistency=Consistency.BOUNDED, max_staleness=60, token=token),
    ]

    assert [b"2", b"2"] == [read.entry.value for read in levels if read.entry is not None]


async def test_a_bounded_read_is_as_old_as_allowed(store: VirtualStore) -> None:
    """Counted from before the store was asked; eventual reads are bounded too."""
    here, there = kv_of(store), kv_of(store)
    await here.put("k", b"1")
    await there.get("k")
    await here.put("k", b"2")
    await asyncio.sleep(2)

    async def read(consistency: Consistency, max_staleness: float | None = None) -> bytes:
        entry = (await there.get("k", consistency=consistency, max_staleness=max_staleness)).entry
        assert entry is not None
        return entry.value

    assert await read(Consistency.EVENTUAL) == b"1"
    assert await read(Consistency.BOUNDED, 2) == b"1"
    assert await read(Consistency.BOUNDED, 1.9) == b"2"
    await here.put("k", b"3")
    await asyncio.sleep(EVENTUAL_STALENESS + 0.1)
    assert await read(Consistency.EVENTUAL) == b"3"


async def test_levels_and_their_arguments_must_fit(kv: Kv) -> None:
    """max_staleness belongs to bounded."""
    with pytest.raises(ValueError, match="max_staleness"):
        await kv.get("k", consistency=Consistency.BOUNDED)
    with pytest.raises(ValueError, match="max_staleness"):
        await kv.get("k", max_staleness=1)
    with pytest.raises(ValueError, match="max_staleness is -1"):
        await kv.get("k", consistency=Consistency.BOUNDED, max_staleness=-1)


async def test_trap_45_tokens_can_not_be_made_up(store: VirtualStore, kv: Kv) -> None:
    """Changed in any bit, of another namespace or another store: refused, with what to do."""
    token = (await kv.put("k", b"")).token
    other = kv_of(store, "bank")
    foreign = kv_of(store, tokens=Tokens(b"another" * 4))
    for n in range(len(token)):
        changed = token[:n] + ("A" if token[n] != "A" else "B") + token[n + 1 :]
        if changed != token:
            with pytest.raises(ValueError, match="token"):
                await kv.get("k", token=changed)

    for reader, given in ((other, token), (foreign, token), (kv, ""), (kv, "ü"), (kv, token + token)):
        with pytest.raises(ValueError, match="token is"):
            await reader.get("k", token=given)


async def test_tokens_are_the_same_for_all_who_share_the_store(tmp_path: Path) -> None:
    """Also after it was opened again."""
    async with opened(tmp_path / "a.db") as store:
        first, second = await asyncio.gather(Tokens.load(store), Tokens.load(store))
    async with opened(tmp_path / "a.db") as store:
        third = await Tokens.load(store)

    assert third.read("shop", first.make("shop", 7)) == second.read("shop", third.make("shop", 7)) == 7


async def test_a_store_set_back_is_noticed(tmp_path: Path) -> None:
    """A token that has seen more than the store has: said, not answered with the past."""
    async with opened(tmp_path / "new.db") as store:
        kv = kv_of(store)
        for _ in range(5):
            written = await kv.put("k", b"")
    async with opened(tmp_path / "old.db") as store:
        with pytest.raises(NotDone, match="set back"):
            await kv_of(store).get("k", token=written.token)
