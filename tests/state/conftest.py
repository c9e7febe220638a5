"""Every test here runs in virtual time, on the real SQLite store; see tests/state/virtual.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from tests.state.virtual import VirtualLoop, VirtualStore, folder, kv_of, opened
from unisono.state.kv import Kv


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": VirtualLoop}


@pytest.fixture
async def store() -> AsyncIterator[VirtualStore]:
    with folder() as path:
        async with opened(path / "store.db") as store:
            yield store


@pytest.fixture
def kv(store: VirtualStore) -> Kv:
    return kv_of(store)
