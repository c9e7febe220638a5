"""A revision that is tried: its share of the requests, and what is counted of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tests.gateway.backend import Backend as Scripted
from tests.gateway.backend import Peer, answering
from tests.gateway.conftest import Stage
from unisono.gateway.table import HeaderMatch, Retry, Share

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def failing(peer: Peer) -> None:
    """Answers 500 to whatever comes."""
    while True:
        await peer.head()
        await peer.say(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")


async def split(stage: Stage, backends: list[Scripted], *shares: Share, **more: object) -> None:
    """The first backend is of revision 1, all others of revision 2."""
    targets = [
        replace(target, generation=2, revision="1" if number == 0 else "2")
        for number, target in enumerate(stage.backend.targets)
    ]
    assert len(backends) == len(targets)
    await stage.push(targets=tuple(targets), split=shares, **more)


async def test_a_revision_gets_its_share(stage: Stage) -> None:
    """However many instances it has; evenly, so that few requests show it."""
    backends = await stage.serve(answering(), answering(), answering())
    await split(stage, backends, Share(revision="2", weight=20.0))

    for _ in range(50):
        assert (await stage.ask(GET)).status == 200

    tried = sum(len(backend.heads) for backend in backends[1:])
    assert len(backends[0].heads) + tried == 50
    assert 8 <= tried <= 12


async def test_a_header_leads_to_it(stage: Stage) -> None:
    """With that value, in any case; with another, never."""
    backends = await stage.serve(answering(), answering())
    header = HeaderMatch(name="X-Canary", value="yes")
    await split(stage, backends, Share(revision="2", weight=0.0, header=header))

    for value in (b"yes", b"no", b"yes"):
        await stage.ask(GET.replace(b"Host: a\r\n", b"Host: a\r\nx-canary: " + value + b"\r\n"))

    assert [len(backend.heads) for backend in backends] == [1, 2]


async def test_one_that_is_not_there_costs_nobody_an_answer(stage: Stage) -> None:
    """Its share goes elsewhere, at once."""
    await stage.serve(answering())
    await stage.push(split=(Share(revision="2", weight=100.0),))

    assert (await stage.ask(GET)).status == 200


async def test_the_queue_is_bounded_as_ever(stage: Stage) -> None:
    """A request that would rather go to one revision than the other is still a request."""
    release = asyncio.Event()

    async def holding(peer: Peer) -> None:
        await peer.head()
        await release.wait()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    backends = await stage.serve(holding, holding)
    await split(stage, backends, Share(revision="2", weight=50.0), concurrency=1, queue_max=1)
    asking = [asyncio.create_task(stage.ask(GET)) for _ in range(3)]
    await stage.until("waiting", 1)

    refused = await stage.ask(GET)
    release.set()

    assert (refused.status, refused.reason) == (503, "queue_full")
    assert [(await task).status for task in asking] == [200] * 3


async def test_what_a_revision_does_is_counted(stage: Stage) -> None:
    """Requests, failures, and how long its answers took."""
    backends = await stage.serve(answering(), failing)
    retry = Retry(attempts=1, statuses=())
    await split(stage, backends, Share(revision="2", weight=50.0), retry=retry, eject=False)

    statuses = [(await stage.ask(GET)).status for _ in range(20)]

    revisions = (await stage.figures())["revisions"]
    one, two = revisions["1"], revisions["2"]
    good, bad = statuses.count(200), statuses.count(500)
    assert good + bad == 20
    assert (one["requests"], one["failures"]) == (good, 0)
    assert (two["requests"], two["failures"]) == (bad, bad)
    assert sum(count for _, count in two["latency_us"]) == bad


async def test_a_refused_connection_is_a_failure_of_its_revision(stage: Stage) -> None:
    """The client sees nothing of it."""
    backends = await stage.serve(answering(), answering())
    await backends[1].stop()
    await split(stage, backends, Share(revision="2", weight=100.0))

    answer = await stage.ask(GET)

    revisions = (await stage.figures())["revisions"]
    assert (answer.status, revisions["2"]["failures"], revisions["1"]["failures"]) == (200, 1, 0)
