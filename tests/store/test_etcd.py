"""The store on etcd: the conformance suite on one member, and what only this engine does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest

from tests.store.conformance import Conformance
from tests.store.etcd_server import Etcd, running
from unisono.store.addresses import EtcdAddress, parse_store
from unisono.store.etcd import EtcdStore

_prefixes = count()


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with running() as etcd:
        yield etcd


class EtcdHarness:
    """A store under a prefix that nobody used before, in an etcd that is otherwise quiet."""

    def __init__(self, etcd: Etcd) -> None:
        self.etcd = etcd
        address = parse_store(etcd.url(f"test-{next(_prefixes)}"))
        assert isinstance(address, EtcdAddress)
        self.address = address
        self.store: EtcdStore
        self._leases: set[int] = set()

    async def open(self) -> EtcdStore:
        self.store = await EtcdStore.open(self.address)
        return self.store

    async def reopen(self) -> EtcdStore:
        await self.store.close()
        self._leases |= set(self.store._deadlines._leases)
        return await self.open()

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def end(self) -> None:
        """Leave nothing that would end in the middle of another test."""
        again = await self.reopen()
        for lease in self._leases:
            await again.revoke(lease)
        await again.close()


@pytest.fixture
async def harness(etcd: Etcd) -> AsyncIterator[EtcdHarness]:
    harness = EtcdHarness(etcd)
    await harness.open()
    yield harness
    await harness.end()


class TestEtcd(Conformance):
    """Every claim of the suite."""
