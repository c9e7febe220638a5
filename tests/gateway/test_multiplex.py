"""HTTP/2 to instances: requests that share a connection, what an instance refuses, and who holds up whom."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest_asyncio

from tests.gateway.backend import answering
from tests.gateway.conftest import Stage, eventually, target
from tests.gateway.http2 import Http2Backend, Http2Peer, Http2Script

MIB = 1 << 20
MESSAGES = 5000
"""More frames of one byte than h2 lets lie unread in a window of 1 MiB."""

SLOW = 6
"""Clients whose answers fill more than a window of 1 MiB."""


@pytest_asyncio.fixture
async def http2(stage: Stage) -> AsyncIterator[Callable[..., Any]]:
    """Starts scripted instances that speak HTTP/2."""
    async with AsyncExitStack() as stack:

        async def serve(*scripts: Http2Script) -> list[Http2Backend]:
            backends = [Http2Backend(script) for script in scripts]
            for backend in backends:
                await backend.start()
                stack.push_async_callback(backend.stop)
            targets = tuple(target(number, backend.port) for number, backend in enumerate(backends))
            await stage.push(protocol="h2", targets=targets)
            return backends

        yield serve


async def test_a_length_said_twice_is_said_once_to_the_client(
    stage: Stage, http2: Callable[..., Any]
) -> None:
    """Also where there is no body to go by it: a client would get no answer at all."""

    async def script(peer: Http2Peer) -> None:
        peer.h2.send_headers(
            await peer.next_request(),
            [(":status", "200"), ("content-length", "2"), ("content-length", "2")],
            end_stream=True,
        )
        await peer.flush()

    await http2(script)

    answer = await stage.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")

    assert (answer.status, answer.head.lower().count(b"content-length: 2\r\n")) == (200, 1)


async def test_requests_share_a_connection(stage: Stage, http2: Callable[..., Any]) -> None:
    """Many requests at a time go over one connection to an instance."""

    async def script(peer: Http2Peer) -> None:
        streams = [await peer.next_request() for _ in range(20)]
        for stream in reversed(streams):
            await peer.answer(stream, b"%d" % stream)
        while True:
            await peer.answer(await peer.next_request())

    (backend,) = await http2(script)
    client = await stage.connect_http2()
    streams = [await client.request(f"/{number}") for number in range(20)]

    answers = [await client.answer(stream) for stream in streams]

    assert ({answer.status for answer in answers}, len(backend.peers)) == ({200}, 1)


async def test_streams_above_goaway_go_elsewhere_and_those_below_end(
    stage: Stage, http2: Callable[..., Any]
) -> None:
    """What the instance has not looked at is sent again, a POST too; what it has is answered there."""

    has_other = asyncio.Event()

    async def leaving(peer: Http2Peer) -> None:
        streams = [await peer.next_request() for _ in range(2)]
        await has_other.wait()
        goaway = b"\0\0\x08\x07\0\0\0\0\0" + min(streams).to_bytes(4) + b"\0\0\0\0"
        peer.writer.write(goaway)
        await peer.answer(min(streams), b"old")
        await peer.until(lambda: False)

    async def staying(peer: Http2Peer) -> None:
        while True:
            stream = await peer.next_request()
            await peer.body(stream)
            await peer.answer(stream, b"new")

    old, new = await http2(leaving, staying)
    await stage.push(targets=(target(0, old.port),))
    client = await stage.connect_http2()
    streams = []
    for _ in range(2):
        stream = await client.request(method="POST", end=False)
        await client.send_data(stream, b"x", end=True)
        streams.append(stream)
        await stage.until("in_flight", len(streams))
    await stage.push(targets=(target(0, old.port), target(1, new.port)))
    has_other.set()

    answers = [await client.answer(stream) for stream in streams]

    assert [answer.body for answer in answers] == [b"old", b"new"]


async def test_a_refused_stream_goes_elsewhere(stage: Stage, http2: Callable[..., Any]) -> None:
    """REFUSED_STREAM means that nothing happened, so that a POST is sent again."""
    refused = 0

    async def refusing_once(peer: Http2Peer) -> None:
        nonlocal refused
        while True:
            stream = await peer.next_request()
            await peer.body(stream)
            if refused:
                await peer.answer(stream, peer.streams[stream].body)
            else:
                refused += 1
                peer.h2.reset_stream(stream, error_code=7)
                await peer.flush()

    await http2(refusing_once, refusing_once)

    answer = await stage.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")

    assert (refused, answer.status, answer.body) == (1, 200, b"5\r\nhello\r\n0\r\n")


async def test_a_reset_post_is_not_repeated(stage: Stage, http2: Callable[..., Any]) -> None:
    """Any other reset leaves open what happened: 502 that says so, and one request only."""

    async def resetting(peer: Http2Peer) -> None:
        while True:
            stream = await peer.next_request()
            peer.h2.reset_stream(stream, error_code=2)
            await peer.flush()

    backends = await http2(resetting, resetting)

    answer = await stage.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")

    sent = sum(len(backend.requests) for backend in backends)
    assert (answer.status, answer.reason, sent) == (502, "upstream_reset", 1)


async def test_http1_clients_reach_http2_instances(stage: Stage, http2: Callable[..., Any]) -> None:
    """Head, body and answer are carried over; what belongs to one connection of HTTP/1.1 is not."""

    async def script(peer: Http2Peer) -> None:
        stream = await peer.next_request()
        await peer.answer(stream, await peer.body(stream), headers=[("x-own", "1")])

    (backend,) = await http2(script)

    answer = await stage.ask(
        b"POST /a?b HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    )

    headers = backend.requests[0].headers
    pseudo = [headers[name] for name in (":method", ":scheme", ":authority", ":path")]
    assert (answer.status, answer.headers["x-own"], b"hello" in answer.body) == (200, "1", True)
    assert pseudo == ["POST", "http", "shop", "/a?b"]
    assert headers.keys().isdisjoint({"host", "connection", "upgrade", "transfer-encoding"})


async def test_an_instance_that_speaks_only_http1_is_told(stage: Stage) -> None:
    """protocol: h2 and an instance that isn't: 502, and no place is lost."""
    await stage.serve(answering())
    await stage.push(protocol="h2", concurrency=1, retry=stage.backend.retry)

    answers = [await stage.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n") for _ in range(2)]

    await stage.until("in_flight", 0)
    assert {answer.status for answer in answers} <= {502, 503}


async def test_small_messages_that_lie_before_a_gateway_held_up_break_no_answer(
    stage: Stage, http2: Callable[..., Any]
) -> None:
    """There are more than the gateway reads in a moment, and all of them arrive."""
    is_held_up, has_sent = asyncio.Event(), asyncio.Event()

    async def telling(peer: Http2Peer) -> None:
        stream = await peer.next_request()
        peer.h2.send_headers(stream, [(":status", "200")])
        await peer.flush()
        await is_held_up.wait()
        for _ in range(MESSAGES):
            peer.h2.send_data(stream, b"x")
        peer.h2.end_stream(stream)
        peer.writer.transport.set_write_buffer_limits(0)
        await peer.flush()
        has_sent.set()
        await peer.until(lambda: False)

    await http2(telling)
    client = await stage.connect_http2()
    stream = await client.request()
    await client.until(lambda: bool(client.streams[stream].headers))
    gateway = stage.running.process
    assert gateway is not None
    gateway.send_signal(signal.SIGSTOP)
    try:
        is_held_up.set()
        await has_sent.wait()
    finally:
        gateway.send_signal(signal.SIGCONT)

    answer = await client.answer(stream)

    assert (answer.ended, answer.body) == (True, b"x" * MESSAGES)


async def test_clients_that_take_nothing_hold_up_nobody_else(stage: Stage, http2: Callable[..., Any]) -> None:
    """However many answers wait for their clients, another one passes over the same connection."""
    sending: set[asyncio.Task[None]] = set()

    async def script(peer: Http2Peer) -> None:
        while True:
            stream = await peer.next_request()
            if peer.streams[stream].headers[":path"] == "/small":
                await peer.answer(stream)
            else:
                peer.h2.send_headers(stream, [(":status", "200")])
                sending.add(asyncio.create_task(peer.send_data(stream, bytes(4 * MIB), end=True)))

    (backend,) = await http2(script)
    for _ in range(SLOW):
        client = await stage.connect_http2()
        client.takes_data = False
        await client.request("/large")

    async def are_all_held_up() -> bool:
        (peer,) = backend.peers or [None]
        return (
            peer is not None
            and len(peer.streams) == SLOW
            and all(peer.h2.local_flow_control_window(stream) == 0 for stream in peer.streams)
        )

    await eventually(are_all_held_up)

    answer = await (await stage.connect_http2()).ask("/small")

    assert (answer.status, answer.body, len(backend.peers)) == (200, b"ok", 1)
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
