"""Requests that are all head and answers in one piece go past hyper; whatever else is said does not."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.backend import OK, Peer
from tests.gateway.conftest import Stage

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
PIECES = {
    "in one piece": (OK,),
    "head, then body": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok"),
    "in the middle of its head": (b"HTTP/1.1 200 OK\r\nConte", b"nt-Length: 2\r\n\r\nok"),
    "in chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",),
    "behind a hint": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK,),
}


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
async def test_an_instance_gets_each_request_once_however_it_answers(
    stage: Stage, pieces: tuple[bytes, ...]
) -> None:
    """Reads, and a request with a body, on one connection: none is lost, none goes out twice."""
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            got.append(head.split(b" ")[1] + (await peer.exactly(4) if head.startswith(b"POST") else b""))
            for piece in pieces:
                await peer.say(piece)
                await asyncio.sleep(0.005)

    (instance,) = await stage.serve(script)
    client = await stage.connect()
    answers = []
    for request in (GET % 1, GET % 2, POST, GET % 3):
        await client.say(request)
        if b" 103 " in pieces[0]:
            assert b" 103 " in await client.head()
        answers.append((await client.answer()).body)

    assert [b"ok" in answer for answer in answers] == [True] * 4
    assert got == [b"/1", b"/2", b"/postbody", b"/3"]
    assert instance.connections == 1


async def test_a_connection_on_which_more_came_than_an_answer_is_not_used_again(stage: Stage) -> None:
    """What an instance says unasked is no answer to the next request."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await peer.gone()

    (instance,) = await stage.serve(script)
    client = await stage.connect()
    answers = []
    for number in range(3):
        await client.say(GET % number)
        answers.append((await client.answer()).body)

    assert answers == [b"ok"] * 3
    assert instance.connections == 3


async def test_a_connection_on_which_something_came_while_it_was_idle_is_not_used_again(stage: Stage) -> None:
    """Bytes behind a plain answer, in a segment of their own, are no answer to the next request either."""
    said = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(OK)
        await asyncio.sleep(0.05)
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        said.set()
        await peer.gone()

    (instance,) = await stage.serve(script)
    client = await stage.connect()
    answers = []
    for number in range(3):
        await client.say(GET % number)
        answers.append((await client.answer()).body)
        await said.wait()
        said.clear()

    assert answers == [b"ok"] * 3
    assert instance.connections == 3
