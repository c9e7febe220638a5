"""Which instance a request goes to, by the service's own choice."""

from __future__ import annotations

import pytest

from tests.gateway.backend import Peer, answering
from tests.gateway.conftest import Stage
from unisono.gateway.table import Balance, HashOn

GET = b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%s\r\n"


@pytest.mark.parametrize("balance", ["round_robin", "weighted"])
async def test_each_gets_its_turn(stage: Stage, balance: Balance) -> None:
    """However fast or slow it is."""
    backends = await stage.serve(answering(), answering(), answering())
    await stage.push(balance=balance)

    for _ in range(9):
        await stage.ask(GET % (b"/", b""))

    assert [len(backend.heads) for backend in backends] == [3, 3, 3]


@pytest.mark.parametrize("balance", ["ring_hash", "maglev"])
@pytest.mark.parametrize(
    ("hash_on", "request_of"),
    [
        (HashOn(of="header", name="X-Tenant"), lambda tenant: GET % (b"/", b"X-Tenant: %d\r\n" % tenant)),
        (
            HashOn(of="cookie", name="tenant"),
            lambda tenant: GET % (b"/", b"Cookie: a=b; tenant=%d\r\n" % tenant),
        ),
        (HashOn(of="path"), lambda tenant: GET % (b"/%d" % tenant, b"")),
    ],
)
async def test_what_belongs_together_meets(
    stage: Stage, balance: Balance, hash_on: HashOn, request_of: object
) -> None:
    """Requests of one tenant go to one instance, and not all tenants to the same."""
    backends = await stage.serve(*[answering() for _ in range(4)])
    await stage.push(balance=balance, hash_on=hash_on, hash_load=None)
    assert callable(request_of)

    homes = []
    for tenant in range(12):
        before = [len(backend.heads) for backend in backends]
        for _ in range(3):
            await stage.ask(request_of(tenant))
        homes.append([len(backend.heads) - count for backend, count in zip(backends, before, strict=True)])

    assert all(sorted(home) == [0, 0, 0, 3] for home in homes)
    assert len({home.index(3) for home in homes}) > 1


async def test_one_clients_requests_meet(stage: Stage) -> None:
    """By the address that the gateway sees, not one that the client claims."""
    backends = await stage.serve(answering(), answering(), answering())
    await stage.push(balance="maglev", hash_on=HashOn(of="client"))

    for number in range(9):
        await stage.ask(GET % (b"/", b"X-Forwarded-For: 10.0.0.%d\r\n" % number))

    assert sorted(len(backend.heads) for backend in backends) == [0, 0, 9]


async def test_what_instances_say_of_their_load_counts(stage: Stage) -> None:
    """Prequal: one that others keep busy gets nothing while there is one that is not."""

    async def busy(peer: Peer) -> None:
        while True:
            await peer.head()
            await peer.say(b"HTTP/1.1 200 OK\r\nunisono-in-flight: 50\r\nContent-Length: 0\r\n\r\n")

    backends = await stage.serve(busy, answering())
    await stage.push(balance="prequal")

    for _ in range(10):
        await stage.ask(GET % (b"/", b""))

    assert len(backends[0].heads) <= 1
    assert len(backends[1].heads) >= 9
