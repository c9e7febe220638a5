"""What the gateway takes for a request, and what of a head reaches the instance."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest

from tests.gateway.backend import OK, Peer, answering
from tests.gateway.conftest import Stage
from unisono.gateway.table import Rule

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
EMPTY = b"\r\n0\r\n\r\n"

SMUGGLING = {
    "length beside chunked": POST + b"Content-Length: 5\r\n" + CHUNKED + EMPTY,
    "chunked beside length": POST + CHUNKED + b"Content-Length: 5\r\n" + EMPTY,
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": POST + b"Content-Length: +5\r\n\r\nhello",
    "a length with a blank": POST + b"Content-Length: 5 5\r\n\r\nhello",
    "a hexadecimal length": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "chunked twice": POST + CHUNKED + CHUNKED + EMPTY,
    "chunked, then gzip": POST + b"Transfer-Encoding: chunked, gzip\r\n" + EMPTY,
    "gzip, then chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n" + EMPTY,
    "identity, then chunked": POST + b"Transfer-Encoding: identity, chunked\r\n" + EMPTY,
    "an unknown encoding": POST + b"Transfer-Encoding: xchunked\r\n" + EMPTY,
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\n" + CHUNKED + EMPTY,
    "a blank before the colon": POST + b"Transfer-Encoding : chunked\r\n" + EMPTY,
    "a folded line": GET + b"X-A: b\r\n c\r\n\r\n",
    "a bare line feed": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "a bare carriage return": GET + b"X-A: b\rX-B: c\r\n\r\n",
    "a name that is none": GET + b"X(A): b\r\n\r\n",
    "an empty name": GET + b": b\r\n\r\n",
    "a zero byte": GET + b"X-A: \0\r\n\r\n",
    "two hosts": GET + b"Host: b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "a later version": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "a version of two digits": b"GET / HTTP/1.11\r\nHost: a\r\n\r\n",
    "version 2 in words": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "another protocol": b"GET / ICAP/1.0\r\nHost: a\r\n\r\n",
    "a tab in the first line": b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a blank in the target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a zero byte in the target": b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method that is none": b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a blank before the method": b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target that is none": b"GET a HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    "an empty host twice": b"GET / HTTP/1.1\r\nHost:\r\nHost: a\r\n\r\n",
    "a host with a blank": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a host with credentials": b"GET / HTTP/1.1\r\nHost: me@a\r\n\r\n",
    "a list of hosts": b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "length, chunked, length": POST + b"Content-Length: 5\r\n" + CHUNKED + b"Content-Length: 6\r\n" + EMPTY,
    "lengths that differ in zeros": POST + b"Content-Length: 5\r\nContent-Length: 05\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "an empty length": POST + b"Content-Length: \r\n\r\nhello",
    "a length with a fraction": POST + b"Content-Length: 5.0\r\n\r\nhello",
    "a length with an exponent": POST + b"Content-Length: 5e0\r\n\r\nhello",
    "a length beyond 64 bits": POST + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "a length in another script": POST + b"Content-Length: \xd9\xa5\r\n\r\nhello",
    "a length with a comma": POST + b"Content-Length: 5,\r\n\r\nhello",
    "a folded length": POST + b"Content-Length:\r\n 5\r\n\r\nhello",
    "a folded encoding": POST + b"Transfer-Encoding:\r\n chunked\r\n" + EMPTY,
    "a tab before the colon": POST + b"Content-Length\t: 5\r\n\r\nhello",
    "gzip alone": POST + b"Transfer-Encoding: gzip\r\n" + EMPTY,
    "identity": POST + b"Transfer-Encoding: identity\r\n" + EMPTY,
    "chunked in quotes": POST + b'Transfer-Encoding: "chunked"\r\n' + EMPTY,
    "chunked with a parameter": POST + b"Transfer-Encoding: chunked;q=1\r\n" + EMPTY,
    "an empty encoding": POST + b"Transfer-Encoding: \r\n" + EMPTY,
    "chunked with a zero byte": POST + b"Transfer-Encoding: chunked\0\r\n" + EMPTY,
    "chunked behind a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n" + EMPTY,
    "chunked beside length, named by Connection": POST
    + b"Connection: Content-Length\r\nContent-Length: 5\r\n"
    + CHUNKED
    + EMPTY,
    "a bare line feed between fields": GET + b"X-A: b\nX-B: c\r\n\r\n",
    "a bare line feed at the end": GET + b"X-A: b\r\n\n",
    "a carriage return before the colon": GET + b"X-A\r: b\r\n\r\n",
    "a line without a colon": GET + b"X-A\r\n\r\n",
    "a control byte in a value": GET + b"X-A: \x01\r\n\r\n",
    "a folded first field": b"GET / HTTP/1.1\r\n X-A: b\r\nHost: a\r\n\r\n",
    "two blanks in the first line": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("request_", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_an_ambiguous_head_is_refused_and_reaches_no_instance(stage: Stage, request_: bytes) -> None:
    """A head that two readers could read differently gets 400, the connection is closed."""
    (backend,) = await stage.serve(answering())
    client = await stage.connect()

    await client.say(request_ + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await client.answer()
    closed = await client.is_closed()

    assert (answer.status, closed, backend.heads) == (400, True, [])


CHUNKED_FIRST = {
    "a body": POST + CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\n",
    "a body with trailers": POST + CHUNKED + b"Trailer: T\r\n\r\n5\r\nhello\r\n0\r\nT: 1\r\n\r\n",
    "a body for nobody": POST.replace(b" /", b" /nowhere") + CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("first", CHUNKED_FIRST.values(), ids=CHUNKED_FIRST)
async def test_no_ambiguous_head_passes_behind_a_chunked_body(stage: Stage, first: bytes) -> None:
    """Where the body was not read to its end, and the next head's place is unknown, the connection ends."""
    stage.rules = (Rule(service="shop/web", path="/a"),)

    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            await peer.reader.readuntil(b"0\r\n")
            while await peer.reader.readline() != b"\r\n":
                pass
            await peer.say(OK)

    (instance,) = await stage.serve(script)
    client = await stage.connect()
    await client.say(first.replace(b" / ", b" /a "))
    reached = (await client.answer()).status == 200

    heard = b""
    async with asyncio.timeout(30):
        with suppress(ConnectionError):
            await client.say(POST.replace(b" / ", b" /a ") + b"Content-Length: 5\r\n" + CHUNKED + EMPTY)
            heard = await client.reader.read()

    assert heard.startswith(b"HTTP/1.1 400 ") if reached else heard == b""
    assert len(instance.heads) == reached


@pytest.mark.parametrize(
    "size",
    [
        b"5\n",
        b"-5\r\n",
        b"+5\r\n",
        b"0x5\r\n",
        b"5 5\r\n",
        b"\r\n",
        b"g\r\n",
        b"5\r",
        b"11111111111111111\r\n",
        b"5;" + b"x" * 100_000 + b"\r\n",
    ],
)
async def test_a_bad_chunk_breaks_the_request_off(stage: Stage, size: bytes) -> None:
    """A body whose chunks are malformed never becomes a complete request at an instance."""
    complete: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.head()
        complete.append(await peer.reader.readuntil(b"0\r\n\r\n"))
        await peer.say(OK)

    await stage.serve(script)
    client = await stage.connect()
    await client.say(POST + CHUNKED + b"\r\n" + size + b"hello\r\n0\r\n\r\n")

    async with asyncio.timeout(30):
        await client.reader.read()

    assert complete == []


async def test_hop_by_hop_headers_end_at_the_gateway(stage: Stage) -> None:
    """Connection, what it names, and their kin don't reach the instance; what others rely on does."""
    (backend,) = await stage.serve(answering())

    await stage.ask(
        b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close, X-Own, Authorization, X-Forwarded-For\r\n"
        b"X-Own: 1\r\nAuthorization: me\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\n\r\n"
    )

    head = backend.heads[0].lower()
    gone = [
        name for name in (b"\r\nconnection:", b"\r\nx-own:", b"\r\nkeep-alive:", b"\r\nte:") if name in head
    ]
    assert (gone, b"\r\nauthorization: me\r\n" in head) == ([], True)


async def test_a_client_cannot_say_who_it_is(stage: Stage) -> None:
    """X-Forwarded-* and Forwarded say what the gateway knows, whatever the client claims."""
    (backend,) = await stage.serve(answering())

    await stage.ask(
        b"GET / HTTP/1.1\r\nHost: shop:81\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n"
        b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\n\r\n"
    )

    lines = sorted(line for line in backend.heads[0].lower().split(b"\r\n") if b"forwarded" in line)
    assert lines == [
        b'forwarded: for=127.0.0.1;host="shop:81";proto=http',
        b"x-forwarded-for: 127.0.0.1",
        b"x-forwarded-host: shop:81",
        b"x-forwarded-port: " + str(stage.port).encode(),
        b"x-forwarded-proto: http",
    ]


async def test_an_absolute_target_names_the_host(stage: Stage) -> None:
    """A request target in absolute form goes before Host, and goes on in origin form."""
    (backend,) = await stage.serve(answering())

    await stage.ask(b"GET http://shop/a%2Fb/../c?d=%20 HTTP/1.1\r\nHost: other\r\n\r\n")

    lines = backend.heads[0].split(b"\r\n")
    assert (lines[0], [line for line in lines if line.lower().startswith(b"host:")]) == (
        b"GET /a%2Fb/../c?d=%20 HTTP/1.1",
        [b"host: shop"],
    )


@pytest.mark.parametrize("more", [b"", b"X-Request-Timeout: 5\r\n"], ids=["plain", "hyper's"])
async def test_an_absolute_target_without_a_path_is_for_the_root(stage: Stage, more: bytes) -> None:
    """What goes on begins with a slash, as a request target must (RFC 9112 section 3.2.1)."""
    (backend,) = await stage.serve(answering())

    await stage.ask(b"GET http://shop?a=b HTTP/1.1\r\nHost: shop\r\n" + more + b"\r\n")

    assert backend.heads[0].split(b"\r\n")[0] == b"GET /?a=b HTTP/1.1"


async def test_routes_go_by_the_longest_path_and_the_host(stage: Stage) -> None:
    """A path matches on segment boundaries only; what matches nothing gets a problem document."""
    stage.rules = (
        Rule(service="shop/web", path="/orders"),
        Rule(service="shop/web", path="/", host="shop.test"),
    )
    await stage.serve(answering())

    async def status(path: str, host: str) -> int:
        return (await stage.ask(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).status

    found = [
        await status("/orders", "a"),
        await status("/orders/7", "a"),
        await status("/ordersx", "a"),
        await status("/", "a"),
        await status("/", "SHOP.test:80"),
    ]

    assert found == [200, 200, 404, 404, 200]


async def test_no_route_is_a_problem_document(stage: Stage) -> None:
    """An answer of the gateway's own is problem+json with the reason as a header."""
    stage.rules = (Rule(service="shop/web", path="/orders"),)
    await stage.serve(answering())

    answer = await stage.ask(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")

    document = json.loads(answer.body)
    assert (answer.headers["content-type"], answer.reason) == ("application/problem+json", "no_route")
    assert (document["status"], document["reason"], "/x" in document["detail"]) == (404, "no_route", True)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"b" * 70_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741825\r\n\r\n", 413),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
    ],
    ids=["many headers", "a large head", "a large body", "connect"],
)
async def test_sizes_have_limits(stage: Stage, head: bytes, status: int) -> None:
    """Too much of anything is refused before an instance hears of it."""
    (backend,) = await stage.serve(answering())

    answer = await stage.ask(head)

    assert (answer.status, backend.heads) == (status, [])


async def test_a_request_that_ends_a_connection_is_answered_first(stage: Stage) -> None:
    """Connection: close from the client is kept; HTTP/1.0 closes by itself and needs no Host."""
    await stage.serve(answering())
    client = await stage.connect()

    await client.say(b"GET / HTTP/1.0\r\n\r\n")
    answer = await client.answer()

    assert (answer.status, answer.body, await client.is_closed()) == (200, b"ok", True)


async def test_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    """Requests sent at once on one connection get their answers in their order."""

    async def script(peer: Peer) -> None:
        while True:
            path = (await peer.head()).split(b" ")[1]
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))

    await stage.serve(script)
    client = await stage.connect()
    await client.say(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(3)))

    bodies = [(await client.answer()).body for _ in range(3)]

    assert bodies == [b"/0", b"/1", b"/2"]


async def test_a_head_must_come_within_its_time(stage: Stage) -> None:
    """A client that never ends its head is told 408 and let go after 10 s; others are not held up."""
    await stage.serve(answering())
    slow = await stage.connect()
    await slow.say(b"GET / HTTP/1.1\r\nHost:")

    other = await stage.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(60):
        told = await slow.reader.read()

    assert (other.status, told.split(b"\r\n")[0]) == (200, b"HTTP/1.1 408 Request Timeout")
