"""Transactions on etcd: the same coordinator, and two nodes that share the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.store import etcd_server
from tests.transactions.conftest import Bench, Services, coordinating, until
from tests.transactions.participants import Asked, Says, serving
from unisono.store.addresses import parse_store
from unisono.store.base import Store
from unisono.store.opening import open_store


@pytest.fixture(scope="module")
def server() -> Iterator[etcd_server.Etcd]:
    with etcd_server.running() as started:
        yield started


@pytest.fixture
async def shared(server: etcd_server.Etcd, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    opened = await open_store(parse_store(server.url(request.node.name.replace("[", "-").replace("]", ""))))
    yield opened
    await opened.close()


@pytest.mark.parametrize("mode", ["saga", "tcc", "xa"])
async def test_a_transaction_commits_on_etcd(shared: Store, mode: str) -> None:
    services = Services()
    async with serving() as party, coordinating(shared, services) as first:
        ends = await asyncio.gather(
            *[Bench(shared, party, services, first).run(mode, "a", "b") for _ in range(30)]
        )

    assert {"committed"} == {end["status"] for end in ends}


async def test_the_other_node_goes_on_where_one_has_died(shared: Store) -> None:
    """Its lease ends, and what it left is carried to its end with a higher epoch."""
    services = Services()
    async with serving() as party, coordinating(shared, services, "n2") as second:
        reached = asyncio.Event()

        async def script(asked: Asked) -> Says:
            if asked.op == "confirm" and not reached.is_set():
                reached.set()
                await asyncio.Event().wait()
            return Says()

        party.script = script
        async with coordinating(shared, services, "n1") as first:
            begun = await Bench(shared, party, services, first).begin("tcc", "a")
            await until(reached.is_set)
        view = await Bench(shared, party, services, second).end(begun.record.gid)

    assert ("committed", "n2") == (view["status"], view["node"])
    epochs = [int(asked.headers["transaction-epoch"]) for asked in party.asked]
    assert epochs[0] < epochs[-1]
