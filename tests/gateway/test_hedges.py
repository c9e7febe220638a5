"""A second try beside a first one that takes long: where it helps, and where it is not made."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import ExitStack

import pytest

from tests.gateway.backend import OK, Peer, answering, breaking_late
from tests.gateway.conftest import Stage, target
from unisono.gateway.table import Hedge, Retry

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ALWAYS = Hedge(after_ms=50, budget=1.0)


class Frozen:
    """Takes requests and answers none until it is told to; knows which connections were closed on it."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        await peer.head()
        closed = asyncio.create_task(peer.reader.read())
        released = asyncio.create_task(self.release.wait())
        await asyncio.wait((closed, released), return_when=asyncio.FIRST_COMPLETED)
        if self.release.is_set():
            closed.cancel()
            await peer.say(OK)
            return
        released.cancel()
        self.left.set()


async def test_a_second_try_answers_for_a_frozen_one(stage: Stage) -> None:
    """All requests are answered, the frozen instance's connections are closed, and no place is left taken."""
    frozen = Frozen()
    backends = await stage.serve(frozen, answering())
    await stage.push(hedge=ALWAYS)

    while not backends[0].heads:
        answer = await stage.ask(GET)
        assert answer.status == 200

    async with asyncio.timeout(20):
        await frozen.left.wait()
    await stage.until("in_flight", 0)


async def test_there_is_none_unless_asked_for(stage: Stage) -> None:
    """By default a slow instance is waited for."""
    frozen = Frozen()
    backends = await stage.serve(frozen, answering())
    asking = []
    while not backends[0].heads:
        asking.append(asyncio.create_task(stage.ask(GET)))
        await asyncio.sleep(0.01)
    before = len(backends[1].heads)

    await asyncio.sleep(0.3)
    assert len(backends[1].heads) == before
    frozen.release.set()

    assert {(await task).status for task in asking} == {200}


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE"])
async def test_what_changes_things_is_not_doubled(stage: Stage, method: bytes) -> None:
    """Even what may be sent again must not be at two instances at a time."""
    first, second = Frozen(), Frozen()
    backends = await stage.serve(first, second)
    await stage.push(hedge=ALWAYS)

    asking = asyncio.create_task(stage.ask(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n"))
    await stage.until("in_flight", 1)
    await asyncio.sleep(0.3)
    arrived = sum(len(backend.heads) for backend in backends)
    first.release.set()
    second.release.set()

    assert ((await asking).status, arrived) == (200, 1)


async def test_a_busy_instance_gets_no_second_tries(stage: Stage) -> None:
    """With three of four places taken and one more asked for, work is scarce."""
    scripts = [Frozen() for _ in range(4)]
    backends = await stage.serve(*scripts)
    await stage.push(hedge=ALWAYS, concurrency=1)

    asking = [asyncio.create_task(stage.ask(GET)) for _ in range(4)]
    await stage.until("in_flight", 4)
    await asyncio.sleep(0.3)
    arrived = sum(len(backend.heads) for backend in backends)
    for script in scripts:
        script.release.set()

    assert ({(await task).status for task in asking}, arrived) == ({200}, 4)


async def test_the_budget_bounds_them(stage: Stage) -> None:
    """Without a share, the first try is waited for."""
    scripts = [Frozen(), Frozen()]
    backends = await stage.serve(*scripts)
    await stage.push(hedge=Hedge(after_ms=10, budget=0.0))

    asking = asyncio.create_task(stage.ask(GET))
    await stage.until("in_flight", 1)
    await asyncio.sleep(0.2)
    arrived = sum(len(backend.heads) for backend in backends)
    for script in scripts:
        script.release.set()

    assert ((await asking).status, arrived) == (200, 1)


async def test_a_first_try_that_breaks_is_not_the_end(stage: Stage) -> None:
    """The second one may still answer, and the other way round."""

    async def slow_answer(peer: Peer) -> None:
        while True:
            await peer.head()
            await asyncio.sleep(0.2)
            await peer.say(OK)

    await stage.serve(breaking_late, slow_answer)
    await stage.push(hedge=ALWAYS)

    assert [(await stage.ask(GET)).status for _ in range(4)] == [200] * 4


async def test_what_went_out_by_either_try_may_have_happened(stage: Stage) -> None:
    """One breaks off with the request, the other never gets a connection: that is no "did not happen"."""
    (breaking,) = await stage.serve(breaking_late)
    with socket.socket() as deaf, ExitStack() as callers:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        # They fill its queue; whoever calls after them hears nothing.
        for _ in range(3):
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(deaf.getsockname())
        port = deaf.getsockname()[1]
        await stage.push(
            targets=(target(0, breaking.port), target(1, port)),
            hedge=ALWAYS,
            timeout_ms=600,
            retry=Retry(attempts=1),
        )

        answer = await stage.ask(GET.replace(b"\r\n\r\n", b"\r\nIdempotency-Key: a\r\n\r\n"))

    told = json.loads(answer.body)["may_have_happened"]
    assert (len(breaking.heads), answer.status, told) == (1, 504, True)


async def test_a_second_try_is_made_once_there_is_a_place_for_it(stage: Stage) -> None:
    """What was busy when the second try was due may be idle a moment later."""
    first, second = Frozen(), Frozen()
    backends = await stage.serve(first, second)
    await stage.push(hedge=ALWAYS, concurrency=1)
    asking = [asyncio.create_task(stage.ask(GET)) for _ in range(2)]
    await stage.until("in_flight", 2)
    await asyncio.sleep(0.2)

    second.release.set()
    statuses = [(await task).status for task in asking]

    assert (statuses, [len(backend.heads) for backend in backends]) == ([200, 200], [1, 2])
