"""A node's API over a real store and a real Unix socket, with no agent and no controller behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from unisono.api.app import create_app
from unisono.api.context import Context, NodeFacts
from unisono.api.informer import Informer
from unisono.api.listeners import unix_listener
from unisono.api.server import Server
from unisono.client import NodeClient
from unisono.store.addresses import SqliteAddress
from unisono.store.base import Store
from unisono.store.opening import Address, open_store


@dataclass(frozen=True)
class Served:
    """What a test of the API holds in its hands."""

    context: Context
    client: NodeClient
    socket_path: Path

    @property
    def store(self) -> Store:
        """The store behind the API."""
        return self.context.store


@pytest.fixture
def store_address(tmp_path: Path) -> Address:
    """Where truth is kept."""
    return SqliteAddress(path=tmp_path / "store.db")


@pytest.fixture
async def served(tmp_path: Path, store_address: Address) -> AsyncIterator[Served]:
    """The API, served."""
    store = await open_store(store_address)
    informer = Informer(store)

    async def measure() -> Mapping[str, Any]:
        raise OSError("no gateway in this test")

    async def metrics() -> str:
        raise OSError("no gateway in this test")

    stopping = asyncio.Event()
    context = Context(
        store=store,
        informer=informer,
        facts=NodeFacts(
            id="node-1",
            host="host-1",
            version="1",
            pid=1,
            started_at=0.0,
            state_folder=tmp_path,
            listen="127.0.0.1:1",
            api=None,
            ends_when_empty=False,
        ),
        logs=tmp_path / "logs",
        measure=measure,
        metrics=metrics,
        allocate_port=lambda taken: 20_000 + len(taken),
        stop=stopping.set,
        stopping=stopping,
    )
    path = tmp_path / "api.sock"
    server = Server(create_app(context), unix_listener(path))
    following = asyncio.create_task(informer.run())
    serving = asyncio.create_task(server.run_until_ended())
    try:
        await server.listening.wait()
        yield Served(context=context, client=NodeClient(path, timeout=10.0), socket_path=path)
    finally:
        stopping.set()
        server.end()
        await serving
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await store.close()
