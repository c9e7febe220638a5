"""Instances that fail, freeze, come and go, and clients that go: what each costs, seen from the instances."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import struct
from contextlib import AsyncExitStack
from typing import Any

from tests.gateway.backend import OK, Backend, Peer
from tests.gateway.conftest import Client, Stage, eventually, target

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ERROR = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"


def answering_after(seconds: float) -> Any:
    """A script that takes its time."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            await asyncio.sleep(seconds)
            await peer.say(OK)

    return script


class Switched:
    """An instance whose answer is changed, or which freezes, while it runs."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.head()
            await asyncio.sleep(0.001)
            await self.goes_on.wait()
            await peer.say(self.answer)


async def ask(client: Client) -> int:
    """One more request on a kept connection."""
    await client.say(GET)
    return (await client.answer()).status


async def test_an_instance_that_fails_fast_gets_hardly_any_requests_until_it_is_well(stage: Stage) -> None:
    """Five failures and a try now and then are all that it may cost; healed, it is taken back."""
    failing = Switched(ERROR)
    backends = await stage.serve(failing, *[answering_after(0.002)] * 7)
    events = aiter(stage.link.events())
    clients = [await stage.connect() for _ in range(8)]

    statuses = []
    for _ in range(100):
        statuses += await asyncio.gather(*map(ask, clients))
    costs, arrived = statuses.count(500), len(backends[0].heads)
    failing.answer = OK
    healed = len(backends[0].heads)

    async def is_back() -> bool:
        await asyncio.gather(*map(ask, clients))
        return len(backends[0].heads) > healed + 20

    await eventually(is_back)
    kinds = [(await anext(events)).kind for _ in range(2)]
    assert (costs, kinds) == (arrived, ["target-ejected", "target-returned"])
    assert 5 <= arrived <= 20  # one in five seconds on top, on however slow a machine


async def test_a_frozen_instance_delays_only_the_requests_it_has(stage: Stage) -> None:
    """All others are answered meanwhile, none is added to it once noticed, and it is taken back after."""
    frozen = Switched()
    backends = await stage.serve(frozen, *[answering_after(0.001)] * 3)
    clients = [await stage.connect() for _ in range(8)]
    for _ in range(30):
        await asyncio.gather(*map(ask, clients))
    events = aiter(stage.link.events())

    frozen.goes_on.clear()
    held: list[asyncio.Task[int]] = []

    async def keep_asking() -> None:
        """Each request that hangs is left to itself, and another connection goes on."""
        while True:
            client = await stage.connect()
            asking = asyncio.create_task(ask(client))
            done, _ = await asyncio.wait((asking,), timeout=0.5)
            if not done:
                held.append(asking)

    asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
    suspect = await asyncio.wait_for(anext(events), 30)
    noticed = len(backends[0].heads)
    await asyncio.sleep(0.3)
    after = len(backends[0].heads)
    for task in asking:
        task.cancel()
    frozen.goes_on.set()
    returned = await asyncio.wait_for(anext(events), 30)

    assert (suspect.kind, suspect.instance, returned.kind) == ("target-suspect", "web-0", "target-returned")
    assert after - noticed <= 1  # one may have been on its way
    assert set(await asyncio.gather(*held)) <= {200}


async def test_instances_come_and_go_without_an_error(stage: Stage) -> None:
    """Long requests through sixty changes: all are answered, and none arrives where nobody is named."""
    count = itertools.count()
    async with AsyncExitStack() as stack:
        live: list[tuple[Backend, Any]] = []
        gone: list[tuple[Backend, int]] = []

        async def add() -> None:
            backend = Backend(answering_after(random.uniform(0.0, 0.2)))
            await backend.start()
            stack.push_async_callback(backend.stop)
            live.append((backend, target(next(count), backend.port)))
            await stage.push(targets=tuple(one for _, one in live))

        async def remove() -> None:
            backend, one = live.pop(random.randrange(len(live)))
            await stage.push(targets=tuple(one for _, one in live))
            gone.append((backend, len(backend.heads)))
            assert await stage.link.drained(one.id, one.generation, 30) == 0
            await backend.stop()

        for _ in range(3):
            await add()
        over = asyncio.Event()

        async def keep_asking() -> set[int]:
            client, statuses = await stage.connect(), set()
            while not over.is_set():
                statuses.add(await ask(client))
            return statuses

        asking = [asyncio.create_task(keep_asking()) for _ in range(12)]
        for number in range(60):
            await (add() if len(live) < 2 or (len(live) < 5 and number % 2) else remove())
        over.set()

        assert await asyncio.gather(*asking) == [{200}] * 12
        # What was on its way when the table came may arrive after it was counted; nothing later may.
        assert all(len(backend.heads) <= before + 12 for backend, before in gone)


async def test_after_ten_thousand_aborts_nothing_is_left(stage: Stage) -> None:
    """Clients go while they wait, before the head, in the middle of a body: all places are free again."""

    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            if b"/half" in head:
                await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf")
                await peer.gone()
                return
            await asyncio.sleep(random.uniform(0, 0.003))
            await peer.say(OK)

    await stage.serve(script, script, script)
    await stage.push(concurrency=2)
    address = ("127.0.0.1", stage.port)

    def abort_many(seed: int) -> None:
        chance = random.Random(seed)
        open_sockets: list[socket.socket] = []
        for _ in range(2500):
            client = socket.create_connection(address)
            path = chance.choice(("/", "/", "/half"))
            request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
            client.sendall(request[: chance.choice((10, len(request), len(request), len(request)))])
            open_sockets.append(client)
            if len(open_sockets) > chance.randrange(1, 40):
                victim = open_sockets.pop(chance.randrange(len(open_sockets)))
                if chance.random() < 0.5:
                    victim.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                victim.close()
        for client in open_sockets:
            client.close()

    await asyncio.gather(*(asyncio.to_thread(abort_many, seed) for seed in range(4)))

    await stage.until("in_flight", 0)
    await stage.until("waiting", 0)
    assert (await stage.ask(GET)).status == 200


async def test_in_overload_no_work_is_done_for_those_who_have_gone(stage: Stage) -> None:
    """What the instances did was in time, the rest was refused, and after it all is as before."""
    backends = await stage.serve(answering_after(0.02), answering_after(0.02))
    await stage.push(concurrency=1)
    for _ in range(30):
        assert (await stage.ask(GET)).status == 200
    warm = sum(len(backend.heads) for backend in backends)
    request = GET.replace(b"Host: a", b"Host: a\r\nx-request-timeout: 0.5")

    asking = []
    for _ in range(300):
        asking.append(asyncio.create_task(stage.ask(request)))
        await asyncio.sleep(0.01 / 3)
    answers = await asyncio.gather(*asking)
    answered = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status == 503]
    worked = sum(len(backend.heads) for backend in backends) - warm

    assert {answer.reason for answer in refused} <= {"late", "shed", "queue_full"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert refused
    assert len(answered) >= 0.9 * worked
    assert (await stage.ask(GET)).status == 200
