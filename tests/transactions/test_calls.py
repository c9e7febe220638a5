"""Calls over HTTP/1.1: what counts as an answer, and to which call it is one."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from unisono.transactions.calls import HttpCaller, Reply
from unisono.transactions.targets import Address

YES = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes"
NO = b"HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\nno"
UNTIL_THE_END = b"HTTP/1.1 200 OK\r\n\r\nyes"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def participant(serve: Serve) -> AsyncIterator[Callable[[], Awaitable[Reply]]]:
    """Calls a participant that answers as ``serve`` does, on kept connections."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the caller had enough
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    caller = HttpCaller()

    async def call() -> Reply:
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        address = Address("127.0.0.1", port, False, f"127.0.0.1:{port}", "/")
        caller.call(address, b"Content-Length: 0\r\n\r\n", 20.0, answer.set_result)
        return await answer

    try:
        yield call
    finally:
        await caller.close()
        server.close()


async def head(reader: asyncio.StreamReader) -> None:
    await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize("surplus", [NO, NO[:20], b"nonsense", b"\r\n\r\nnonsense"])
async def test_what_nobody_asked_for_is_no_answer_to_the_next_call(surplus: bytes) -> None:
    """A participant that answers twice: the second answer is nobody's, however soon the next call is made."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await head(reader)
            writer.write(YES + surplus)

    async with participant(serve) as call:
        answers = [await call() for _ in range(3)]

    assert [(200, b"yes")] * 3 == [(answer.status, answer.body) for answer in answers]


async def test_what_comes_between_two_calls_ends_the_connection() -> None:
    """Nor is it an answer to the next call."""
    said = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(YES)
        if not said.is_set():
            await asyncio.sleep(0.05)
            writer.write(NO)
            await writer.drain()
            said.set()
            await reader.read()

    async with participant(serve) as call:
        first = await call()
        await said.wait()
        await asyncio.sleep(0.05)
        second = await call()

    assert (200, 200) == (first.status, second.status)


async def test_an_answer_may_end_with_its_connection() -> None:
    """As those of HTTP/1.0 do."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(UNTIL_THE_END)

    async with participant(serve) as call:
        answer = await call()

    assert (200, b"yes", "") == (answer.status, answer.body, answer.error)


async def test_an_answer_that_ends_in_a_reset_is_none() -> None:
    """What came may be the half of it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(UNTIL_THE_END)
        await writer.drain()
        await asyncio.sleep(0.05)
        peer = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with participant(serve) as call:
        answer = await call()

    assert (0, "the answer broke off") == (answer.status, answer.error)


@pytest.mark.parametrize(
    ("begins", "repeats", "where"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x-more: and more\r\n" * 100, "head"),
        (b"HTTP/1.1 200 OK\r\nx-long: ", b"x" * 10_000, "head"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", b"x" * 100_000, "body"),
    ],
)
async def test_an_answer_that_does_not_end_is_cut(begins: bytes, repeats: bytes, where: str) -> None:
    """Whatever it is that does not end: a participant's answer takes a bounded place in memory."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(begins)
        while True:
            writer.write(repeats)
            await writer.drain()

    async with participant(serve) as call:
        answer = await call()

    assert 0 == answer.status
    assert "the answer does not end" in answer.error
    assert answer.error.endswith(where)


async def test_an_interim_answer_is_not_the_answer() -> None:
    """Nor does it cost the connection."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await head(reader)
            writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + YES)

    async with participant(serve) as call:
        answers = [await call() for _ in range(2)]

    assert [200, 200] == [answer.status for answer in answers]
    assert 1 == connections
