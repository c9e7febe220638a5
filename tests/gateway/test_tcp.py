"""Services whose connections are raw (mode: tcp)."""

from __future__ import annotations

import asyncio

from tests.gateway.backend import Backend, Peer
from tests.gateway.conftest import Stage, target


async def serve(stage: Stage, *scripts: object) -> list[Backend]:
    stage.mode = "tcp"
    return await stage.serve(*scripts)  # type: ignore[arg-type]


async def echo(peer: Peer) -> None:
    """Says back what it hears until the client has ended, then says goodbye."""
    while data := await peer.reader.read(65536):
        await peer.say(data)
    await peer.say(b"bye")


async def test_bytes_pass_both_ways_and_ends_one_by_one(stage: Stage) -> None:
    """A client that has ended its side still hears the rest."""
    await serve(stage, echo)
    client = await stage.connect()
    body = b"\0\r\n\xff" * 250_000

    async def talk() -> None:
        await client.say(body)
        client.writer.write_eof()

    talking = asyncio.create_task(talk())
    async with asyncio.timeout(30):
        heard = await client.reader.read(-1)
    await talking

    assert heard == body + b"bye"


async def test_the_instance_may_speak_first(stage: Stage) -> None:
    """Nothing of the client is waited for."""

    async def greet(peer: Peer) -> None:
        await peer.say(b"220 hello\r\n")
        await peer.gone()

    await serve(stage, greet)
    client = await stage.connect()

    async with asyncio.timeout(30):
        line = await client.reader.readline()

    assert line == b"220 hello\r\n"


async def test_a_connection_holds_a_place_until_it_ends(stage: Stage) -> None:
    """The next one waits in the queue for it."""
    await serve(stage, echo)
    await stage.push(concurrency=1)
    first = await stage.connect()
    await first.say(b"a")
    await first.reader.readexactly(1)
    second = await stage.connect()
    await second.say(b"b")
    await stage.until("waiting", 1)
    first.writer.close()

    async with asyncio.timeout(30):
        heard = await second.reader.readexactly(1)

    assert heard == b"b"


async def test_an_instance_that_refuses_is_passed_over(stage: Stage) -> None:
    """The connection goes to another one."""
    (backend,) = await serve(stage, echo)
    await stage.push(targets=(target(7, 1), target(0, backend.port)), concurrency=1)

    heard = []
    for _ in range(3):
        client = await stage.connect()
        await client.say(b"x")
        async with asyncio.timeout(30):
            heard.append(await client.reader.readexactly(1))
        client.writer.close()
        await stage.until("in_flight", 0)

    assert heard == [b"x"] * 3


async def test_without_an_instance_the_connection_ends(stage: Stage) -> None:
    """After wait_ms, and it counts as a failure."""
    await serve(stage)
    await stage.push(wait_ms=50)
    client = await stage.connect()

    closed = await client.is_closed()

    assert (closed, (await stage.figures())["failures"]) == (True, 1)


async def test_an_instance_that_breaks_off_ends_the_client_too(stage: Stage) -> None:
    """No place is left behind."""

    async def reset(peer: Peer) -> None:
        await peer.exactly(1)
        peer.reset()

    await serve(stage, reset)
    client = await stage.connect()
    await client.say(b"x")

    closed = await client.is_closed()

    await stage.until("in_flight", 0)
    assert closed
