"""Leases that are kept, lost, given back: in virtual time, on the real store."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.state.virtual import FaultyStore, VirtualStore, now
from unisono.state.errors import Lost
from unisono.state.leases import KeptLease, LeasePool, grant
from unisono.store.base import Put


async def ended(store: VirtualStore, key: str, revision: int) -> float:
    """When ``key`` is removed."""
    async for batch in store.watch(key, after=revision):
        if any(event.entry is None for event in batch.events):
            return now()
    raise AssertionError("the store was closed")


async def revoked_while_held(store: VirtualStore, ttl: float) -> None:
    async with KeptLease(store, ttl, clock=now) as lease:
        await store.revoke(lease.id)
        await asyncio.sleep(3600)


async def test_a_kept_lease_lives_as_long_as_its_block(store: VirtualStore) -> None:
    """An hour under a lease of three seconds; and it ends with the block."""
    async with KeptLease(store, 3.0, clock=now) as lease:
        await store.transact(success=[Put(key="k", value=b"", lease=lease.id)])
        await asyncio.sleep(3600)
        held = await store.get("k")

    assert held is not None
    assert await store.get("k") is None
    assert store.leases() == set()


async def test_trap_39_loss_is_announced_before_the_lease_ends(store: VirtualStore) -> None:
    """When the store answers no more, the block is cancelled while its keys are still there."""
    connection = FaultyStore(store, random.Random(1), faults=0)
    cancelled_at = 0.0

    async def hold() -> None:
        nonlocal cancelled_at
        async with KeptLease(connection, 10.0, clock=now) as lease:
            await connection.transact(success=[Put(key="k", value=b"", lease=lease.id)])
            connection.cut = True
            try:
                await asyncio.sleep(3600)
            finally:
                cancelled_at = now()
                assert lease.lost.is_set()
                assert await store.get("k") is not None

    holding = asyncio.create_task(hold())
    gone_at = await ended(store, "k", 0)

    with pytest.raises(Lost, match="not renewed"):
        await holding
    assert 1.0 < gone_at - cancelled_at < 3.0  # a fifth of the ttl, and what it was last renewed later


async def test_trap_39_a_keep_alive_that_never_answers_holds_no_loss_up(store: VirtualStore) -> None:
    """The loss is announced by a timer of its own, even if the call can't be cancelled."""

    class Hanging(FaultyStore):
        async def keep_alive(self, lease: int) -> None:
            await asyncio.shield(asyncio.sleep(60))

    began = now()
    with pytest.raises(Lost):
        async with KeptLease(Hanging(store, random.Random(1), faults=0), 10.0, clock=now):
            await asyncio.sleep(3600)

    assert now() - began < 10.0


async def test_a_lease_that_was_granted_too_late_is_none(store: VirtualStore) -> None:
    """A store that answers after the ttl grants nothing that could be held."""
    connection = FaultyStore(store, random.Random(1), faults=0, delay=lambda _: 5.0)
    with pytest.raises(Lost, match="granting it took"):
        await KeptLease(connection, 10.0, clock=now).__aenter__()
    await asyncio.sleep(10)

    assert store.leases() == set()


async def test_a_lease_that_was_revoked_is_lost_at_the_next_renewal(store: VirtualStore) -> None:
    """The store's word that a lease has ended needs no waiting."""
    began = now()
    with pytest.raises(Lost, match="ended"):
        await revoked_while_held(store, ttl=9.0)

    assert now() - began == pytest.approx(3.0)


async def test_trap_38_a_process_that_was_stopped_learns_of_it_from_the_clock(store: VirtualStore) -> None:
    """check() fails at once after a pause, before any timer could run; leaving raises Lost."""
    pause = 0.0

    async def hold() -> None:
        nonlocal pause
        async with KeptLease(store, 10.0, clock=lambda: now() + pause) as lease:
            lease.check()
            pause = 8.5  # stopped for so long, and no callback ran since
            assert lease.remaining == 0
            lease.check()
            raise AssertionError("it went on as if nothing had happened")

    with pytest.raises(Lost):
        await hold()


async def test_a_block_stopped_past_the_end_does_not_end_well(store: VirtualStore) -> None:
    """What was done last may have been done too late: leaving says so."""
    pause = 0.0

    with pytest.raises(Lost):
        async with KeptLease(store, 10.0, clock=lambda: now() + pause):
            pause = 8.5


async def test_cancelling_from_outside_stays_a_cancellation(store: VirtualStore) -> None:
    """Lost is for the lease; who cancels the task sees it cancelled, and no lease is left."""

    async def hold() -> None:
        async with KeptLease(store, 10.0, clock=now):
            await asyncio.sleep(3600)

    holding = asyncio.create_task(hold())
    await asyncio.sleep(1)
    holding.cancel()

    with pytest.raises(asyncio.CancelledError):
        await holding
    assert store.leases() == set()


async def test_loss_does_not_cancel_what_comes_after(store: VirtualStore) -> None:
    """The task that caught Lost is not left half cancelled."""
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(Lost):
        await revoked_while_held(store, ttl=1.0)

    await asyncio.sleep(1)
    assert task.cancelling() == 0


async def test_an_error_of_the_block_comes_first(store: VirtualStore) -> None:
    """A block that fails for its own reason fails for that reason, lost or not."""

    async def fail() -> None:
        async with KeptLease(store, 1.0, clock=now) as lease:
            await store.revoke(lease.id)
            try:
                await asyncio.sleep(3600)
            finally:
                _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        await fail()


async def test_trap_40_a_cancelled_grant_leaves_no_lease(store: VirtualStore) -> None:
    """Cancelled at each step of a grant, slow or not: nothing is left of it."""
    for step in range(12):
        connection = FaultyStore(store, random.Random(step), faults=0, delay=lambda _: 0.5)
        task = asyncio.create_task(grant(connection, 60.0))
        await asyncio.sleep(step * 0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            await store.revoke(task.result())

        assert store.leases() == set()


@pytest.mark.parametrize("ttl", [0.0, -1.0, 0.09, float("nan"), float("inf")])
async def test_a_ttl_out_of_range_is_refused(store: VirtualStore, ttl: float) -> None:
    """Named, and nothing granted."""
    with pytest.raises(ValueError, match="ttl is"):
        KeptLease(store, ttl)


async def test_a_pool_gives_each_key_its_time_and_few_leases(store: VirtualStore) -> None:
    """Put 200 keys over 100 s with 30 s to live: each lives 30 s to 32 s, with at most 17 leases alive."""
    pool = LeasePool(store, clock=now)
    lives: list[float] = []
    most = 0

    async def put(number: int) -> None:
        nonlocal most
        lease = await pool.lease(30.0)
        outcome = await store.transact(success=[Put(key=f"k{number}/", value=b"", lease=lease)])
        most = max(most, len(store.leases()))
        began = now()
        lives.append(await ended(store, f"k{number}/", outcome.revision) - began)

    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(put(number))
            await asyncio.sleep(0.5)

    assert min(lives) >= 30.0 - 1e-6
    assert max(lives) <= 30.0 * 17 / 16 + 1e-6
    assert most <= 18
