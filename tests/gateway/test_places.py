"""Who gets a place at an instance, who waits, and how an instance leaves."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.backend import OK, Peer, answering
from tests.gateway.conftest import SERVICE, Client, Stage, mortal, target
from unisono.gateway.table import Rule

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Held:
    """A script that answers only when told, and counts how many it holds at once."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.total = 0
        self.release = asyncio.Semaphore(0)
        self.changed = asyncio.Condition()

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.head()
            await self._count(1)
            await self.release.acquire()
            await self._count(-1)
            await peer.say(OK)

    async def _count(self, by: int) -> None:
        async with self.changed:
            self.now += by
            self.most = max(self.most, self.now)
            self.total += by > 0
            self.changed.notify_all()

    async def holds(self, count: int) -> None:
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: self.now == count)


async def test_requests_go_where_fewest_are(stage: Stage) -> None:
    """Two instances share what is in flight evenly."""
    one, other = Held(), Held()
    await stage.serve(one, other)

    asking = [asyncio.create_task(stage.ask(GET)) for _ in range(8)]
    await one.holds(4)
    await other.holds(4)
    for held in (one, other):
        for _ in range(4):
            held.release.release()

    assert [(await task).status for task in asking] == [200] * 8


async def test_no_instance_gets_more_than_its_concurrency(stage: Stage) -> None:
    """The rest waits in the queue, and goes on as places free, in the order of arrival."""
    held = Held()
    await stage.serve(held)
    await stage.push(concurrency=2)

    asking = [asyncio.create_task(stage.ask(GET)) for _ in range(10)]
    await stage.until("waiting", 8)
    for _ in range(10):
        held.release.release()
    statuses = [(await task).status for task in asking]

    assert (statuses, held.most, held.total) == ([200] * 10, 2, 10)


@pytest.mark.parametrize("limit", [1, 2, 8])
async def test_five_hundred_clients_never_take_more_places_than_there_are(stage: Stage, limit: int) -> None:
    """Seen by each of three instances, while every request is answered."""
    counted = [Held() for _ in range(3)]
    for one in counted:
        one.release = asyncio.Semaphore(2000)
    await stage.serve(*counted)
    await stage.push(concurrency=limit, wait_ms=60_000, timeout_ms=60_000, queue_max=1000, slow_start_ms=0)
    clients = [await stage.connect() for _ in range(500)]

    async def ask_twice(client: Client) -> list[int]:
        statuses = []
        for _ in range(2):
            await client.say(GET)
            statuses.append((await client.answer()).status)
        return statuses

    statuses = await asyncio.gather(*map(ask_twice, clients))

    assert statuses == [[200, 200]] * 500
    assert (max(one.most for one in counted) <= limit, sum(one.total for one in counted)) == (True, 1000)


async def test_a_full_queue_says_so_at_once(stage: Stage) -> None:
    """Beyond queue_max a request does not wait."""
    held = Held()
    await stage.serve(held)
    await stage.push(concurrency=1, queue_max=1)
    asking = [asyncio.create_task(stage.ask(GET)) for _ in range(2)]
    await stage.until("waiting", 1)

    answer = await stage.ask(GET)
    held.release.release()
    held.release.release()

    assert (answer.status, answer.reason, [(await task).status for task in asking]) == (
        503,
        "queue_full",
        [200, 200],
    )


async def test_a_client_that_goes_leaves_the_queue(stage: Stage) -> None:
    """A request whose client is gone gets no place."""
    held = Held()
    await stage.serve(held)
    await stage.push(concurrency=1)
    first = asyncio.create_task(stage.ask(GET))
    await held.holds(1)
    client = await stage.connect()
    await client.say(GET)
    await stage.until("waiting", 1)

    client.writer.transport.abort()
    await stage.until("waiting", 0)
    held.release.release()

    assert ((await first).status, held.total) == (200, 1)


async def test_a_table_without_an_instance_is_the_end_of_its_requests(stage: Stage) -> None:
    """After put_table returns nothing new goes there; what is in flight ends, and drained says when."""
    held = Held()
    leaving, _ = await stage.serve(held, answering())
    first = [asyncio.create_task(stage.ask(GET)) for _ in range(4)]
    await held.holds(2)

    await stage.push(targets=stage.backend.targets[1:])
    more = [(await stage.ask(GET)).status for _ in range(10)]
    left = await stage.link.drained("web-0", 1, 0)
    draining = asyncio.create_task(stage.link.drained("web-0", 1, 20))
    await asyncio.sleep(0.05)
    assert not draining.done()
    held.release.release()
    held.release.release()

    assert (left, await draining, more, len(leaving.heads)) == (2, 0, [200] * 10, 2)
    assert [(await task).status for task in first] == [200] * 4


async def test_a_streaming_answer_is_in_flight_to_its_end(stage: Stage) -> None:
    """An instance with a stream under way is not drained."""
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await release.wait()
        await peer.say(b"0\r\n\r\n")
        await peer.gone()

    await stage.serve(script)
    client = await stage.connect()
    await client.say(GET)
    await client.head()
    await stage.push(targets=())

    left = await stage.link.drained("web-0", 1, 0.05)
    release.set()

    assert (left, await stage.link.drained("web-0", 1, 20)) == (1, 0)


async def test_an_unknown_instance_is_drained(stage: Stage) -> None:
    """What is not there has nothing in flight."""
    assert await stage.link.drained("nobody & co", 3, 20) == 0


async def test_an_instance_whose_process_exits_is_out_at_once(stage: Stage) -> None:
    """The gateway sees the exit itself, drops the instance and says so."""
    (backend,) = await stage.serve(answering())
    process, start_time = mortal()
    instance = target(0, backend.port, pid=process.pid, start_time=start_time)
    await stage.push(targets=(instance,), wait_ms=100)
    before = (await stage.ask(GET)).status
    events = stage.link.events()

    process.kill()
    process.wait()
    async with asyncio.timeout(20):
        seen = await anext(event async for event in events if event.kind == "target-exited")
    await events.aclose()
    after = await stage.ask(GET)

    assert (before, seen.instance, seen.generation) == (200, "web-0", 1)
    assert (after.status, after.reason) == (503, "no_target")
    await stage.push(wait_ms=200)
    assert (await stage.ask(GET)).reason == "no_target", "the same table does not bring the dead back"


async def test_another_process_with_the_same_pid_is_not_the_instance(stage: Stage) -> None:
    """A pid whose start time differs was reused: the instance is gone."""
    (backend,) = await stage.serve(answering())
    process, start_time = mortal()
    impostor = target(0, backend.port, pid=process.pid, start_time=start_time - 1)

    await stage.push(targets=(impostor,), wait_ms=200)
    answer = await stage.ask(GET)
    process.kill()
    process.wait()

    assert (answer.status, backend.heads) == (503, [])


async def test_a_request_is_heard_of_that_finds_no_instance(stage: Stage) -> None:
    """The node is told at once that somebody waits, and the request is served once an instance comes."""
    await stage.serve()
    events = stage.link.events()
    waiting = asyncio.create_task(stage.ask(GET))

    async with asyncio.timeout(20):
        seen = await anext(event async for event in events if event.kind == "no-target")
    await events.aclose()
    await stage.serve(answering())

    assert (seen.service, seen.instance, (await waiting).status) == ("shop/web", None, 200)


async def test_requests_of_a_higher_priority_are_served_before_others_that_wait(stage: Stage) -> None:
    """By the rule that they match, whenever they came."""
    held = Held()
    [backend] = await stage.serve(held)
    stage.rules = (
        Rule(service=SERVICE, path="/low", priority="low"),
        Rule(service=SERVICE),
        Rule(service=SERVICE, path="/high", priority="high"),
    )
    await stage.push(concurrency=1)
    asking = [asyncio.create_task(stage.ask(GET))]
    await held.holds(1)
    for waiting, path in enumerate((b"/low", b"/normal", b"/high"), start=1):
        asking.append(asyncio.create_task(stage.ask(GET.replace(b"/", path, 1))))
        await stage.until("waiting", waiting)

    for _ in range(4):
        held.release.release()
    await asyncio.gather(*asking)

    assert [head.split()[1] for head in backend.heads] == [b"/", b"/high", b"/normal", b"/low"]
