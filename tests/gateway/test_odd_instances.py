"""Instances that say what is rare, old or wrong: what of it reaches the client, and the next request."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from tests.gateway.backend import OK, Peer, answering
from tests.gateway.conftest import Client, Stage

HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"


async def hinting(peer: Peer) -> None:
    """Says a hint and, in a piece of its own, an answer."""
    while True:
        await peer.head()
        await peer.say(HINT)
        await asyncio.sleep(0.02)
        await peer.say(OK)


async def test_hints_leave_a_connection_of_http2_alone(stage: Stage) -> None:
    """An interim answer as HTTP/1.1 writes it would be nonsense there, to all of its streams."""
    await stage.serve(hinting)
    client = await stage.connect_http2()

    answers = [await client.ask("/") for _ in range(2)]

    assert [(answer.status, answer.body) for answer in answers] == [(200, b"ok")] * 2


async def test_an_older_client_is_told_no_hints(stage: Stage) -> None:
    """HTTP/1.0 has no interim answers: the client would take one for the answer (RFC 9110 section 15.2)."""
    await stage.serve(hinting)

    answer = await stage.ask(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")

    assert (answer.status, answer.body) == (200, b"ok")


async def test_hints_without_end_do_not_pile_up(stage: Stage) -> None:
    """Those that a client does not take are left out."""
    said, is_enough = 0, asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal said
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: %s\r\n\r\n" % (b"a" * 30_000) * 10
        await peer.head()
        while said < 200 << 20:
            await peer.say(hints)
            said += len(hints)
        is_enough.set()
        await peer.gone()

    await stage.serve(script)
    assert stage.running.process is not None
    process = psutil.Process(stage.running.process.pid)
    before = process.memory_info().rss
    client = await stage.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await client.say(NEXT)

    async with asyncio.timeout(30):
        await is_enough.wait()

    assert process.memory_info().rss - before < 32 << 20


LENGTHS = {
    "as a list": (b"Content-Length: 2, 2\r\n", "2"),
    "twice": (b"Content-Length: 2\r\nContent-Length: 2\r\n", "2"),
    "twice, not the same": (b"Content-Length: 2\r\nContent-Length: 3\r\n", None),
    "signed": (b"Content-Length: +2\r\n", None),
    "as no number": (b"Content-Length: two\r\n", None),
}


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
@pytest.mark.parametrize(("said", "length"), LENGTHS.values(), ids=LENGTHS)
async def test_a_length_that_is_said_oddly_is_not_passed_on(
    stage: Stage, method: bytes, said: bytes, length: str | None
) -> None:
    """Equal lengths become one; where there is none to be had, that is no answer (RFC 9110 section 8.6)."""
    body = b"" if method == b"HEAD" else b"ok"
    await stage.serve(answering(b"HTTP/1.1 200 OK\r\n" + said + b"\r\n" + body))
    client = await stage.connect()

    await client.say(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await client.answer(head_only=method == b"HEAD")

    lengths = [line for line in answer.head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    assert len(lengths) == 1
    if length is None:
        assert (answer.status, answer.reason) == (502, "upstream_invalid")
    else:
        assert (answer.status, answer.headers["content-length"], answer.body) == (200, length, body)


@pytest.mark.parametrize("coding", [b"gzip", b"gzip, chunked", b"gzip\r\nTransfer-Encoding: chunked"])
async def test_an_answer_in_an_unknown_coding_is_none(stage: Stage, coding: bytes) -> None:
    """The coding would go with its header, and the client take what is packed for the content itself."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + coding + b"\r\n\r\n2\r\nok\r\n0\r\n\r\n")

    await stage.serve(script)

    answer = await stage.ask(NEXT)

    assert (answer.status, answer.reason) == (502, "upstream_invalid")


async def test_what_follows_an_answer_of_an_older_version_arrives_whole(stage: Stage) -> None:
    """HTTP/1.0 has no chunks: a body of unknown length needs a connection that is not known to speak it."""
    bodies: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            if b"chunked" in await peer.head():
                bodies.append(await peer.reader.readuntil(b"0\r\n\r\n"))
            await peer.say(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")

    (instance,) = await stage.serve(script)
    client: Client = await stage.connect()
    for request in (
        NEXT,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ):
        await client.say(request)
        assert (await client.answer()).status == 200

    assert bodies == [b"5\r\nhello\r\n0\r\n\r\n"]
    assert all(b" HTTP/1.1\r\n" in head for head in instance.heads)
