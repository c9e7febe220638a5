"""What stays open: WebSockets with a real library, server-sent events, readers that stop."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from tests.gateway.backend import Endless, Peer, answering
from tests.gateway.conftest import Stage, target

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def echo(socket: Any) -> None:
    async for message in socket:
        await socket.send(message)


async def test_a_websocket_library_talks_through(stage: Stage) -> None:
    """Text, a megabyte of bytes, a ping, the closing handshake, as between the library's own two sides."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(echo, "127.0.0.1", 0))
        await stage.push(targets=(target(0, server.sockets[0].getsockname()[1]),))
        socket = await stack.enter_async_context(connect(f"ws://127.0.0.1:{stage.port}/chat", max_size=None))
        large = bytes(range(256)) * 4096

        await socket.send("für dich")
        text = await socket.recv()
        await socket.send(large)
        binary = await socket.recv()
        await (await socket.ping())
        await socket.close(4001, "enough")

        assert (text, binary, socket.close_code, socket.close_reason) == ("für dich", large, 4001, "enough")
    await stage.until("in_flight", 0)


async def test_fifty_websockets_at_a_time(stage: Stage) -> None:
    """Each hears its own messages."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(echo, "127.0.0.1", 0))
        await stage.push(targets=(target(0, server.sockets[0].getsockname()[1]),))
        sockets = [
            await stack.enter_async_context(connect(f"ws://127.0.0.1:{stage.port}/")) for _ in range(50)
        ]
        for number, socket in enumerate(sockets):
            await socket.send(str(number))

        heard = [await socket.recv() for socket in sockets]

        assert heard == [str(number) for number in range(50)]


@pytest.mark.parametrize("protocol", [b"h2c", b"H2C", b"websocket, h2c", b"HTTP/2.0"])
async def test_there_is_no_tunnel_of_http_itself(stage: Stage, protocol: bytes) -> None:
    """Requests inside would be seen by no route: the upgrade is not passed on, the request is."""
    (instance,) = await stage.serve(answering())

    answer = await stage.ask(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"
        b"Upgrade: " + protocol + b"\r\n\r\n"
    )

    head = instance.heads[0].lower()
    assert (answer.status, b"upgrade" in head, b"http2-settings" in head) == (200, False, False)


async def test_events_arrive_while_the_stream_goes_on(stage: Stage) -> None:
    """Each event of a stream that never ends is passed on before the next one is there."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        while True:
            await peer.say(b"9\r\ndata: 1\n\n\r\n")
            await go.wait()
            go.clear()

    await stage.serve(script)
    client = await stage.connect()
    await client.say(GET)
    await client.head()

    events = []
    for _ in range(3):
        async with asyncio.timeout(30):
            events.append(await client.reader.readuntil(b"\n\n\r\n"))
        go.set()

    assert events == [b"9\r\ndata: 1\n\n\r\n"] * 3


async def test_a_reader_that_stops_blocks_the_instance(stage: Stage) -> None:
    """An answer that nobody takes is not gathered in the gateway: the instance can't send on."""
    endless = Endless()
    await stage.serve(endless)
    client = await stage.connect()
    await client.say(GET)
    await client.head()
    await endless.until_blocked()

    # What two sockets hold in the kernel (some MiB each), this client's own buffer, and what lies between.
    assert endless.sent < 24 << 20


async def test_pipelined_bytes_behind_a_refused_upgrade_stay_requests(stage: Stage) -> None:
    """Bytes behind an upgrade that gets 200 are the next request; they are never carried as they came."""
    paths: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            paths.append((await peer.head()).split(b" ")[1])
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    await stage.serve(script)
    client = await stage.connect()
    await client.say(
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        b"GET /next HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    )

    statuses = [(await client.answer()).status for _ in range(2)]

    assert (statuses, paths) == ([200, 200], [b"/ws", b"/next"])
