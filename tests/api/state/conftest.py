"""Two instances of one application, and one of another, with what they share served over a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx
import pytest

from tests.api.conftest import Served
from unisono.api.app import create_services_app
from unisono.api.listeners import unix_listener
from unisono.api.server import Server
from unisono.node.identity import Identities, Identity


@dataclass(frozen=True)
class Services:
    """Who asks for shared state in a test: two of one application, a stranger, and an operator."""

    orders: httpx.AsyncClient
    payments: httpx.AsyncClient
    stranger: httpx.AsyncClient
    nobody: httpx.AsyncClient
    operator: httpx.AsyncClient
    served: Served


@pytest.fixture
async def services(served: Served) -> AsyncIterator[Services]:
    """All of them, connected."""
    identities = Identities(b"secret of this test")
    path = served.socket_path.with_name("services.sock")
    server = Server(create_services_app(served.context, identities), unix_listener(path))
    serving = asyncio.create_task(server.run_until_ended())
    await server.listening.wait()
    async with AsyncExitStack() as stack:

        async def client(identity: Identity | None, socket: str) -> httpx.AsyncClient:
            headers = {} if identity is None else {"authorization": f"Bearer {identities.make(identity)}"}
            transport = httpx.AsyncHTTPTransport(uds=socket)
            made = httpx.AsyncClient(transport=transport, base_url="http://node", headers=headers, timeout=30)
            return await stack.enter_async_context(made)

        yield Services(
            orders=await client(Identity("shop", "orders", "orders-1"), str(path)),
            payments=await client(Identity("shop", "payments", "payments-1"), str(path)),
            stranger=await client(Identity("blog", "web", "web-1"), str(path)),
            nobody=await client(None, str(path)),
            operator=await client(None, str(served.socket_path)),
            served=served,
        )
    await served.context.states.close()
    server.end()
    await serving
