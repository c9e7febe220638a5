"""Copies of requests to another service, which nobody waits for."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.backend import Backend as Scripted
from tests.gateway.backend import Peer, answering, silent
from tests.gateway.conftest import SERVICE, Stage, eventually, target
from unisono.gateway.table import Backend, Listener, Mirror, Rule, Table

SHADOW = "shop/shadow"
GET = b"GET /a?b=c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody"


async def mirrored(stage: Stage, shadow: Scripted | None, percent: float = 100.0, **more: object) -> Scripted:
    """A service whose requests are copied to another one."""
    backends = await stage.serve(answering())
    targets = (target(1, shadow.port),) if shadow else ()
    own = Backend(targets=stage.backend.targets, wait_ms=2000, mirror=Mirror(service=SHADOW, percent=percent))
    other = Backend(targets=targets, **{"wait_ms": 2000, **more})  # type: ignore[arg-type]
    stage.running.version += 1
    listener = Listener(address=f"127.0.0.1:{stage.port}", rules=(Rule(service=SERVICE),))
    services = {SERVICE: own, SHADOW: other}
    await stage.link.put_table(Table(version=stage.running.version, listeners=(listener,), services=services))
    return backends[0]


async def arrived(shadow: Scripted, count: int) -> None:
    """Wait until so many copies are there."""

    async def are_there() -> bool:
        return len(shadow.heads) == count

    await eventually(are_there)


async def test_a_copy_is_the_same_request_and_says_that_it_is_one(stage: Stage) -> None:
    """The original does not say so, whatever the client claims."""
    shadow = Scripted(answering())
    await shadow.start()
    own = await mirrored(stage, shadow)
    claim = GET.replace(b"Host", b"Unisono-Mirror: 1\r\nUnisono_Mirror: 1\r\nHost")

    answer = await stage.ask(claim)
    await arrived(shadow, 1)
    await shadow.stop()

    assert answer.status == 200
    assert b"mirror" not in own.heads[0].lower()
    assert shadow.heads[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert b"unisono-mirror: 1\r\n" in shadow.heads[0].lower()


async def test_a_body_is_copied(stage: Stage) -> None:
    """Where all of it is here, which it is up to 64 KiB."""
    bodies: list[bytes] = []

    async def reading(peer: Peer) -> None:
        await peer.head()
        bodies.append(await peer.exactly(4))
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    shadow = Scripted(reading)
    await shadow.start()
    await mirrored(stage, shadow)

    await stage.ask(POST)
    await arrived(shadow, 1)

    async def is_read() -> bool:
        return bodies == [b"body"]

    await eventually(is_read)
    await shadow.stop()


async def failing(peer: Peer) -> None:
    await peer.head()
    await peer.say(b"HTTP/1.1 103 Early Hints\r\nX-Shadow: 1\r\n\r\nHTTP/1.1 500 No\r\nX-Shadow: 1\r\n\r\nno")


@pytest.mark.parametrize("script", [failing, silent, None], ids=["failing", "silent", "no instance"])
async def test_what_becomes_of_a_copy_is_nobodys_business(stage: Stage, script: object) -> None:
    """The client's answer is its own service's, and does not wait."""
    shadow = Scripted(script) if script else None  # type: ignore[arg-type]
    if shadow:
        await shadow.start()
    await mirrored(stage, shadow, timeout_ms=60_000)

    answers = [await stage.ask(GET) for _ in range(3)]
    if shadow:
        await arrived(shadow, 3)
        await shadow.stop()

    assert [(answer.status, answer.body) for answer in answers] == [(200, b"ok")] * 3
    assert not any(b"X-Shadow" in answer.head for answer in answers)


async def test_as_many_are_copied_as_is_said(stage: Stage) -> None:
    """Evenly, so that few requests show it."""
    shadow = Scripted(answering())
    await shadow.start()
    await mirrored(stage, shadow, percent=20.0)

    async def are_there() -> bool:
        return len(shadow.heads) >= 8

    for _ in range(50):
        await stage.ask(GET)
    await eventually(are_there)
    await asyncio.sleep(0.2)  # for any that should not come
    count = len(shadow.heads)
    await shadow.stop()

    assert 8 <= count <= 12


async def test_a_copy_takes_a_place_of_the_other_service_and_none_of_its_own(stage: Stage) -> None:
    """So that an instance that copies are sent to is not given more than it takes."""
    shadow = Scripted(silent)
    await shadow.start()
    await mirrored(stage, shadow, concurrency=1, timeout_ms=60_000)
    for _ in range(2):
        await stage.ask(GET)

    async def one_waits() -> bool:
        services = (await stage.link.measurements())["services"]
        figures = services[SHADOW]
        return bool(
            figures["in_flight"] == 1 and figures["waiting"] == 1 and services[SERVICE]["in_flight"] == 0
        )

    await eventually(one_waits)
    count = shadow.connections
    await shadow.stop()

    assert count == 1


async def test_copies_are_bounded(stage: Stage) -> None:
    """Those beyond 256 at a time are left out, and counted."""
    shadow = Scripted(silent)
    await shadow.start()
    await mirrored(stage, shadow, concurrency=1, timeout_ms=60_000, wait_ms=60_000, queue_max=10_000)
    client = await stage.connect()
    before = (await stage.figures())["copies_left_out"]
    for _ in range(260):
        await client.say(GET.replace(b"Connection: close\r\n", b""))
        await client.answer()

    left_out = (await stage.figures())["copies_left_out"] - before
    await shadow.stop()

    assert left_out == 4


async def test_what_cannot_be_had_twice_is_left_out(stage: Stage) -> None:
    """A body that comes in while it is sent."""
    shadow = Scripted(answering())
    await shadow.start()
    await mirrored(stage, shadow)
    chunked = POST.replace(b"Content-Length: 4\r\n\r\nbody", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    before = (await stage.figures())["copies_left_out"]

    answer = await stage.ask(chunked)
    left_out = (await stage.figures())["copies_left_out"] - before
    await shadow.stop()

    assert (answer.status, left_out, shadow.heads) == (200, 1, [])
