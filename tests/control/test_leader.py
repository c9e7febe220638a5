"""Who leads, and that who no longer does can't write. Against a real store."""

from __future__ import annotations

import asyncio

import pytest

from unisono.control.leader import Deposed, Fence, LeaderElection
from unisono.control.records import LEADER_KEY
from unisono.store.base import MaybeDone, Put
from unisono.store.sqlite import SqliteStore

LIMIT = 30.0  # seconds; generous, only to end a test that hangs


async def write(store: SqliteStore, fence: Fence, value: bytes) -> bool:
    """A leader's write; whether it was admitted."""
    outcome = await store.transact(compares=fence.compares(), success=(Put(key="x", value=value),))
    return outcome.succeeded


async def test_leads_alone(store: SqliteStore) -> None:
    """While one leads, another node waits; it leads when the first resigns."""
    one, other = LeaderElection(store, "one"), LeaderElection(store, "other")
    fence = await one.acquire()
    waiting = asyncio.create_task(other.acquire())
    await asyncio.sleep(0.05)
    was_waiting = not waiting.done()

    await one.resign(fence)

    assert was_waiting
    assert (await asyncio.wait_for(waiting, LIMIT)).token > fence.token


async def test_a_silent_leader_is_replaced(store: SqliteStore) -> None:
    """Without renewal the lease ends and another node leads; no tick is needed to notice."""
    await LeaderElection(store, "one", ttl=0.1).acquire()

    assert await asyncio.wait_for(LeaderElection(store, "other").acquire(), LIMIT)


async def test_a_deposed_leader_can_not_write(store: SqliteStore) -> None:
    """Its fence no longer holds, however late the write arrives."""
    old = await LeaderElection(store, "one", ttl=0.1).acquire()
    admitted = await write(store, old, b"old")
    new = await asyncio.wait_for(LeaderElection(store, "other").acquire(), LIMIT)

    assert admitted
    assert not await write(store, old, b"too late")
    assert await write(store, new, b"new")


async def test_a_node_takes_over_from_itself(store: SqliteStore) -> None:
    """A restarted node need not wait for the lease of the process before it, whose fence ends."""
    before = await LeaderElection(store, "one").acquire()

    after = await asyncio.wait_for(LeaderElection(store, "one").acquire(), LIMIT)

    assert after.token > before.token
    assert not await write(store, before, b"old")
    await store.revoke(before.lease)
    assert await write(store, after, b"new"), "the end of the old lease took the new lead away"


async def test_holds_the_lease(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewed three times within its time, so it outlives the time that it was granted for."""
    renewals: asyncio.Queue[int] = asyncio.Queue()
    keep_alive = store.keep_alive

    async def counted(lease: int) -> None:
        await keep_alive(lease)
        renewals.put_nowait(lease)

    monkeypatch.setattr(store, "keep_alive", counted)
    election = LeaderElection(store, "one", ttl=1.0)
    fence = await election.acquire()
    holding = asyncio.create_task(election.hold(fence))
    async with asyncio.timeout(60):
        renewed = [await renewals.get() for _ in range(4)]

    entry = await store.get(LEADER_KEY)
    holding.cancel()

    assert renewed == 4 * [fence.lease]
    assert fence.admits(entry)


async def test_learns_of_the_end_of_its_lease(store: SqliteStore) -> None:
    """Renewing a lease that has ended deposes."""
    election = LeaderElection(store, "one", ttl=0.3)
    fence = await election.acquire()
    await store.revoke(fence.lease)

    with pytest.raises(Deposed, match="lease has ended"):
        await asyncio.wait_for(election.hold(fence), LIMIT)


async def test_gives_up_when_it_can_not_renew(store: SqliteStore) -> None:
    """A leader that gets no clear answer for as long as its lease lasts stops by itself."""

    class Cut:
        """A store whose answers no longer arrive."""

        async def keep_alive(self, lease: int) -> None:
            raise MaybeDone("the connection broke")

    election = LeaderElection(Cut(), "one", ttl=0.2)  # type: ignore[arg-type]

    with pytest.raises(Deposed, match="not renewed"):
        await asyncio.wait_for(election.hold(Fence(token=1, lease=1)), LIMIT)


async def test_check(store: SqliteStore) -> None:
    """Asking the store tells whether one still leads."""
    election = LeaderElection(store, "one")
    fence = await election.acquire()
    await election.check(fence)
    await election.resign(fence)

    with pytest.raises(Deposed):
        await election.check(fence)
