"""Locks and semaphores on the line of waiters: real store, virtual time, bad connections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from tests.state.virtual import FaultyStore, VirtualStore, now
from unisono.state.errors import Lost, NotAcquired
from unisono.state.line import Line
from unisono.state.locks import Held, Locks
from unisono.store.base import Batch, Delete, Outcome, StoreError

LINES = "state/shop/"


def make(store: VirtualStore | FaultyStore) -> Locks:
    return Locks(store, "shop", clock=now)


async def left_behind(store: VirtualStore) -> tuple[int, set[int]]:
    """Keys of lines, and leases."""
    return len((await store.scan(LINES)).entries), store.leases()


async def test_a_lock_is_free_again_after_its_block(store: VirtualStore) -> None:
    """At once, with nothing left behind, and the next token is higher."""
    locks = make(store)
    async with locks.lock("l") as first:
        pass
    async with locks.lock("l", wait=0) as second:
        pass

    assert first.token < second.token
    assert await left_behind(store) == (0, set())


async def test_tokens_rise_also_when_all_keys_are_gone(store: VirtualStore) -> None:
    """Whoever removes all of the state, and compacts it, does not make a token come again."""
    locks = make(store)
    tokens = []
    for _ in range(5):
        async with locks.lock("l") as held:
            tokens.append(held.token)
        outcome = await store.transact(success=[Delete(key="state/", prefix=True)])
        await store.compact(outcome.revision)

    assert tokens == sorted(set(tokens))


async def test_waiters_get_it_in_the_order_they_came(store: VirtualStore) -> None:
    """Twenty wait; each holds it once, in order."""
    locks = make(store)
    order: list[int] = []

    async def client(number: int) -> None:
        async with locks.lock("l"):
            order.append(number)
            await asyncio.sleep(1)

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(client(number))
            await asyncio.sleep(0.01)

    assert order == list(range(20))


async def test_a_lock_that_is_held_is_refused_or_waited_for(store: VirtualStore) -> None:
    """wait=0 answers at once and writes nothing; wait=2 after two seconds; nothing is left of either."""
    locks = make(store)
    async with locks.lock("l"):
        before = await store.scan("")
        with pytest.raises(NotAcquired, match="lock 'l' is held"):
            await locks.lock("l", wait=0).__aenter__()
        after = await store.scan("")
        began = now()
        with pytest.raises(NotAcquired):
            await locks.lock("l", wait=2).__aenter__()
        waited = now() - began
        leases = store.leases()

    assert before == after
    assert waited == pytest.approx(2)
    assert len(leases) == 1


async def test_locks_of_different_names_kinds_and_namespaces_are_different(store: VirtualStore) -> None:
    """A name may begin like another, and holds for locks alone."""
    locks, others = make(store), Locks(store, "shop2", clock=now)
    async with (
        locks.lock("job"),
        locks.lock("job/7", wait=0),
        others.lock("job", wait=0),
        locks.semaphore("job", permits=1, wait=0) as held,
    ):
        assert held.remaining > 0


async def test_trap_39_whoever_waited_looks_whether_it_still_stands_in_line(store: VirtualStore) -> None:
    """A waiter whose lease ended is not let in, though nobody is in front any more (etcd 11408)."""
    line = Line(store, "state/shop/", "lock", "l")
    front, waiter = await store.grant(1000), await store.grant(1000)
    await line.enter(front)
    place = await line.enter(waiter)
    waiting = asyncio.create_task(line.admitted(place))
    await asyncio.sleep(1)
    await store.revoke(waiter)
    await store.revoke(front)

    with pytest.raises(Lost, match=f"place {place.token} .* gone"):
        await waiting


async def test_trap_40_only_ones_own_place_is_given_up(store: VirtualStore) -> None:
    """A place that is gone, and made anew under the same key, is another's."""
    line = Line(store, "state/shop/", "lock", "l")
    lease = await store.grant(1000)
    old = await line.enter(lease)
    await line.leave(old)
    new = await line.enter(lease)
    await line.leave(old)

    assert [new.token] == [entry.created for entry in (await line.members()).entries]


async def test_trap_40_a_crashed_waiter_leaves_the_line(store: VirtualStore) -> None:
    """It holds up those behind it for its lease's time at most, and those in front not at all."""
    locks = make(store)
    line = Line(store, "state/shop/", "lock", "l")
    got_it = asyncio.Event()

    async def behind() -> None:
        async with locks.lock("l"):
            got_it.set()

    async with locks.lock("l"):
        await line.enter(await store.grant(5.0))  # and is never heard of again
        task = asyncio.create_task(behind())
        await asyncio.sleep(1)
    await asyncio.sleep(1)
    held_up = not got_it.is_set()
    await asyncio.sleep(3.1)

    assert held_up
    assert got_it.is_set()
    await task


async def test_trap_40_acquiring_leaves_no_lease_whenever_it_is_cancelled(store: VirtualStore) -> None:
    """Cancelled after each of many moments, through a slow connection: no key and no lease stays."""
    async with make(store).lock("l"):
        for step in range(40):
            connection = FaultyStore(store, random.Random(step), faults=0, delay=lambda _: 0.1)
            task = asyncio.create_task(make(connection).lock("l").__aenter__())
            await asyncio.sleep(step * 0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0.5)

            assert len(store.leases()) == 1, step
            assert len((await store.scan(LINES)).entries) == 1, step


async def test_trap_40_a_failed_acquire_leaves_no_lease(store: VirtualStore) -> None:
    """The store refuses the place: the lease for it is given back."""

    class Refusing(FaultyStore):
        async def transact(self, **_: Any) -> Outcome:
            raise StoreError("no")

    with pytest.raises(StoreError, match="no"):
        await make(Refusing(store, random.Random(1), faults=0)).lock("l").__aenter__()

    assert store.leases() == set()


async def test_trap_37_a_place_asked_for_twice_is_one(store: VirtualStore) -> None:
    """Entering again under the same lease finds the place; through a bad connection too."""
    for seed in range(30):
        line = Line(FaultyStore(store, random.Random(seed), faults=0.3), "state/shop/", "lock", f"l{seed}")
        lease = await store.grant(1000)
        tokens: list[int] = []
        while len(tokens) < 2:
            try:
                tokens.append((await line.enter(lease)).token)
            except StoreError:
                continue
        await asyncio.sleep(20)

        entries = (await Line(store, LINES, "lock", f"l{seed}").members()).entries
        assert tokens[0] == tokens[1]
        assert [entry.created for entry in entries] == tokens[:1]


async def test_a_watch_behind_a_compaction_makes_a_waiter_look_anew(store: VirtualStore) -> None:
    """No waiter is stuck, and none fails, because of a compaction."""

    class Compacting(FaultyStore):
        def watch(self, prefix: str, *, after: int, marks: bool = False) -> AsyncIterator[Batch]:
            return super().watch(prefix, after=max(0, after - 5), marks=marks)

    connection = Compacting(store, random.Random(1), faults=0)
    revision = (await store.transact(success=[Delete(key="x")])).revision
    async with make(store).lock("l") as held:
        task = asyncio.create_task(make(connection).lock("l").__aenter__())
        await asyncio.sleep(0.5)
        await store.compact(held.token)
    second = await task

    assert revision < held.token < second.token


@pytest.mark.parametrize("permits", [1, 3])
@pytest.mark.parametrize("seed", range(4))
async def test_trap_43_no_schedule_makes_more_holders_than_permits(
    store: VirtualStore, seed: int, permits: int
) -> None:
    """
    Clients that fail, are cut off, are cancelled, hold too long: never do more than so many believe that
    they hold; tokens of a lock rise in the order of holding; at the end nothing is left.
    """
    chance = random.Random(seed)
    holding: set[Held] = set()
    tokens: list[int] = []
    connections: list[FaultyStore] = []

    def acquire(locks: Locks) -> AbstractAsyncContextManager[Held]:
        wait = chance.choice([None, 0, 2.0, 20.0])
        if permits == 1:
            return locks.lock("l", ttl=4.0, wait=wait)
        return locks.semaphore("l", permits=permits, ttl=4.0, wait=wait)

    async def client() -> None:
        connection = FaultyStore(store, random.Random(chance.random()), faults=0.05)
        connections.append(connection)
        try:
            async with acquire(Locks(connection, "shop", clock=now)) as held:
                believers = [other for other in holding if other.remaining > 0]
                assert len(believers) < permits, "too many holders"
                holding.add(held)
                tokens.append(held.token)
                connection.cut = chance.random() < 0.2
                try:
                    await asyncio.sleep(chance.expovariate(0.5))
                finally:
                    holding.discard(held)
        except StoreError:
            return

    async with asyncio.TaskGroup() as group:
        for _ in range(60):
            task = group.create_task(client())
            await asyncio.sleep(chance.expovariate(2))
            if chance.random() < 0.2:
                asyncio.get_running_loop().call_later(chance.expovariate(0.3), task.cancel)
    await asyncio.sleep(30)
    for connection in connections:
        await connection.close()

    assert len(tokens) > 10
    assert len(tokens) == len(set(tokens))
    if permits == 1:
        assert tokens == sorted(tokens)
    assert await left_behind(store) == (0, set())


async def test_a_semaphore_lets_so_many_in(store: VirtualStore) -> None:
    """Three at a time, ten in all, one second each: four seconds."""
    locks = make(store)
    began = now()
    inside = most = 0

    async def client() -> None:
        nonlocal inside, most
        async with locks.semaphore("s", permits=3):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(1)
            inside -= 1

    await asyncio.gather(*(client() for _ in range(10)))

    assert most == 3
    assert now() - began == pytest.approx(4)


async def test_all_name_the_same_number_of_permits(store: VirtualStore) -> None:
    """Who names another is refused with both numbers, as long as the first ones are there."""
    locks = make(store)
    async with locks.semaphore("s", permits=3):
        with pytest.raises(ValueError, match="permits is 4, but others go by 3"):
            await locks.semaphore("s", permits=4).__aenter__()
    async with locks.semaphore("s", permits=4) as held:
        assert held.token
    with pytest.raises(ValueError, match="permits is 0"):
        await locks.semaphore("s", permits=0).__aenter__()


@pytest.mark.parametrize("wait", [-1.0, float("nan"), float("inf")])
async def test_a_wait_out_of_range_is_refused(store: VirtualStore, wait: float) -> None:
    """Named, and nothing changes."""
    with pytest.raises(ValueError, match="wait is"):
        await make(store).lock("l", wait=wait).__aenter__()

    assert await left_behind(store) == (0, set())
