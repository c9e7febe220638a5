"""Stores on etcd for tests, each with a prefix of its own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from tests.store.asking import LIMIT
from tests.store.etcd_server import Etcd
from unisono.store.addresses import EtcdAddress, parse_store
from unisono.store.etcd import EtcdStore

_prefixes = itertools.count()


def address(etcd: Etcd, *endpoints: str) -> EtcdAddress:
    found = cast(EtcdAddress, parse_store(etcd.url(f"faults-{next(_prefixes)}")))
    return EtcdAddress(endpoints=endpoints or found.endpoints, prefix=found.prefix)


@asynccontextmanager
async def opened(where: EtcdAddress) -> AsyncIterator[EtcdStore]:
    store = await EtcdStore.open(where)
    try:
        yield store
    finally:
        await store.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody tells of."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
