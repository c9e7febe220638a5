"""Shared state on etcd: the same classes, several stores, a real etcd, real time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from itertools import count
from typing import cast

import pytest

from tests.store.etcd_server import Etcd, running
from unisono.state.elections import Elections
from unisono.state.errors import Fenced, Insufficient
from unisono.state.kv import Kv
from unisono.state.locks import Locks
from unisono.state.oracle import Oracle
from unisono.state.quotas import Quotas
from unisono.state.tokens import Tokens
from unisono.store.addresses import EtcdAddress, parse_store
from unisono.store.base import Compare, Field, Put
from unisono.store.etcd import EtcdStore

LIMIT = 30.0
_prefixes = count()


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with running() as etcd:
        yield etcd


@pytest.fixture
async def stores(etcd: Etcd) -> AsyncIterator[list[EtcdStore]]:
    """Three connections to one store, as three processes would have."""
    address = cast(EtcdAddress, parse_store(etcd.url(f"state-{next(_prefixes)}")))
    async with AsyncExitStack() as stack:
        opened = [await EtcdStore.open(address) for _ in range(3)]
        for store in opened:
            stack.push_async_callback(store.close)
        yield opened


async def test_a_request_has_one_effect(stores: list[EtcdStore]) -> None:
    """Sent from three processes at once, a request with one id is done once, and all get one answer."""
    tokens = Tokens(b"secret" * 4)
    kvs = [Kv(store, "shop", tokens) for store in stores]

    answers = await asyncio.gather(
        *(kv.put("k", b"v", expected=0, request_id="order-7") for kv in kvs for _ in range(3))
    )

    assert {(answer.succeeded, answer.revision) for answer in answers} == {(True, answers[0].revision)}
    assert len(await kvs[0].history("k")) == 1


async def test_transactions_and_watches(stores: list[EtcdStore]) -> None:
    """What one process writes on a condition, another one's watch shows, at its revision."""
    tokens = Tokens(b"secret" * 4)
    writer, reader = (Kv(store, "shop", tokens) for store in stores[:2])
    watch = reader.watch("a")
    async with asyncio.timeout(LIMIT):
        first = await anext(watch)

        written = await writer.transact(
            compares=[Compare(key="a/1", field=Field.CREATED, target=0)],
            success=[Put(key="a/1", value=b"x"), Put(key="b", value=b"y")],
        )
        second = await anext(watch)

    assert (first.resync, first.events) == (True, ())
    assert (second.revision, [event.key for event in second.events]) == (written.revision, ["a/1"])
    assert (await reader.get("b", token=written.token)).revision >= written.revision


async def test_a_lock_goes_from_process_to_process(stores: list[EtcdStore]) -> None:
    """One holder at a time, with tokens that rise; what the former one writes with its token is refused."""
    inside, tokens, fences = 0, list[int](), list[Compare]()

    async def hold(store: EtcdStore) -> None:
        nonlocal inside
        async with Locks(store, "shop").lock("l", ttl=5.0) as held:
            inside += 1
            assert inside == 1
            tokens.append(held.token)
            fences.append(held.fence)
            await asyncio.sleep(0.02)
            inside -= 1

    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*(hold(store) for store in stores * 3))

    assert tokens == sorted(set(tokens))
    assert len(tokens) == 9
    with pytest.raises(Fenced):
        await Kv(stores[0], "shop", Tokens(b"secret" * 4)).put("k", b"late", fences=[fences[0]])


async def test_who_dies_loses_lead_and_quota(stores: list[EtcdStore]) -> None:
    """A process that falls silent is replaced when its lease ends, and its share of a quota comes back."""
    await Quotas(stores[0], "shop").resize("q", 10)
    lease = await stores[0].grant(2.0)
    await Quotas(stores[0], "shop").acquire("q", 8, lease=lease)
    alive = await stores[1].grant(60.0)
    with pytest.raises(Insufficient):
        await Quotas(stores[1], "shop").acquire("q", 8, lease=alive)

    async with asyncio.timeout(LIMIT):
        while True:
            try:
                grant = await Quotas(stores[1], "shop").acquire("q", 8, lease=alive)
                break
            except Insufficient:
                await asyncio.sleep(0.05)
        async with Elections(stores[2], "shop").campaign("e", ttl=5.0) as leading:
            assert leading.token > grant.token
    await stores[1].revoke(alive)


async def test_timestamps_rise_from_oracle_to_oracle(stores: list[EtcdStore]) -> None:
    """Each successor's timestamps are above all of those before it."""
    seen: list[int] = []
    for store in stores:
        async with Oracle.serve(store, "shop", ttl=5.0) as oracle:
            for _ in range(20):
                first = await oracle.take(100)
                seen += [first, first + 99]

    assert seen == sorted(set(seen))
