"""Barriers: all or none."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.state.virtual import FaultyStore, VirtualStore, now
from unisono.state.barriers import Barriers
from unisono.state.errors import NotAcquired
from unisono.state.line import Line
from unisono.store.base import StoreError


async def test_all_pass_when_the_last_has_come(store: VirtualStore) -> None:
    """Not before; each with an index of its own; nothing is left."""
    barriers = Barriers(store, "shop", clock=now)
    began = now()
    tasks = []
    for _ in range(5):
        tasks.append(asyncio.create_task(barriers.wait("b", parties=5)))
        await asyncio.sleep(1)
    passed = await asyncio.gather(*tasks)

    assert now() - began == pytest.approx(5)
    assert [0, 1, 2, 3, 4] == [each.index for each in passed]
    assert 1 == len({each.revision for each in passed})
    assert (await store.scan("state/")).entries == ()


async def test_rounds_follow_each_other(store: VirtualStore) -> None:
    """Twelve parties in threes: four rounds of three."""
    barriers = Barriers(store, "shop", clock=now)
    passed = await asyncio.gather(*(barriers.wait("b", parties=3) for _ in range(12)))
    rounds = sorted(each.revision for each in passed)

    assert [3, 3, 3, 3] == [rounds.count(revision) for revision in sorted(set(rounds))]


async def test_who_died_is_not_counted(store: VirtualStore) -> None:
    """A party whose lease ended before the last one came is not among those that pass."""
    barriers = Barriers(store, "shop", clock=now)
    line = Line(store, "state/shop/", "barrier", "b")
    await line.enter(await store.grant(5.0), b"2")  # and is never heard of again
    await asyncio.sleep(6)
    first = asyncio.create_task(barriers.wait("b", parties=2))
    await asyncio.sleep(1)
    alone = not first.done()
    second = await barriers.wait("b", parties=2)

    assert alone
    assert (await first).revision == second.revision


async def test_who_waited_in_vain_is_not_counted(store: VirtualStore) -> None:
    """After its wait it has left, and the next round needs another."""
    barriers = Barriers(store, "shop", clock=now)
    with pytest.raises(NotAcquired, match="too few"):
        await barriers.wait("b", parties=2, wait=3)
    with pytest.raises(NotAcquired):
        await barriers.wait("b", parties=2, wait=3)

    assert store.leases() == set()


async def test_who_gave_up_while_the_last_one_came_is_not_counted(store: VirtualStore) -> None:
    """The last one saw it waiting, but opens too late; though its lease still lives, nobody passes."""

    class SlowToRevoke(FaultyStore):
        async def revoke(self, lease: int) -> None:
            await asyncio.sleep(4)
            await super().revoke(lease)

    hasty = SlowToRevoke(store, random.Random(1), faults=0, delay=lambda _: 0)
    slow = FaultyStore(store, random.Random(1), faults=0, delay=lambda _: 0.5)
    # Seconds of the slow one: 1 lease, 2 place, 2.5 sees both, 3.5 opens.
    last = asyncio.create_task(Barriers(slow, "shop", clock=now).wait("b", parties=2, wait=6))
    with pytest.raises(NotAcquired):
        await Barriers(hasty, "shop", clock=now).wait("b", parties=2, wait=3)

    with pytest.raises(NotAcquired):
        await last


@pytest.mark.parametrize("seed", range(4))
async def test_in_no_schedule_does_a_round_have_too_few(store: VirtualStore, seed: int) -> None:
    """Parties that fail, are cancelled, or give up: those told of a round are at most, and counted, three."""
    chance = random.Random(seed)
    told: dict[int, list[int]] = {}
    unsure = 0

    async def party() -> None:
        nonlocal unsure
        connection = FaultyStore(store, random.Random(chance.random()), faults=0.05)
        barriers = Barriers(connection, "shop", clock=now)
        try:
            wait = chance.choice([None, 1.0, 5.0])
            passed = await barriers.wait("b", parties=3, ttl=4.0, wait=wait)
            told.setdefault(passed.revision, []).append(passed.index)
        except NotAcquired:
            return
        except (StoreError, asyncio.CancelledError):
            unsure += 1

    tasks = []
    for _ in range(50):
        tasks.append(asyncio.create_task(party()))
        await asyncio.sleep(chance.expovariate(2))
        if chance.random() < 0.1:
            asyncio.get_running_loop().call_later(chance.expovariate(1), tasks[-1].cancel)
    await asyncio.sleep(60)
    waiting = [task for task in tasks if not task.done()]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert len(told) > 5
    assert len(waiting) < 3
    missing = sum(3 - len(indexes) for indexes in told.values())
    assert all(len(set(indexes)) == len(indexes) and set(indexes) <= {0, 1, 2} for indexes in told.values())
    assert missing <= unsure


async def test_all_name_the_same_number_of_parties(store: VirtualStore) -> None:
    """Who names another is refused with both numbers."""
    barriers = Barriers(store, "shop", clock=now)
    first = asyncio.create_task(barriers.wait("b", parties=2))
    await asyncio.sleep(1)
    with pytest.raises(ValueError, match="parties is 3, but others go by 2"):
        await barriers.wait("b", parties=3)
    with pytest.raises(ValueError, match="parties is 129"):
        await barriers.wait("b", parties=129)
    await barriers.wait("b", parties=2)

    assert (await first).index == 0
