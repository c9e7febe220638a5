"""Answers that another instance may better, and how often the gateway tries."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.gateway.backend import OK, Backend, Peer, Script, answering
from tests.gateway.conftest import Stage
from unisono.gateway.table import Retry

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


def status(code: int, *lines: str) -> bytes:
    """An answer without a body."""
    return "\r\n".join((f"HTTP/1.1 {code} No", "Content-Length: 0", *lines, "", "")).encode()


def tries(backends: list[Backend]) -> list[int]:
    """Requests that arrived at each."""
    return [len(backend.heads) for backend in backends]


@pytest.mark.parametrize("code", [502, 503, 504])
async def test_an_answer_of_the_statuses_is_bettered_elsewhere(stage: Stage, code: int) -> None:
    """The client gets the other instance's answer, each time."""
    await stage.serve(answering(status(code)), answering())

    assert [(await stage.ask(GET)).status for _ in range(6)] == [200] * 6


async def test_a_status_that_is_not_among_them_is_passed_on(stage: Stage) -> None:
    """500 may be the service's considered answer; who wants it tried again says so."""
    backends = await stage.serve(answering(status(500)), answering(status(500)))

    passed_on = (await stage.ask(GET)).status
    first = sum(tries(backends))
    await stage.push(retry=Retry(statuses=(500,)))
    await stage.ask(GET)

    assert (passed_on, first, sum(tries(backends))) == (500, 1, 3)


async def test_a_post_with_such_an_answer_is_not_sent_again(stage: Stage) -> None:
    """The instance may have acted on it."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            await peer.exactly(5)
            await peer.say(status(503))

    backends = await stage.serve(script, script)

    assert (await stage.ask(POST)).status == 503
    assert sum(tries(backends)) == 1


async def test_no_instance_is_asked_twice_and_the_last_answer_is_the_clients(stage: Stage) -> None:
    """Two instances, three tries allowed: each is asked once."""
    backends = await stage.serve(answering(status(503)), answering(status(503)))

    answers = [(await stage.ask(GET)).status for _ in range(5)]

    assert (answers, tries(backends)) == ([503] * 5, [5, 5])


async def test_a_request_is_tried_as_often_as_allowed(stage: Stage) -> None:
    """Five instances that fail, three tries."""
    backends = await stage.serve(*[answering(status(503))] * 5)

    await stage.ask(GET)

    assert sorted(tries(backends)) == [0, 0, 1, 1, 1]


async def test_a_storm_of_retries_keeps_to_the_budget(stage: Stage) -> None:
    """When all fail, a fifth of the requests and the floor is all that is added."""
    backends = await stage.serve(*[answering(status(503))] * 4)
    await stage.push(retry=Retry(attempts=3, budget=0.2, floor_per_s=1.0, backoff_ms=1))
    began = time.monotonic()

    for _ in range(20):
        await asyncio.gather(*(stage.ask(GET) for _ in range(10)))

    seconds = time.monotonic() - began
    assert 200 < sum(tries(backends)) <= 200 * 1.2 + 1.0 * (10 + seconds)


async def test_a_gateways_own_refusal_is_never_tried_again(stage: Stage) -> None:
    """An instance that is a gateway and says that it is full would only get more of it."""
    refusal = status(503, "unisono-reason: queue_full", "Retry-After: 1")
    backends = await stage.serve(answering(refusal), answering(refusal))

    answer = await stage.ask(GET)

    assert (answer.status, sum(tries(backends))) == (503, 1)


@pytest.mark.parametrize("code", [429, 503])
async def test_an_instance_that_asks_to_be_left_alone_is(stage: Stage, code: int) -> None:
    """Retry-After pauses the instance for everybody."""
    busy, other = await stage.serve(answering(status(code, "Retry-After: 20")), answering())
    while not busy.heads:
        await stage.ask(GET)
    before = len(other.heads)

    answers = [(await stage.ask(GET)).status for _ in range(20)]

    assert (answers, tries([busy, other])) == ([200] * 20, [1, before + 20])


async def test_a_body_that_cannot_be_kept_is_sent_once(stage: Stage) -> None:
    """More than 64 KiB are not held for a second try."""
    size = 100_000

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.exactly(size)
        await peer.say(status(503))

    backends = await stage.serve(script, script)
    put = f"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size

    assert (await stage.ask(put)).status == 503
    assert sum(tries(backends)) == 1


async def test_no_second_try_begins_after_the_deadline(stage: Stage) -> None:
    """The first try has used the time up."""

    async def slow(peer: Peer) -> None:
        await peer.head()
        await asyncio.sleep(0.2)
        await peer.say(status(503))

    backends = await stage.serve(slow, slow)
    await stage.push(retry=Retry(backoff_ms=2000, backoff_max_ms=2000))

    answers = [await stage.ask(GET.replace(b"a\r\n", b"a\r\nx-request-timeout: 0.25\r\n")) for _ in range(4)]
    seen = tries(backends)
    await asyncio.sleep(0.3)

    assert {answer.status for answer in answers} <= {503, 504}
    assert tries(backends) == seen


def once_then_reset(ok: bytes = OK) -> Script:
    """Answers the first request of a connection and resets on the second."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(ok)
        await peer.head()
        peer.reset()

    return script


async def test_a_stale_connection_takes_nothing_from_the_budget(stage: Stage) -> None:
    """It is the connection's failure and not the instance's."""
    await stage.serve(once_then_reset())
    await stage.push(retry=Retry(budget=0.0, floor_per_s=0.0))
    client = await stage.connect()

    statuses = []
    for _ in range(30):
        await client.say(GET)
        statuses.append((await client.answer()).status)

    assert statuses == [200] * 30
