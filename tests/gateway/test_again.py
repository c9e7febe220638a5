"""Which request is sent again, and which never is."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.gateway.backend import OK, Peer, answering, resetting, silent
from tests.gateway.conftest import Stage, target
from tests.ports import free_port
from unisono.gateway.table import Retry

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
PUT = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


def taking(body: int) -> object:
    """A script that answers requests with bodies of this size."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            assert await peer.exactly(body) == b"hello"[:body]
            await peer.say(OK)

    return script


@pytest.mark.parametrize("request_", [GET, PUT], ids=["GET", "PUT"])
async def test_an_idempotent_request_is_sent_again_elsewhere(stage: Stage, request_: bytes) -> None:
    """A broken connection before the answer costs the client nothing."""
    await stage.serve(resetting, taking(5 if request_ is PUT else 0))  # type: ignore[arg-type]

    statuses = [(await stage.ask(request_)).status for _ in range(6)]

    assert statuses == [200] * 6


async def test_a_post_is_never_sent_twice(stage: Stage) -> None:
    """It may have happened: the client gets a 502 that says so, and no second instance hears of it."""
    backends = await stage.serve(resetting, resetting)

    answer = await stage.ask(POST)

    document = json.loads(answer.body)
    assert (answer.status, answer.reason, document["may_have_happened"]) == (502, "upstream_reset", True)
    assert sum(len(backend.heads) for backend in backends) == 1


async def test_a_post_with_an_idempotency_key_is_sent_again(stage: Stage) -> None:
    """Who marks a request as repeatable gets it repeated."""
    await stage.serve(resetting, taking(5))  # type: ignore[arg-type]

    requests = POST.replace(b"Host: a", b"Host: a\r\nIdempotency-Key: 7")
    statuses = [(await stage.ask(requests)).status for _ in range(4)]

    assert statuses == [200] * 4


async def test_attempts_are_counted(stage: Stage) -> None:
    """A request that breaks every instance is tried as often as the table says."""
    backends = await stage.serve(resetting, resetting, resetting, resetting)
    await stage.push(retry=Retry(attempts=2))

    answer = await stage.ask(GET)

    assert (answer.status, sum(len(backend.heads) for backend in backends)) == (502, 2)


async def test_an_instance_that_refuses_connections_costs_nothing(stage: Stage) -> None:
    """Not a byte went out, so any request goes elsewhere."""
    (backend,) = await stage.serve(taking(5))  # type: ignore[arg-type]
    await stage.push(targets=(target(7, free_port()), *stage.backend.targets))

    statuses = [(await stage.ask(POST)).status for _ in range(6)]

    assert (statuses, len(backend.heads)) == ([200] * 6, 6)


async def test_a_request_waits_for_an_instance_that_comes(stage: Stage) -> None:
    """Where all refuse, a request goes on waiting, and is served by the first that can."""
    port = free_port()
    await stage.push(targets=(target(0, port),))
    waiting = asyncio.create_task(stage.ask(POST))
    await asyncio.sleep(0.2)
    assert not waiting.done()

    await stage.serve(taking(5))  # type: ignore[arg-type]

    assert (await waiting).status == 200


async def test_a_wait_ends_with_a_reason(stage: Stage) -> None:
    """After wait_ms the client hears when to come back, and that nothing happened."""
    await stage.push(targets=(target(0, free_port()),), wait_ms=200)

    answer = await stage.ask(POST)

    assert (answer.status, answer.reason, answer.headers["retry-after"]) == (503, "wait_timeout", "1")
    assert json.loads(answer.body)["may_have_happened"] is False


async def test_a_stale_connection_is_not_the_clients_concern(stage: Stage) -> None:
    """An instance that closes after each answer without saying so loses nobody a request, not even a POST."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.exactly(5)
        await peer.say(OK)

    (backend,) = await stage.serve(script)
    client = await stage.connect()
    statuses = []
    for _ in range(20):
        await client.say(POST)
        statuses.append((await client.answer()).status)
        await asyncio.sleep(0.005)

    assert (statuses, len(backend.heads)) == ([200] * 20, 20)


async def test_a_get_survives_a_reset_of_a_kept_connection(stage: Stage) -> None:
    """A kept-alive connection that breaks as the request arrives is no try at all."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(OK)
        await peer.head()
        peer.reset()

    await stage.serve(script)
    await stage.push(retry=Retry(attempts=1))

    statuses = [(await stage.ask(GET)).status for _ in range(6)]

    assert statuses == [200] * 6


async def test_a_small_answer_that_breaks_off_is_asked_for_again(stage: Stage) -> None:
    """The head of a small answer is held back for its body: an instance killed between them costs nothing."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        peer.reset()

    await stage.serve(script, answering())

    answers = [await stage.ask(GET) for _ in range(6)]

    assert [answer.body for answer in answers] == [b"ok"] * 6


async def test_a_small_answer_that_takes_its_time_is_not_held_for_long(stage: Stage) -> None:
    """The head goes out while the body is still to come."""
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await release.wait()
        await peer.say(b"k")
        await peer.gone()

    await stage.serve(script)
    client = await stage.connect()
    await client.say(GET)

    async with asyncio.timeout(20):
        await client.head()
    release.set()

    assert await client.reader.readexactly(2) == b"ok"


async def test_an_answer_that_does_not_begin_in_time_is_given_up(stage: Stage) -> None:
    """After timeout_ms the client gets a 504 that says what may have happened, and the place is free."""
    await stage.serve(silent)
    await stage.push(timeout_ms=200)

    answer = await stage.ask(POST)
    await stage.until("in_flight", 0)

    assert (answer.status, answer.reason) == (504, "timeout")
    assert json.loads(answer.body)["may_have_happened"] is True


async def test_what_is_not_http_is_not_passed_on(stage: Stage) -> None:
    """An instance that answers nonsense gives the client a 502."""
    await stage.serve(answering(b"hello, I am no server\r\n\r\n"))

    answer = await stage.ask(GET)

    assert (answer.status, answer.reason) == (502, "upstream_invalid")
