"""A client is answered in the same way whether its request is read past hyper or by hyper."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.gateway.backend import OK, Peer, Script, answering, resetting
from tests.gateway.conftest import Client, Running, Stage, eventually
from tests.gateway.test_heads import SMUGGLING
from unisono.gateway.table import AccessLog, Retry, Rule

GET = b"GET /a?b=c HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\nCookie: c=d\r\n\r\n"
POST = b"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
HYPERS = b"\r\n"
"""In front of a head: nothing to HTTP (RFC 9112 section 2.2), and enough for hyper to have the request."""

LARGE = 50_000
ANSWERS = {
    "small": OK,
    "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "large": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + b"a" * LARGE,
    "larger than what is held back": b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"a" * 200_000,
    "dated": b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2\r\n\r\nok",
    "with a field twice": b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
    "in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "in chunks with a trailer": b"HTTP/1.1 200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
    "without content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n',
    "reset content": b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
    "not found": b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
    "of an unknown status": b"HTTP/1.1 299 Fine\r\nContent-Length: 2\r\n\r\nok",
    "in its own words": b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nok",
    "of an older version": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
    "behind a hint": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK,
    "with a connection of its own": b"HTTP/1.1 200 OK\r\nConnection: close, X-B\r\nX-B: 1\r\n"
    b"Content-Length: 2\r\n\r\nok",
    "not HTTP": b"no\r\n\r\n",
    "an upgrade unasked": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
}


async def until_closed(peer: Peer) -> None:
    """Answers with what ends with the connection."""
    await peer.head()
    await peer.say(b"HTTP/1.1 200 OK\r\n\r\nok")


async def in_the_middle(peer: Peer) -> None:
    """Breaks an answer off that is larger than what is held back."""
    await peer.head()
    await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"a" * 100_000)
    peer.reset()


SCRIPTS: dict[str, Script] = {
    **{name: answering(answer) for name, answer in ANSWERS.items()},
    "until it closes": until_closed,
    "broken off": in_the_middle,
    "reset": resetting,
}


def lines(head: bytes) -> list[bytes]:
    """The lines of a head but for what is another one's in each message, in an order of their own."""
    first, *fields = head.split(b"\r\n")
    varying = rb"unisono-clock|traceparent|x-forwarded-port"
    if b"08:49:37" not in head:
        varying += b"|date"
    kept = [re.sub(rb"(?i)^(" + varying + rb"): .*", rb"\1", field) for field in fields if field]
    return [first, *sorted(kept)]


async def said(client: Client, requests: int) -> list[list[bytes] | bytes]:
    """All that a client hears of so many requests."""
    heard: list[list[bytes] | bytes] = []
    try:
        for _ in range(requests):
            answer = await client.answer()
            if answer.status < 200:
                heard.append(lines(answer.head))
                answer = await client.answer()
            body = re.sub(rb'"trace_id":"\w+"', b"", answer.body)
            heard += [lines(answer.head), body]
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        heard.append(type(error).__name__.encode())
    return heard


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
async def test_an_answer_is_the_same_both_ways(stage: Stage, script: Script) -> None:
    """The client hears the same, and the instance is asked the same."""
    (instance,) = await stage.serve(script)
    await stage.push(retry=Retry(attempts=1))
    heard, asked = [], []
    for begin in (b"", HYPERS):
        client = await stage.connect()
        await client.say(begin + GET)
        heard.append(await said(client, 1))
        asked.append([lines(head) for head in instance.heads])
        instance.heads.clear()

    assert heard[0] == heard[1]
    assert asked[0] == asked[1] != []


PROBLEMS = {
    "no route": b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
    "a host that is none": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "an empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "a deadline that is over": b"GET /a HTTP/1.1\r\nHost: a\r\nX-Request-Timeout: 0\r\n\r\n",
    "a look-alike": b"GET /a HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1.2.3.4\r\n\r\n",
    "claims": b"GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=me\r\n\r\n",
    "keep-alive said": b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\nKeep-Alive: max=5\r\n\r\n",
    "bytes beyond ASCII": b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\nX-A: \xff\xfe\ta\r\n\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "two slashes": b"GET //a/../b HTTP/1.1\r\nHost: a\r\n\r\n",
    "no value": b"GET /a HTTP/1.1\r\nHost: a\r\nX-A:\r\nX-B:   \r\n\r\n",
    "gRPC": b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\n\r\n",
}


@pytest.mark.parametrize("request_", PROBLEMS.values(), ids=PROBLEMS)
async def test_a_request_is_the_same_both_ways(stage: Stage, request_: bytes) -> None:
    """What is refused, cut out or written over, is so both ways, and in the same words."""
    stage.rules = (Rule(service="shop/web", path="/a"), Rule(service="shop/web", path="//a"))
    (instance,) = await stage.serve(answering())
    heard, asked = [], []
    for begin in (b"", HYPERS):
        client = await stage.connect()
        await client.say(begin + request_)
        heard.append(await said(client, 1))
        asked.append([lines(head) for head in instance.heads])
        instance.heads.clear()

    assert (heard[0], asked[0]) == (heard[1], asked[1])


async def test_the_access_log_tells_the_same_both_ways(stage: Stage, tmp_path: Path) -> None:
    """Also of an answer of the gateway's own, and of one that hyper takes over."""
    log = tmp_path / "access.log"
    stage.access_log = AccessLog(format="json", path=str(log))
    stage.rules = (Rule(service="shop/web", path="/a"),)
    await stage.serve(answering(ANSWERS["in chunks"]))
    for begin in (b"", HYPERS):
        for request in (GET, PROBLEMS["no route"]):
            client = await stage.connect()
            await client.say(begin + request)
            await client.answer()

    async def has_all() -> bool:
        return log.exists() and log.read_bytes().count(b"\n") == 4

    await eventually(has_all)
    told = [json.loads(line) for line in log.read_text().splitlines()]
    varying = re.compile("_ms$|^(at|time|trace.*|attempts)$")
    kept = [{key: value for key, value in line.items() if not varying.search(key)} for line in told]
    by_status = {status: [line for line in kept if line["status"] == status] for status in (200, 404)}
    assert all(len(pair) == 2 and pair[0] == pair[1] for pair in by_status.values()), by_status


async def test_requests_in_one_piece_are_answered_in_their_order(stage: Stage) -> None:
    """Plain ones, one with a body, plain ones again: none overtakes, none is lost."""

    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            body = await peer.exactly(4) if head.startswith(b"POST") else b""
            said = head.split(b" ")[1] + body
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)

    await stage.serve(script)
    client = await stage.connect()
    plain = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
    await client.say(b"".join((plain % 1, plain % 2, POST, plain % 3, plain % 4)))

    answers = [(await client.answer()).body for _ in range(5)]
    assert answers == [b"/1", b"/2", b"/postbody", b"/3", b"/4"]


async def test_what_comes_while_a_request_is_answered_is_answered_next(stage: Stage) -> None:
    """In its order too when it comes in pieces, cut in the middle of a head."""
    may_answer = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            await may_answer.wait()
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + head.split(b" ")[1])

    (instance,) = await stage.serve(script)
    client = await stage.connect()
    await client.say(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")

    async def has_one() -> bool:
        return len(instance.heads) == 1

    await eventually(has_one)
    for piece in (b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HT", b"TP/1.1\r\nHo", b"st: a\r\n\r\nGET /4 "):
        await client.say(piece)
        await asyncio.sleep(0.01)
    may_answer.set()
    answers = [(await client.answer()).body for _ in range(3)]
    await client.say(b"HTTP/1.1\r\nHost: a\r\n\r\n")
    answers.append((await client.answer()).body)

    assert answers == [b"/1", b"/2", b"/3", b"/4"]


@pytest.mark.parametrize("answer", [OK, ANSWERS["in chunks"]], ids=["plain", "in chunks"])
@pytest.mark.parametrize("request_", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_an_ambiguous_head_behind_a_good_one_is_refused(
    stage: Stage, request_: bytes, answer: bytes
) -> None:
    """Whoever has the connection by then: 400, the end of the connection, and nothing reaches an instance."""
    (instance,) = await stage.serve(answering(answer))
    client = await stage.connect()

    await client.say(GET)
    first = await client.answer()
    await client.say(request_ + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    second = await client.answer()
    closed = await client.is_closed()

    assert (first.status, second.status, closed, len(instance.heads)) == (200, 400, True, 1)


@pytest.mark.parametrize("request_", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_an_ambiguous_head_in_one_piece_with_a_good_one_is_refused(
    stage: Stage, request_: bytes
) -> None:
    """The same when both came at once."""
    (instance,) = await stage.serve(answering())
    client = await stage.connect()

    await client.say(GET + request_ + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    answers = [await client.answer(), await client.answer()]
    closed = await client.is_closed()

    assert ([answer.status for answer in answers], closed, len(instance.heads)) == ([200, 400], True, 1)


@pytest.mark.parametrize("begin", [b"", HYPERS], ids=["plain", "hyper's"])
async def test_a_client_that_goes_takes_its_request_along(stage: Stage, begin: bytes) -> None:
    """The instance hears that nobody waits any more."""
    began, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        began.set()
        await peer.gone()
        gone.set()

    await stage.serve(script)
    client = await stage.connect()
    await client.say(begin + GET)
    await asyncio.wait_for(began.wait(), 20)
    client.writer.close()

    await asyncio.wait_for(gone.wait(), 20)


@pytest.mark.parametrize("begin", [b"", HYPERS], ids=["plain", "hyper's"])
async def test_answers_that_are_through_arrive_though_the_client_has_ended(
    stage: Stage, begin: bytes
) -> None:
    """One that says no more takes what it asks for last along, and no answer before that."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(ANSWERS["large"])
        await peer.head()
        await peer.gone()

    await stage.serve(script)
    with socket.socket() as client:
        # So small that most of the answer waits in the gateway's kernel.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", stage.port))
        await loop.sock_sendall(client, begin + GET + GET)
        client.shutdown(socket.SHUT_WR)

        async def is_over() -> bool:
            return bool((await stage.link.measurements())["connections"] == 0)

        await eventually(is_over)
        heard = b""
        async with asyncio.timeout(20):
            while piece := await loop.sock_recv(client, 65536):
                heard += piece

    assert heard.endswith(b"\r\n\r\n" + b"a" * LARGE)


async def test_a_head_may_come_byte_by_byte_behind_a_plain_one(stage: Stage) -> None:
    """hyper gets it from its first byte."""
    (instance,) = await stage.serve(answering())
    client = await stage.connect()
    statuses = []
    for pieces in ((GET,), [bytes([byte]) for byte in GET], (GET,)):
        for piece in pieces:
            await client.say(piece)
            await asyncio.sleep(0)
        statuses.append((await client.answer()).status)

    assert statuses == [200] * 3
    assert len({tuple(lines(head)) for head in instance.heads}) == 1


async def test_a_connection_goes_on_after_a_rest(stage: Stage) -> None:
    """Idle for longer than it takes to give its buffers back, a connection takes requests of either kind."""
    await stage.serve(answering())
    client = await stage.connect()
    statuses = []
    for request in (GET, HYPERS + GET, GET):
        await client.say(request)
        statuses.append((await client.answer()).status)
        await asyncio.sleep(0.7)
    await client.say(GET + GET)
    statuses += [(await client.answer()).status, (await client.answer()).status]

    assert statuses == [200] * 5


@pytest.mark.parametrize("begin", [b"", HYPERS], ids=["plain", "hyper's"])
async def test_a_gateway_that_goes_ends_connections_with_their_answer(folder: Path, begin: bytes) -> None:
    """One that waits for nothing is closed at once, one that waits for an answer hears it is the last."""
    gateway, release = Running(folder), asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            if (await peer.head()).startswith(b"GET /busy "):
                await release.wait()
            await peer.say(OK)

    gateway.start()
    async with AsyncExitStack() as stack:
        stack.callback(gateway.stop)
        stage = Stage(gateway, stack)
        (instance,) = await stage.serve(script)
        idle, busy = await stage.connect(), await stage.connect()
        await idle.say(begin + GET)
        await idle.answer()
        await busy.say(begin + GET.replace(b"/a?b=c", b"/busy"))

        async def has_both() -> bool:
            return len(instance.heads) == 2

        await eventually(has_both)
        assert gateway.process is not None
        gateway.process.terminate()

        assert await idle.is_closed()
        release.set()
        answer = await busy.answer()
        assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"ok", "close")
        assert await busy.is_closed()
