"""Bodies: streamed both ways, ended as the other side ends them, never longer in flight than they must be."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from tests.gateway.backend import OK, Peer, answering
from tests.gateway.conftest import Stage

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
MIB = 1 << 20


async def test_an_answer_streams_as_it_comes(stage: Stage) -> None:
    """A client sees the first event of a stream that does not end."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await peer.say(b"9\r\ndata: 1\n\n\r\n")
        await peer.gone()

    await stage.serve(script)
    client = await stage.connect()
    await client.say(GET)

    async with asyncio.timeout(20):
        event = await client.reader.readuntil(b"data: 1\n\n")

    assert event.endswith(b"data: 1\n\n")


async def test_a_client_that_does_not_read_holds_the_instance_back(stage: Stage) -> None:
    """An answer without end waits for its reader at the instance, not in the gateway's memory."""
    blocked = asyncio.Event()
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            peer.writer.write(b"x" * 65536)
            sent += 65536
            try:
                async with asyncio.timeout(0.5):
                    await peer.writer.drain()
            except TimeoutError:
                blocked.set()
                await peer.gone()

    await stage.serve(script)
    assert stage.running.process is not None
    process = psutil.Process(stage.running.process.pid)
    before = process.memory_info().rss
    client = await stage.connect()
    await client.say(GET)

    async with asyncio.timeout(30):
        await blocked.wait()

    grown = process.memory_info().rss - before
    assert (sent < 100 * MIB, grown < 8 * MIB) == (True, True)


async def test_an_upload_streams_and_waits_for_its_reader(stage: Stage) -> None:
    """A large request body arrives whole at an instance that reads slowly."""
    size = 8 * MIB
    got = 0

    async def script(peer: Peer) -> None:
        nonlocal got
        await peer.head()
        while got < size:
            got += len(await peer.reader.read(65536))
        await peer.say(OK)

    await stage.serve(script)
    client = await stage.connect()

    await client.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    answer = await client.answer()

    assert (answer.status, got) == (200, size)


async def test_a_chunked_upload_keeps_its_chunks_and_trailers(stage: Stage) -> None:
    """A body of unknown length arrives as one, with its trailers, and the connection is kept."""
    bodies: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            if b"transfer-encoding: chunked" in head.lower():
                bodies.append(await peer.reader.readuntil(b"\r\n\r\n"))
            await peer.say(OK)

    await stage.serve(script)
    client = await stage.connect()
    await client.say(b"POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.say(b"5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n")
    first = await client.answer()
    await client.say(GET)
    second = await client.answer()

    assert (first.status, second.status, bodies) == (200, 200, [b"5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"])


async def test_trailers_of_an_answer_reach_a_client_that_takes_them(stage: Stage) -> None:
    """TE: trailers goes on to the instance, and its trailers come back."""

    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert b"te: trailers" in head.lower()
        await peer.say(
            b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n"
        )
        await peer.gone()

    await stage.serve(script)

    answer = await stage.ask(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers\r\n\r\n")

    assert answer.body == b"2\r\nok\r\n0\r\nx-sum: 7\r\n"


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
    ],
    ids=["HEAD", "204", "304"],
)
async def test_an_answer_without_a_body_ends_with_its_head(
    stage: Stage, request_: bytes, said: bytes
) -> None:
    """HEAD, 204 and 304 have no body whatever their head says, and the connection is kept."""
    await stage.serve(answering(said))
    client = await stage.connect()

    for _ in range(2):
        await client.say(request_)
        answer = await client.answer(head_only=True)

        length = answer.headers.get("content-length")
        assert (answer.status, length) == (int(said.split()[1]), "1000" if b"HEAD" in request_ else None)


async def test_an_answer_that_ends_with_its_connection_is_whole(stage: Stage) -> None:
    """A body without a length ends where the instance closes; the client gets it chunked."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.0 200 Fine\r\n\r\nhello")

    await stage.serve(script)

    answer = await stage.ask(GET)

    assert (answer.head.split(b"\r\n")[0], answer.body) == (b"HTTP/1.1 200 Fine", b"5\r\nhello\r\n0\r\n")


async def test_an_answer_that_breaks_off_does_not_pass_for_whole(stage: Stage) -> None:
    """When a large answer breaks off the client's connection does, too; nothing is made up."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 1000)
        peer.reset()

    await stage.serve(script)
    client = await stage.connect()
    await client.say(GET)

    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.answer()
    assert (await stage.figures())["failures"] == 1


async def test_continue_is_said_once_an_instance_asks(stage: Stage) -> None:
    """The client's body waits for 100 from the instance; a final answer before it needs no body."""
    order: list[str] = []

    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert b"expect: 100-continue" in head.lower()
        order.append("asked")
        await peer.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.exactly(5) == b"hello"
        await peer.say(OK)

    await stage.serve(script)
    client = await stage.connect()
    await client.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    async with asyncio.timeout(20):
        interim = await client.head()
    order.append("continued")
    await client.say(b"hello")
    answer = await client.answer()

    assert (interim.split(b"\r\n")[0], answer.status, order) == (
        b"HTTP/1.1 100 Continue",
        200,
        ["asked", "continued"],
    )


async def test_an_early_no_to_an_expectation_needs_no_body(stage: Stage) -> None:
    """An instance that refuses by the head alone is heard, and 100 is never said."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
        await peer.gone()

    await stage.serve(script)

    answer = await stage.ask(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )

    assert answer.status == 417


async def test_nobody_is_told_to_continue_while_the_request_waits(stage: Stage) -> None:
    """A request in the queue attracts no body."""
    await stage.serve()
    await stage.push(wait_ms=300)

    answer = await stage.ask(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )

    assert (answer.status, answer.reason) == (503, "no_target")


async def test_early_hints_are_passed_on(stage: Stage) -> None:
    """An interim answer that nobody waits for reaches the client before the final one."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n")
        await peer.say(OK)
        await peer.gone()

    await stage.serve(script)
    client = await stage.connect()
    await client.say(GET)

    interim = await client.head()
    answer = await client.answer()

    assert (interim, answer.status) == (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", 200)


async def test_a_websocket_is_a_tunnel_until_either_side_ends_it(stage: Stage) -> None:
    """After 101 bytes go both ways, those sent at once included; the request is in flight until the end."""

    async def script(peer: Peer) -> None:
        head = (await peer.head()).lower()
        assert b"upgrade: websocket" in head
        assert b"connection: upgrade" in head
        await peer.say(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly"
        )
        await peer.say(await peer.exactly(5))
        await peer.gone()

    await stage.serve(script)
    client = await stage.connect()
    await client.say(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")

    head = await client.head()
    echoed = await client.reader.readexactly(10)
    busy = (await stage.figures())["in_flight"]
    client.writer.transport.abort()
    await stage.until("in_flight", 0)

    assert (b"101" in head, echoed, busy) == (True, b"earlyhello", 1)


async def test_bytes_behind_a_refused_upgrade_are_the_next_request(stage: Stage) -> None:
    """Without a 101 nothing is tunnelled."""
    (backend,) = await stage.serve(answering())
    client = await stage.connect()

    await client.say(b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    await client.say(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    statuses = [(await client.answer()).status for _ in range(2)]

    assert (statuses, [head.split()[1] for head in backend.heads]) == ([200, 200], [b"/1", b"/2"])


async def test_a_client_that_goes_ends_its_request(stage: Stage) -> None:
    """An abort closes the connection to the instance and gives the place back."""
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        arrived.set()
        await peer.gone()
        gone.set()

    await stage.serve(script)
    client = await stage.connect()
    await client.say(GET)
    await arrived.wait()

    client.writer.transport.abort()
    async with asyncio.timeout(20):
        await gone.wait()
    await stage.until("in_flight", 0)

    assert (await stage.figures())["targets"]["web-0"]["in_flight"] == 0


async def test_the_connection_that_a_long_answer_came_on_is_kept(stage: Stage) -> None:
    """Though its reader, who knows its length, does not ask again behind its last byte."""
    (instance,) = await stage.serve(
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000)
    )
    client = await stage.connect()

    for _ in range(3):
        await client.say(GET)
        assert len((await client.answer()).body) == 200_000

    assert instance.connections == 1
