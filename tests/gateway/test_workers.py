"""Several workers serve as one does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio

from tests.gateway.backend import OK, Peer, answering
from tests.gateway.conftest import Running, Stage, eventually

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def three() -> Iterator[Running]:
    """A gateway of three workers."""
    with TemporaryDirectory(prefix="uni-") as path:
        gateway = Running(Path(path), "--workers", "3")
        gateway.start()
        try:
            yield gateway
        finally:
            gateway.stop()


@pytest_asyncio.fixture
async def stage(three: Running) -> AsyncIterator[Stage]:
    """A service behind three workers."""
    async with AsyncExitStack() as stack:
        yield Stage(three, stack)


async def test_places_are_counted_across_workers(stage: Stage) -> None:
    """Clients of all workers together never have more requests at an instance than it has places."""
    now, most = 0, 0

    async def script(peer: Peer) -> None:
        nonlocal now, most
        while True:
            await peer.head()
            now, most = now + 1, max(most, now + 1)
            await asyncio.sleep(0.002)
            now -= 1
            await peer.say(OK)

    (backend,) = await stage.serve(script)
    await stage.push(concurrency=2)

    async def client() -> list[int]:
        connection = await stage.connect()
        statuses = []
        for _ in range(10):
            await connection.say(GET)
            statuses.append((await connection.answer()).status)
        return statuses

    statuses = await asyncio.gather(*(client() for _ in range(30)))

    assert (statuses, len(backend.heads), most) == ([[200] * 10] * 30, 300, 2)
    await stage.until("in_flight", 0)


async def test_a_table_is_in_force_on_all_workers(stage: Stage) -> None:
    """Once a table without an instance is taken, no worker sends anything there."""
    old, new = await stage.serve(answering(), answering())
    clients = [await stage.connect() for _ in range(12)]
    for connection in clients:
        await connection.say(GET)
        await connection.answer()
    before = len(old.heads)

    await stage.push(targets=stage.backend.targets[1:])
    for connection in clients:
        await connection.say(GET)
        await connection.answer()

    assert (len(old.heads), len(new.heads)) == (before, 24 - before)


async def test_idle_connections_to_an_instance_that_is_gone_are_closed_at_once(stage: Stage) -> None:
    """An instance that is taken out is left by all workers, so that it may end."""
    left = []

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(OK)
        await peer.gone()
        left.append(peer.number)

    (backend,) = await stage.serve(script)
    clients = [await stage.connect() for _ in range(6)]
    for connection in clients:
        await connection.say(GET)
        await connection.answer()

    await stage.push(targets=())

    async def are_left() -> bool:
        return len(left) == backend.connections

    async with asyncio.timeout(2):  # without being told they would stay for 4 s
        await eventually(are_left)
    assert backend.connections > 1
