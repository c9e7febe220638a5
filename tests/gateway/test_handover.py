"""A gateway gives its place to the next one, and nobody at its door notices."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest_asyncio

from tests.gateway.backend import OK, Peer, answering
from tests.gateway.conftest import Running, Stage, eventually
from unisono.gateway.process import GatewayProcess

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Kept(Running):
    """A gateway that is looked after as a node does it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.keeper = GatewayProcess(self.socket, self.table)
        self.ready = asyncio.Event()
        self._keeping = asyncio.create_task(self.keeper.run(self.ready.set))

    async def end(self) -> None:
        """What a node does that is told to end all."""
        self._keeping.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeping
        await self.keeper.stop()


@pytest_asyncio.fixture
async def kept(folder: Path) -> AsyncIterator[Kept]:
    """A gateway of this test alone, with its keeper."""
    gateway = Kept(folder)
    try:
        async with asyncio.timeout(30):
            await gateway.ready.wait()
        yield gateway
    finally:
        await gateway.end()


@pytest_asyncio.fixture
async def stage(kept: Kept) -> AsyncIterator[Stage]:
    """A service behind it."""
    async with AsyncExitStack() as stack:
        yield Stage(kept, stack)


async def test_no_request_fails_while_gateways_change(stage: Stage, kept: Kept) -> None:
    """New connections, kept ones and running requests: all are answered, through three changes."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            await asyncio.sleep(0.01)
            await peer.say(OK)

    await stage.serve(script)
    over = asyncio.Event()

    async def fresh() -> set[int]:
        statuses = set()
        while not over.is_set():
            statuses.add((await stage.ask(GET)).status)
        return statuses

    async def staying() -> set[int]:
        statuses, client = set(), await stage.connect()
        while not over.is_set():
            await client.say(GET)
            answer = await client.answer()
            statuses.add(answer.status)
            if answer.headers.get("connection") == "close":
                client = await stage.connect()
        return statuses

    clients = [asyncio.create_task(kind()) for kind in (fresh, staying) for _ in range(4)]
    pids = {kept.keeper.pid}
    for _ in range(3):
        await asyncio.sleep(0.2)
        await kept.keeper.upgrade()
        pids.add(kept.keeper.pid)
    await asyncio.sleep(0.2)
    over.set()

    assert (await asyncio.gather(*clients), len(pids)) == ([{200}] * 8, 4)


async def test_the_old_one_finishes_its_answers_and_an_instance_is_not_drained_before(
    stage: Stage, kept: Kept
) -> None:
    """A long answer comes to its end, and until then the new one counts it as in flight."""
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 69_999)
        await release.wait()
        await peer.say(b"x")
        await peer.gone()

    await stage.serve(script)
    client = await stage.connect()
    await client.say(GET)
    await client.head()
    await kept.keeper.upgrade()

    before = await stage.link.drained("web-0", 1, 0.3)
    release.set()
    body = await client.reader.readexactly(70_000)

    assert (before, len(body), await stage.link.drained("web-0", 1, 30)) == (1, 70_000, 0)


async def test_the_new_one_follows_tables_and_keeps_the_lock(stage: Stage, kept: Kept) -> None:
    """After the change, a table goes to the new one, and a third gateway cannot start beside it."""
    await stage.serve(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold"))
    await kept.keeper.upgrade()
    await stage.serve(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew"))

    answer = await stage.ask(GET)
    third = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "unisono.gateway",
        str(kept.socket),
        str(kept.table),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await third.communicate()

    assert (answer.body, third.returncode) == (b"new", 1)
    assert b"another gateway runs" in said


async def test_the_old_process_ends_once_nothing_is_left(stage: Stage, kept: Kept) -> None:
    """Without a connection it is gone at once."""
    await stage.serve(answering())
    assert (await stage.ask(GET)).status == 200
    old = kept.keeper.pid

    await kept.keeper.upgrade()

    async def is_gone() -> bool:
        return not os.path.exists(f"/proc/{old}")  # noqa: ASYNC240 - a file of the kernel's

    await eventually(is_gone)


async def test_an_idle_client_hears_of_the_change_with_its_next_answer(stage: Stage, kept: Kept) -> None:
    """Its connection is not closed under it: it may be about to ask."""
    await stage.serve(answering())
    client = await stage.connect()
    await client.say(GET)
    await client.answer()
    await kept.keeper.upgrade()
    await asyncio.sleep(0.2)

    await client.say(GET)
    answer = await client.answer()

    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await client.is_closed()


async def test_stopping_the_new_one_stops_the_old_one(stage: Stage, kept: Kept) -> None:
    """A node that goes leaves no gateway behind that waits for its clients."""
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 69_999)
        await release.wait()

    await stage.serve(script)
    idle, busy = await stage.connect(), await stage.connect()
    await busy.say(GET)
    await busy.head()
    await kept.keeper.upgrade()

    stopping = asyncio.create_task(kept.end())

    assert await idle.is_closed()
    release.set()
    await stopping
