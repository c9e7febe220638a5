"""What a client can make the API hold before any handler sees it: bounded in length, time and number."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.api.conftest import Served
from unisono.api import protocol

LIMIT = 20.0  # seconds, generous


class Client:
    """A connection that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def of(cls, served: Served) -> Client:
        return cls(*await asyncio.open_unix_connection(str(served.socket_path)))

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_closed(self) -> bytes:
        """All that was said until the other side closed or broke the connection."""
        said = b""
        try:
            async with asyncio.timeout(LIMIT):
                while data := await self.reader.read(1 << 16):
                    said += data
        except ConnectionError:
            pass
        self.writer.close()
        return said


async def flood(client: Client, piece: bytes) -> bytes:
    """Say the same for ever; what was answered before it was cut off."""

    async def on_and_on() -> None:
        while True:
            await client.say(piece)

    saying = asyncio.ensure_future(on_and_on())
    said = await client.until_closed()
    saying.cancel()
    await asyncio.gather(saying, return_exceptions=True)
    return said


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET /", b"x" * 10_000),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"x" * 10_000),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n" * 1000),
    ],
    ids=["address", "value", "fields"],
)
async def test_a_head_without_end_is_refused(served: Served, start: bytes, piece: bytes) -> None:
    """It is answered with a problem, and cut off; others are served."""
    client = await Client.of(served)
    await client.say(start)

    said = await flood(client, piece)

    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert "65536 bytes" in json.loads(body)["detail"]
    assert (await asyncio.to_thread(served.client.node))["id"] == "node-1"


async def test_trailers_without_end_are_cut_off(served: Served) -> None:
    """They come after the body, where no limit of bodies counts them."""
    client = await Client.of(served)
    await client.say(b"PUT /v1/applications/shop HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n")
    await client.say(b"Content-Type: application/json\r\n\r\n0\r\nX: ")

    assert await flood(client, b"x" * 100_000) == b""


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost:"], ids=["nothing", "half a head"])
async def test_a_head_that_does_not_come_is_not_waited_for(
    served: Served, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    """Neither the first one of a connection nor the second."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    first = await Client.of(served)
    await first.say(said)
    second = await Client.of(served)
    await second.say(b"GET /v1/node HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await second.reader.readuntil(b"\r\n\r\n")
    await second.say(said)

    assert await first.until_closed() == b""
    assert answer.startswith(b"HTTP/1.1 200 ")
    await second.until_closed()


async def test_a_stream_may_last_longer_than_a_head(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for in time is answered for as long as that takes."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
    client = await Client.of(served)
    await client.say(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: a\r\n\r\n")
    await client.reader.readuntil(b"\r\n\r\n")
    waiting = asyncio.ensure_future(client.reader.read(1))

    done, _ = await asyncio.wait((waiting,), timeout=0.5)

    assert not done
    waiting.cancel()
    client.writer.close()


async def test_who_comes_beyond_the_last_place_is_cut_off(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who are connected go on."""
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 1)
    first = await Client.of(served)
    await first.say(b"GET /v1/node HTTP/1.1\r\n")
    second = await Client.of(served)

    assert await second.until_closed() == b""
    await first.say(b"Host: a\r\n\r\n")
    assert (await first.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    first.writer.close()
