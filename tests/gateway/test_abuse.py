"""Clients that want to do harm: each is bounded or shown out, and others are served all the while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.gateway.backend import OK, Peer, answering
from tests.gateway.conftest import Client, Stage, eventually
from tests.gateway.http2 import PREFACE, frame

GET = b"\x82\x86\x84\x41\x01a"  # :method GET, :scheme http, :path /, :authority a
POST = b"\x83\x86\x84\x41\x01a"
ENHANCE_YOUR_CALM = 11


def rapid_reset() -> bytes:
    streams = range(1, 2001, 2)
    return b"".join(frame(1, 5, number, GET) + frame(3, 0, number, b"\0\0\0\x08") for number in streams)


def made_you_reset() -> bytes:
    """Each stream makes the server reset it: a window that overflows (CVE-2025-8671)."""
    streams = range(1, 2001, 2)
    return b"".join(frame(1, 4, number, POST) + frame(8, 0, number, b"\0\0\0\0") for number in streams)


FLOODS: dict[str, Callable[[], bytes]] = {
    "rapid reset": rapid_reset,
    "made you reset": made_you_reset,
    "continuations": lambda: frame(1, 1, 1, GET) + frame(9, 0, 1, b"\0\x01a\x01b") * 100_000,
    "empty continuations": lambda: frame(1, 1, 1, GET) + frame(9, 0, 1) * 100_000,
    "pings": lambda: frame(6, 0, 0, b"12345678") * 100_000,
    "settings": lambda: frame(4, 0, 0) * 100_000,
    "priorities": lambda: frame(2, 0, 1, b"\0\0\0\0\1") * 100_000,
    "tiny data": lambda: frame(1, 4, 1, POST) + frame(0, 0, 1, b"x") * 200_000,
    "empty data": lambda: frame(1, 4, 1, POST) + frame(0, 0, 1) * 200_000,
    "a head too large": lambda: frame(1, 5, 1, GET + (b"\0\x01a\x7f\x81\x7d" + b"x" * 16_000)),
    "nonsense": lambda: b"\xff" * 100_000,
}


async def all_is_well(stage: Stage) -> None:
    """Another client is served, and nothing of the harm is left."""
    answer = await stage.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (answer.status, answer.body) == (200, b"ok")

    async def has_none() -> bool:
        figures = await stage.figures()
        return bool(figures["in_flight"] == 0 and figures["waiting"] == 0)

    await eventually(has_none)


async def pour(client: Client, data: bytes) -> bytes:
    """Send as much as is taken; gives what came back until the end of the connection."""

    async def say() -> None:
        with suppress(ConnectionError):
            for at in range(0, len(data), 65536):
                await client.say(data[at : at + 65536])

    saying = asyncio.create_task(say())
    heard = bytearray()
    with suppress(ConnectionError):
        async with asyncio.timeout(60):
            while piece := await client.reader.read(65536):
                heard += piece
    saying.cancel()
    await asyncio.gather(saying, return_exceptions=True)
    return bytes(heard)


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
async def test_a_flood_of_frames_ends_its_connection(stage: Stage, flood: Callable[[], bytes]) -> None:
    """The connection is closed, at the latest when its frames have been counted; no place is lost."""
    await stage.serve(answering())
    client = await stage.connect()

    await pour(client, PREFACE + frame(4, 0, 0) + flood())

    await all_is_well(stage)


async def test_rapid_reset_is_told_to_calm_down(stage: Stage) -> None:
    """GOAWAY names the reason, and few of the requests got to the instance."""
    (backend,) = await stage.serve(answering())
    client = await stage.connect()

    heard = await pour(client, PREFACE + frame(4, 0, 0) + rapid_reset())

    await all_is_well(stage)
    codes, at = [], 0
    while at + 9 <= len(heard):
        length = int.from_bytes(heard[at : at + 3])
        if heard[at + 3] == 7:
            codes.append(int.from_bytes(heard[at + 13 : at + 17]))
        at += 9 + length
    assert codes in ([], [ENHANCE_YOUR_CALM])  # a reset of the connection may have overtaken it
    assert len(backend.heads) <= 250


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", 431),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ],
    ids=["a head of 1 MiB", "10 000 headers", "a long target"],
)
async def test_heads_without_measure_are_refused(stage: Stage, head: bytes, status: int) -> None:
    """They reach no instance, and what more is sent is not read for long."""
    (backend,) = await stage.serve(answering())
    client = await stage.connect()

    heard = await pour(client, head)

    statuses = {int(heard.split(b" ")[1])} if heard else set()
    assert statuses <= {status, 431}
    assert backend.heads == []
    await all_is_well(stage)


async def test_slow_heads_hold_nobody_up(stage: Stage) -> None:
    """A thousand connections that send a head byte by byte take no place, and others are served."""
    await stage.serve(answering())
    clients = await asyncio.gather(*(stage.connect() for _ in range(1000)))
    for byte in b"GET / HTTP":
        for client in clients:
            client.writer.write(bytes([byte]))

    await all_is_well(stage)


async def test_a_body_that_trickles_is_given_up(stage: Stage) -> None:
    """After 10 s of waiting, 256 bytes a second are asked for: 408, and the place is free again."""

    async def script(peer: Peer) -> None:
        if (await peer.head()).startswith(b"POST"):
            await peer.exactly(1_000_000)
        await peer.say(OK)

    await stage.serve(script)
    await stage.push(concurrency=1, timeout_ms=None)
    client = await stage.connect()
    await client.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")

    async def trickle() -> None:
        with suppress(ConnectionError):
            while True:
                await client.say(b"x")
                await asyncio.sleep(0.5)

    trickling = asyncio.create_task(trickle())
    answer = await client.answer()
    trickling.cancel()
    await asyncio.gather(trickling, return_exceptions=True)

    assert (answer.status, answer.reason) == (408, "body_too_slow")
    await all_is_well(stage)
