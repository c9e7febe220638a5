"""Stamps of the hybrid logical clock: what passes through the gateway is in causal order, known or not."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import AsyncExitStack
from typing import Any

import grpc
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from tests.gateway.backend import OK, Peer, Script, answering, resetting
from tests.gateway.conftest import Answer, Stage, target

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%s\r\n"
STAMPED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\nok"
HOUR_MS = 3_600_000


def ahead(ms: int) -> int:
    """A stamp of a clock that is so far ahead."""
    return (int(time.time() * 1000) + ms) << 16


def bearing(stamp: int) -> bytes:
    """Its header."""
    return f"unisono-clock: {stamp:016x}\r\n".encode()


def stamps_in(head: bytes) -> list[int]:
    """What the header says, as often as it is there."""
    return [int(text, 16) for text in re.findall(rb"\r\nunisono-clock: ([0-9a-f]{16})\r\n", head)]


def stamp_in(head: bytes) -> int:
    """The one stamp of a head."""
    [stamp] = stamps_in(head)
    return stamp


def stamp_of(answer: Answer) -> int:
    """The one stamp of an answer."""
    return stamp_in(answer.head)


def stamping(stamp: int) -> Script:
    """A service that answers with a stamp."""
    return answering(OK.replace(b"\r\n\r\n", b"\r\n" + bearing(stamp) + b"\r\n"))


async def test_causes_come_before_effects_through_a_service_that_knows_nothing(stage: Stage) -> None:
    """Client, request as the instance gets it, answer, and the same again on what the answer bore."""
    [backend] = await stage.serve(answering())
    began = ahead(300)

    first = stamp_of(await stage.ask(GET % bearing(began)))
    second = stamp_of(await stage.ask(GET % bearing(first)))

    [[asked], [asked_again]] = [stamps_in(head) for head in backend.heads]
    assert began < asked < first < asked_again < second


async def test_what_an_instance_has_seen_is_before_what_comes_later(stage: Stage) -> None:
    """The next request knows of it, though another client sends it, without a stamp."""
    bore = ahead(300)
    [backend] = await stage.serve(stamping(bore))

    await stage.ask(GET % b"")
    await stage.ask(GET % b"")

    [_, [later]] = [stamps_in(head) for head in backend.heads]
    assert later > bore


async def test_each_try_has_a_stamp_of_its_own(stage: Stage) -> None:
    """And the gateway's own answer, when all have failed, comes after them."""
    backends = await stage.serve(resetting, resetting)

    answer = await stage.ask(GET % b"")

    tries = [stamp for backend in backends for head in backend.heads for stamp in stamps_in(head)]
    assert len(tries) == len(set(tries)) >= 2
    assert stamp_of(answer) > max(tries)


async def test_a_clock_an_hour_ahead_is_not_followed_but_counted(stage: Stage) -> None:
    """Neither a client's nor an instance's: the stamps are replaced."""
    [backend] = await stage.serve(stamping(ahead(HOUR_MS)))
    before = await refused(stage)

    answer = await stage.ask(GET % bearing(ahead(HOUR_MS)))

    [[asked]] = [stamps_in(head) for head in backend.heads]
    assert max(asked, stamp_of(answer)) < ahead(HOUR_MS // 2)
    assert await refused(stage) == before + 2


async def test_what_is_no_stamp_is_replaced(stage: Stage) -> None:
    """As is a name with an underscore that would pass for it."""
    [backend] = await stage.serve(answering())

    await stage.ask(GET % b"unisono-clock: noon\r\nunisono_clock: noon\r\n")

    [head] = backend.heads
    assert b"noon" not in head
    assert len(stamps_in(head)) == 1


async def test_http2_is_stamped_as_well(stage: Stage) -> None:
    """Towards the client."""
    await stage.serve(answering())
    client = await stage.connect_http2()

    answer = await client.ask()

    assert re.fullmatch("[0-9a-f]{16}", answer.headers["unisono-clock"])


async def test_workers_share_one_clock(stage: Stage) -> None:
    """Many connections at a time, on any worker: no stamp comes twice."""
    (backend,) = await stage.serve(answering())

    answers = await asyncio.gather(*(stage.ask(GET % b"") for _ in range(100)))

    stamps = [stamp_of(answer) for answer in answers] + [stamp_in(head) for head in backend.heads]
    assert 200 == len(set(stamps))


async def test_grpc_carries_stamps(stage: Stage) -> None:
    """As metadata, whether the gateway or a service answers."""
    await stage.push(targets=(), wait_ms=1)
    sent = ahead(300)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stage.port}") as channel:
        ask: Any = channel.unary_unary("/test.Words/Unary")
        call = ask(b"", metadata=(("unisono-clock", f"{sent:016x}"),), timeout=20)
        code = await call.code()
        metadata = {**dict(await call.initial_metadata()), **dict(await call.trailing_metadata())}

    assert code == grpc.StatusCode.UNAVAILABLE
    assert int(metadata["unisono-clock"], 16) > sent


async def test_an_answer_that_leaves_http_is_stamped(stage: Stage) -> None:
    """A WebSocket's handshake is a request and an answer."""
    heard: list[int] = []

    async def note(socket: Any) -> None:
        heard.append(int(socket.request.headers["unisono-clock"], 16))

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(note, "127.0.0.1", 0))
        await stage.push(targets=(target(0, server.sockets[0].getsockname()[1]),))
        sent = ahead(300)
        socket = await stack.enter_async_context(
            connect(f"ws://127.0.0.1:{stage.port}/", additional_headers={"unisono-clock": f"{sent:016x}"})
        )
        await socket.wait_closed()
        assert socket.response is not None
        answered = int(socket.response.headers["unisono-clock"], 16)

    assert sent < heard[0] < answered


async def test_stamps_rise_through_a_service_that_knows_nothing_of_them(stage: Stage) -> None:
    """A asks B, which asks C and passes nothing on: C gets a stamp above A's, and A one above C's."""
    passed: dict[str, int] = {}

    async def script(peer: Peer) -> None:
        head = await peer.head()
        if head.startswith(b"GET /c "):
            passed["to C"] = stamp_in(head)
            passed["from C"] = passed["to C"] + 100
            await peer.say(STAMPED % bearing(passed["from C"]))
            return
        passed["to B"] = stamp_in(head)
        await stage.ask(GET.replace(b"/", b"/c", 1) % b"")
        await peer.say(STAMPED % b"")

    await stage.serve(script)
    sent = ahead(300)

    answer = await stage.ask(GET % bearing(sent))

    told = stamp_of(answer)
    assert sent < passed["to B"] < passed["to C"] < passed["from C"] < told


async def refused(stage: Stage) -> int:
    """How many stamps the gateway has refused to follow."""
    [count] = re.findall(
        r"^unisono_gateway_clock_refused_total (\d+)$", await stage.link.metrics(), re.MULTILINE
    )
    return int(count)
