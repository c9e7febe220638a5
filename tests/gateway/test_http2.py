"""HTTP/2 from clients, in clear text by prior knowledge."""

from __future__ import annotations

import asyncio
import json

from tests.gateway.backend import OK, Endless, Peer, answering
from tests.gateway.conftest import Stage
from tests.gateway.http2 import Http2Client


async def test_a_client_may_speak_http2_at_once(stage: Stage) -> None:
    """The preface is enough; the instance gets HTTP/1.1 with the authority as its Host."""
    (backend,) = await stage.serve(answering())
    client = await stage.connect_http2()

    answer = await client.ask("/a?b=c")

    head = backend.heads[0]
    assert (answer.status, answer.body) == (200, b"ok")
    assert head.startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert b"\r\nhost: shop\r\n" in head.lower()


async def test_a_preface_in_pieces_is_recognised(stage: Stage) -> None:
    """The first bytes decide, however they are cut; P alone is not yet POST."""
    await stage.serve(answering())
    client = await stage.connect()
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":
        await client.say(bytes([byte]))
    await client.say(b"\0\0\0\4\0\0\0\0\0")

    async with asyncio.timeout(30):
        head = await client.reader.readexactly(9)

    assert head[3] == 4  # SETTINGS


async def test_http1_goes_on_beside_http2(stage: Stage) -> None:
    """A listener tells the versions apart by each connection's first bytes, PUT and POST from PRI too."""
    await stage.serve(answering())

    statuses = [
        (await stage.ask(b"%s / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" % method)).status
        for method in (b"GET", b"POST", b"PUT", b"PATCH", b"PROPFIND")
    ]

    assert statuses == [200] * 5


async def test_each_stream_takes_its_own_place(stage: Stage) -> None:
    """Requests of one connection are at as many instances as they have places, and the others wait."""
    here = asyncio.Semaphore(0)
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            here.release()
            await go.wait()
            await peer.say(OK)

    await stage.serve(script, script)
    await stage.push(concurrency=1)
    client = await stage.connect_http2()
    streams = [await client.request(f"/{number}") for number in range(5)]
    for _ in range(2):
        await here.acquire()
    await stage.until("waiting", 3)
    figures = await stage.figures()
    go.set()

    answers = [await client.answer(stream) for stream in streams]

    in_flight = [target["in_flight"] for target in figures["targets"].values()]
    assert (in_flight, [answer.status for answer in answers]) == ([1, 1], [200] * 5)


async def test_a_stream_given_up_gives_its_place_back(stage: Stage) -> None:
    """RST_STREAM ends the request at the instance, and only that one."""
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        if b"/long" in await peer.head():
            await peer.gone()
            gone.set()
        else:
            await peer.say(OK)

    await stage.serve(script)
    await stage.push(concurrency=1)
    client = await stage.connect_http2()
    long = await client.request("/long")
    await stage.until("in_flight", 1)
    client.h2.reset_stream(long)
    await client.flush()
    async with asyncio.timeout(30):
        await gone.wait()

    answer = await client.ask("/next")

    await stage.until("in_flight", 0)
    assert answer.status == 200


async def test_bodies_and_trailers_pass_between_the_versions(stage: Stage) -> None:
    """A body of unknown length gets there in chunks; an answer's trailers come back as trailers."""
    bodies: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.head()
        bodies.append(await peer.reader.readuntil(b"0\r\n\r\n"))
        await peer.say(
            b"HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"
        )

    await stage.serve(script)
    client = await stage.connect_http2()
    stream = await client.request(method="POST", headers=[("te", "trailers")], end=False)
    await client.send_data(stream, b"hello", end=True)

    answer = await client.answer(stream)

    assert (bodies, answer.body) == ([b"5\r\nhello\r\n0\r\n\r\n"], b"ok")
    assert answer.trailers == {"x-sum": "7"}


async def test_a_cookie_in_pieces_reaches_the_instance_whole(stage: Stage) -> None:
    """HTTP/2 may cut Cookie up, HTTP/1.1 may not."""
    (backend,) = await stage.serve(answering())
    client = await stage.connect_http2()

    await client.answer(await client.request(headers=[("cookie", "a=1"), ("cookie", "b=2")]))

    assert b"\r\ncookie: a=1; b=2\r\n" in backend.heads[0].lower()


async def test_authority_and_host_must_agree(stage: Stage) -> None:
    """A request that names two hosts reaches nobody."""
    (backend,) = await stage.serve(answering())
    client = await Http2Client.open(stage.port, lenient=True)

    answer = await client.answer(await client.request(headers=[("host", "other")]))

    await client.close()
    assert (answer.status, backend.heads) == (400, [])


async def test_a_length_said_twice_is_refused_here_too(stage: Stage) -> None:
    """An instance would get both, and many refuse that or worse (RFC 9112 section 6.3)."""
    (backend,) = await stage.serve(answering())
    client = await stage.connect_http2()

    twice = [("content-length", "0"), ("content-length", "0")]
    answer = await client.answer(await client.request(method="POST", headers=twice))

    assert (answer.status, backend.heads) == (400, [])


async def test_the_gateways_own_answers_are_problems_here_too(stage: Stage) -> None:
    """A request that no rule is for gets a problem document."""
    await stage.serve()
    await stage.push(wait_ms=1)
    client = await stage.connect_http2()

    answer = await client.ask()

    assert (answer.status, json.loads(answer.body)["reason"]) == (503, "no_target")


async def test_a_reader_that_stops_blocks_the_instance(stage: Stage) -> None:
    """An answer that nobody takes is not gathered: the instance can't send on."""
    endless = Endless()
    await stage.serve(endless)
    client = await stage.connect_http2()
    client.takes_data = False
    await client.request()
    await endless.until_blocked()

    # The windows, the buffers of two sockets in the kernel and what lies between.
    assert endless.sent < 16 << 20


async def test_more_than_a_hundred_streams_wait_for_their_turn(stage: Stage) -> None:
    """The gateway says how many requests one connection may have at a time."""
    await stage.serve(answering())
    client = await stage.connect_http2()
    await client.ask()

    assert client.h2.remote_settings.max_concurrent_streams == 100


async def test_a_listener_that_goes_says_goodbye(stage: Stage) -> None:
    """GOAWAY after the last answer, when the table does not name the address any more."""
    here, go = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        here.set()
        await go.wait()
        await peer.say(OK)

    await stage.serve(script)
    client = await stage.connect_http2()
    stream = await client.request()
    await here.wait()
    old, stage.port = stage.port, stage.port + 1
    try:
        await stage.push()
    finally:
        stage.port = old
    go.set()

    answer = await client.answer(stream)
    await client.until(lambda: client.goaway is not None)

    assert (answer.status, client.goaway) == (200, 0)


async def test_a_client_that_measures_its_way_by_pings_is_no_flood(stage: Stage) -> None:
    """One for each piece of an answer, as grpc-go does to find out how much may be on the way."""
    pieces = 500

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(pieces):
            await peer.say(b"5\r\nhello\r\n")
            await has_pinged.wait()
            has_pinged.clear()
        await peer.say(b"0\r\n\r\n")

    has_pinged = asyncio.Event()
    await stage.serve(script)
    client = await stage.connect_http2()
    stream = await client.request()
    for number in range(1, pieces + 1):
        await client.until(lambda number=number: len(client.streams[stream].body) >= 5 * number)  # type: ignore[misc]
        client.h2.ping(b"measures")
        await client.flush()
        has_pinged.set()

    answer = await client.answer(stream)

    assert (answer.ended, answer.body, client.goaway) == (True, b"hello" * pieces, None)
