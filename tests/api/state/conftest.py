"""Two instances of one application, and one of another, with what they share served over a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import Served
from tests.api.specs import service
from tests.store.etcd_server import Etcd, running
from unisono.api.app import create_services_app
from unisono.api.listeners import unix_listener
from unisono.api.server import Server
from unisono.api.state.plane import Plane
from unisono.control.records import Revision, Service, encode, revision_key, service_key
from unisono.node.identity import Identities, Identity
from unisono.spec.access import Access
from unisono.store.addresses import SqliteAddress, parse_store
from unisono.store.base import Put, Store
from unisono.store.local import LocalStore
from unisono.store.opening import Address


@dataclass(frozen=True)
class Services:
    """Who asks for shared state in a test: two of one application, a stranger, and an operator."""

    orders: httpx.AsyncClient
    payments: httpx.AsyncClient
    stranger: httpx.AsyncClient
    nobody: httpx.AsyncClient
    operator: httpx.AsyncClient
    served: Served


async def set_service(
    store: Store, application: str, name: str, *, number: int = 1, access: Access | None = None
) -> None:
    """Write down that there is a service, and what it may do, as applying a file would."""
    spec = service(name, access=access)
    service_record = Service(
        application=application, name=name, revision=number, stable=number, replicas=1, internal_port=1
    )
    revision = Revision(
        application=application, service=name, number=number, digest="", spec=spec, created_at=0.0
    )
    await store.transact(
        success=[
            Put(key=service_key(application, name), value=encode(service_record)),
            Put(key=revision_key(application, name, number), value=encode(revision)),
        ]
    )


@pytest.fixture(scope="session")
def etcd() -> Iterator[Etcd]:
    """One for all tests; each keeps to a prefix of its own."""
    with running() as etcd:
        yield etcd


@pytest.fixture(params=["api", "plane", "etcd"])
def way(request: pytest.FixtureRequest) -> str:
    """To shared state on SQLite: the API itself, or the data plane in front of it; or the API on etcd."""
    return str(request.param)


@pytest.fixture
def store_address(way: str, tmp_path: Path, request: pytest.FixtureRequest) -> Address:
    """Where truth is kept."""
    if way == "etcd":
        return parse_store(request.getfixturevalue("etcd").url(tmp_path.name.replace("_", "-")))
    return SqliteAddress(path=tmp_path / "store.db")


@pytest.fixture
async def services(served: Served, way: str) -> AsyncIterator[Services]:
    """All of them, connected as ``way`` says."""
    for application, name in (("shop", "orders"), ("shop", "payments"), ("blog", "web")):
        await set_service(served.store, application, name)
    identities = Identities(b"secret of this test")
    path = served.socket_path.with_name("services.sock")
    listener = unix_listener(path)
    if way == "plane":
        assert isinstance(served.store, LocalStore)
        behind = path.with_name("behind.sock")
        front, listener = listener, unix_listener(behind)
        states = served.context.states
        states.plane = await Plane.open(
            served.store, served.context.informer, front, behind, take=states.timestamps
        )
    server = Server(create_services_app(served.context, identities), listener)
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
    if served.context.states.plane is not None:
        await served.context.states.plane.close()
