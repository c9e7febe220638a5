"""The store on etcd when members of three die or hang: real members, real signals."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.store.asking import LIMIT, put, take, write
from tests.store.etcd_server import Etcd, Member, running, wait_healthy
from tests.store.etcd_stores import address, opened, until
from tests.store.linearizability import Operation, linearizable
from unisono.store.base import (
    MaybeDone,
    NotDone,
    Store,
)
from unisono.store.etcd import EtcdStore


@pytest.fixture(scope="module")
def three() -> Iterator[Etcd]:
    with running(3) as etcd:
        yield etcd


def used_by(store: EtcdStore, etcd: Etcd) -> Member:
    """The member that carries the calls of a store."""
    inner = store._connection
    endpoint = inner._members[inner._current].endpoint
    return next(member for member in etcd.members if member.endpoint == endpoint)


def leader(etcd: Etcd) -> Member:
    """The member that leads the others."""
    for member in etcd.members:
        fields = etcd.ctl("endpoint", "status", member=member).split(", ")
        if fields[4] == "true":
            return member
    raise AssertionError("nobody leads")


def use(store: EtcdStore, member: Member) -> None:
    """Let a store use a member."""
    endpoints = [one.endpoint for one in store._connection._members]
    store._connection._current = endpoints.index(member.endpoint)


async def write_and_watch(store: EtcdStore, harm: Callable[[], None], heal: Callable[[], None]) -> None:
    """
    Eight clients write without pause, each key once, while ``harm`` is done.

    Each write that was told done happened once and at the revision told, each that was told not done did not
    happen, and a watch has seen exactly what happened.
    """
    start = (await store.scan("")).revision
    told: dict[str, int | None] = {}
    unknown: set[str] = set()
    numbers = itertools.count()
    stop = asyncio.Event()
    watch = store.watch("", after=start)

    async def client() -> None:
        while not stop.is_set():
            key = f"k/{next(numbers)}"
            try:
                told[key] = await write(store, put(key))
            except NotDone:
                told[key] = None
            except MaybeDone:
                unknown.add(key)

    clients = [asyncio.create_task(client()) for _ in range(8)]
    await until(lambda: len(told) >= 100)
    harm()
    count = len(told)
    await until(lambda: len(told) >= count + 200)
    newest = max(filter(None, told.values()))
    seen: list[tuple[str, int]] = []
    while not seen or seen[-1][1] < newest:  # while the harm lasts
        for batch in await take(watch, 1):
            seen += [(event.key, batch.revision) for event in batch.events]
    heal()
    stop.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*clients)
    last = await write(store, put("last"))
    while seen[-1][0] != "last":
        for batch in await take(watch, 1):
            seen += [(event.key, batch.revision) for event in batch.events]

    there = {entry.key: entry.modified for entry in (await store.scan("k/")).entries}
    assert {key: revision for key, revision in told.items() if revision is not None} == {
        key: revision for key, revision in there.items() if key not in unknown
    }
    assert seen == [*sorted(there.items(), key=lambda item: item[1]), ("last", last)]
    assert len(unknown) == 0  # two members can tell


async def test_a_member_is_killed(three: Etcd) -> None:
    """The member that carries all calls is killed: another one does, and nothing is lost or done twice."""
    async with opened(address(three)) as store:
        victim = used_by(store, three)
        await write_and_watch(store, victim.kill, victim.start)
    wait_healthy(victim)


async def test_the_leader_is_killed(three: Etcd) -> None:
    """The leader is killed while another member carries the calls."""
    victim = leader(three)
    async with opened(address(three)) as store:
        use(store, next(member for member in three.members if member is not victim))
        await write_and_watch(store, victim.kill, victim.start)
    wait_healthy(victim)


async def test_a_member_hangs(three: Etcd) -> None:
    """The member that carries all calls is stopped, its connections stay open; later it goes on."""
    async with opened(address(three)) as store:
        victim = used_by(store, three)
        try:
            await write_and_watch(store, victim.pause, victim.go_on)
        finally:
            victim.go_on()
    wait_healthy(victim)


async def test_a_member_hangs_right_after_it_got_a_write(three: Etcd) -> None:
    """The write is done at another member, and once only, whatever the first one does when it goes on."""
    victim = next(member for member in three.members if member is not leader(three))
    async with opened(address(three)) as store, opened(address(three)) as other:
        use(store, victim)
        start = await write(store, put("warm"))
        victim.pause()
        try:
            revision = await write(store, put("k", b"once"))
        finally:
            victim.go_on()
        wait_healthy(victim)
        use(store, victim)
        await write(store, put("done"))
        use(other, victim)
        for _ in range(20):  # whatever the member still had to do comes before these
            await write(other, put("later"))

        batches = await take(store.watch("", after=start), 2)

        keys = [(event.key, batch.revision) for batch in batches for event in batch.events]
        assert keys == [("k", revision), ("done", batches[1].revision)]
        entry = await store.get("k")
        assert entry is not None
        assert (entry.created, entry.modified) == (revision, revision)


@pytest.mark.parametrize("seed", range(3))
async def test_histories_are_linearizable_while_members_hang_and_die(three: Etcd, seed: int) -> None:
    """Clients at all members, one of which hangs or is killed: one order explains what they saw."""
    chance = random.Random(seed)
    where = address(three)
    moments, values = itertools.count(), itertools.count(1)
    history: list[Operation] = []

    async def client(store: Store) -> None:
        for _ in range(10):
            called = next(moments)
            if chance.random() < 0.5:
                value = next(values)
                while True:
                    with suppress(NotDone):
                        await write(store, put("register", b"%d" % value))
                        break
                history.append(Operation("write", value, called, next(moments)))
            else:
                entry = await store.get("register")
                history.append(Operation("read", int(entry.value) if entry else 0, called, next(moments)))
            await asyncio.sleep(chance.random() * 0.02)

    async with opened(where) as a, opened(where) as b, opened(where) as c:
        for store, member in zip((a, b, c), three.members, strict=True):
            use(store, member)
        victim = chance.choice(three.members)
        clients = [asyncio.create_task(client(store)) for store in (a, b, c, a, b, c)]
        await asyncio.sleep(0.05)
        if seed % 2:
            victim.pause()
        else:
            victim.kill()
        try:
            await asyncio.sleep(0.5)
        finally:
            if seed % 2:
                victim.go_on()
            else:
                victim.start()
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*clients)
    wait_healthy(victim)

    assert linearizable(history)
