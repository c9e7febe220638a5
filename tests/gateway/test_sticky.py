"""Clients that go on to the instance that they had first."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.gateway.backend import Peer, answering
from tests.gateway.conftest import Stage, target
from unisono.gateway.table import HeaderMatch, Hedge, Share, Sticky

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
STICKY = Sticky(cookie="to")


def with_cookie(cookie: str) -> bytes:
    """A request of a client that has a cookie."""
    return GET.replace(b"Host: a\r\n", b"Host: a\r\nCookie: other=1; " + cookie.encode() + b"\r\n")


async def first(stage: Stage) -> str:
    """The cookie that a new client is given."""
    answer = await stage.ask(GET)
    assert answer.status == 200
    return answer.headers["set-cookie"].split(";")[0]


class Held:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.head()
            await self.go.wait()
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def test_a_client_goes_on_to_the_instance_that_it_had(stage: Stage) -> None:
    """And is not given its cookie again."""
    backends = await stage.serve(answering(), answering(), answering())
    await stage.push(sticky=STICKY)
    cookie = await first(stage)

    answers = [await stage.ask(with_cookie(cookie)) for _ in range(12)]

    assert sorted(len(backend.heads) for backend in backends) == [0, 0, 13]
    assert not any("set-cookie" in answer.headers for answer in answers)


async def test_the_cookie_is_out_of_reach_of_scripts_and_says_nothing(stage: Stage) -> None:
    """The instance's name is not in it."""
    await stage.serve(answering())
    await stage.push(sticky=STICKY)

    cookie = (await stage.ask(GET)).headers["set-cookie"]

    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax")
    assert "web" not in cookie


async def test_an_instance_that_is_gone_is_replaced(stage: Stage) -> None:
    """By any other, which the client has from then on."""
    backends = await stage.serve(answering(), answering())
    await stage.push(sticky=STICKY)
    cookie = await first(stage)
    left = 1 if backends[0].heads else 0
    await stage.push(targets=(stage.backend.targets[left],))

    answer = await stage.ask(with_cookie(cookie))

    assert answer.status == 200
    assert answer.headers["set-cookie"].split(";")[0] != cookie
    assert len(backends[left].heads) == 1


async def test_one_that_cannot_be_reached_costs_the_client_nothing(stage: Stage) -> None:
    """It is the table that is late."""
    backends = await stage.serve(answering(), answering())
    await stage.push(sticky=STICKY)
    cookie = await first(stage)
    await next(backend for backend in backends if backend.heads).stop()

    answer = await stage.ask(with_cookie(cookie))

    assert answer.status == 200
    assert answer.headers["set-cookie"].split(";")[0] != cookie


async def test_a_full_instance_is_waited_for_and_then_left(stage: Stage) -> None:
    """For as long as a request takes there."""
    held = Held()
    _, other = await stage.serve(held, answering())
    both = stage.backend.targets
    await stage.push(sticky=STICKY, concurrency=1, slow_start_ms=0, targets=both[:1])
    held.go.set()
    cookie = await first(stage)
    held.go.clear()
    busy = asyncio.create_task(stage.ask(GET))
    await stage.until("in_flight", 1)
    await stage.push(targets=both)

    answer = await stage.ask(with_cookie(cookie))
    held.go.set()
    await busy

    assert (answer.status, len(other.heads)) == (200, 1)
    assert "set-cookie" in answer.headers


async def test_a_client_stays_on_its_revision(stage: Stage) -> None:
    """While a new one is given all that have no cookie; only a header leads there in any case."""
    backends = await stage.serve(answering(), answering())
    await stage.push(
        sticky=STICKY,
        targets=tuple(replace(t, revision=str(n + 1)) for n, t in enumerate(stage.backend.targets)),
    )
    await stage.push(targets=stage.backend.targets[:1])
    cookie = await first(stage)
    targets = (stage.backend.targets[0], replace(target(1, backends[1].port), revision="2"))
    header = HeaderMatch(name="X-New")
    await stage.push(targets=targets, split=(Share(revision="2", weight=100.0, header=header),))

    await stage.ask(with_cookie(cookie))
    of_old = len(backends[0].heads)
    await stage.ask(GET)
    await stage.ask(with_cookie(cookie).replace(b"Host", b"X-New: 1\r\nHost"))

    assert (of_old, len(backends[0].heads), len(backends[1].heads)) == (2, 2, 2)


async def test_a_sticky_request_is_not_doubled(stage: Stage) -> None:
    """What the client has at one instance, another one would not find."""
    held = Held()
    backends = await stage.serve(held, held)
    await stage.push(sticky=STICKY, hedge=Hedge(after_ms=1, budget=1.0))
    asking = asyncio.create_task(stage.ask(GET))
    await stage.until("in_flight", 1)

    await asyncio.sleep(0.1)
    in_flight = (await stage.figures())["in_flight"]
    held.go.set()
    await asking

    assert in_flight == 1
    assert sum(len(backend.heads) for backend in backends) == 1


@pytest.mark.parametrize("cookie", ["to=", "to=0000000000000000", "to=../../x"])
async def test_a_cookie_that_names_nobody_is_as_none(stage: Stage, cookie: str) -> None:
    """The client is given a right one."""
    await stage.serve(answering())
    await stage.push(sticky=STICKY)

    answer = await stage.ask(with_cookie(cookie))

    assert answer.status == 200
    assert answer.headers["set-cookie"].startswith("to=")
