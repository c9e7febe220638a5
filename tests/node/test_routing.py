"""The routing table, and how it is brought to the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from tests.node.fake_gateway import FakeGateway
from unisono.control.records import Rollout, RolloutPhase, Service
from unisono.gateway.errors import Outdated, Unbound, Unreachable
from unisono.gateway.table import (
    Backend,
    Certificate,
    HashOn,
    HeaderMatch,
    Hedge,
    Listener,
    Mirror,
    Retry,
    Rule,
    Share,
    Sticky,
    Target,
    Tls,
)
from unisono.node.routing import Routing, build_table
from unisono.node.treating import Routed
from unisono.spec import requests as spec_of
from unisono.spec.model import PublishedPort, Route, ServiceSpec, UpdateConfig
from unisono.spec.requests import Retries

PUBLIC = "127.0.0.1:8080"


def routed(name: str = "web", internal_port: int = 20000, **spec: Any) -> Routed:
    service = Service(
        application="shop", name=name, revision=1, stable=1, replicas=1, internal_port=internal_port
    )
    return Routed(service=service, spec=ServiceSpec(name=name, **spec))


def target(id: str = "web-1", generation: int = 1) -> Target:
    return Target(id=id, generation=generation, address="127.0.0.1:21000", pid=7, start_time=8)


@asynccontextmanager
async def running(routing: Routing) -> AsyncIterator[None]:
    task = asyncio.create_task(routing.run())
    try:
        async with asyncio.timeout(20):
            yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_every_service_answers_at_its_own_address() -> None:
    """Internal and published addresses lead to one service, whatever the path."""
    web = routed(ports=(PublishedPort(port=8000), PublishedPort(port=8001, host_ip="::1")))

    table = build_table(3, [web], {"shop/web": [target()]}, PUBLIC)

    rule = (Rule(service="shop/web"),)
    assert table.version == 3
    assert table.listeners == (
        Listener(address="127.0.0.1:20000", rules=rule),
        Listener(address="127.0.0.1:8000", rules=rule),
        Listener(address="[::1]:8001", rules=rule),
    )
    assert table.services == {"shop/web": Backend(targets=(target(),))}


def test_at_the_public_address_hosts_come_first_and_longer_paths_before_shorter() -> None:
    """The gateway takes the first rule that matches."""
    web = routed(routes=(Route(path="/"), Route(path="/a"), Route(path="/", host="shop.test")))
    api = routed("api", 20001, routes=(Route(path="/a/b"),))

    table = build_table(1, [web, api], {}, PUBLIC)

    (public,) = [listener for listener in table.listeners if listener.address == PUBLIC]
    found = [(rule.host, rule.path, rule.service) for rule in public.rules]
    assert found == [
        ("shop.test", "/", "shop/web"),
        (None, "/a/b", "shop/api"),
        (None, "/a", "shop/web"),
        (None, "/", "shop/web"),
    ]


def test_settings_of_a_service_reach_the_gateway() -> None:
    """Seconds become milliseconds; no timeout stays none."""
    table = build_table(
        1,
        [
            routed(concurrency=4, timeout=2.5, retries=Retries(attempts=2)),
            routed("slow", 20001, timeout=None),
        ],
        {},
        PUBLIC,
    )

    assert table.services == {
        "shop/web": Backend(concurrency=4, timeout_ms=2500, retry=Retry(attempts=2)),
        "shop/slow": Backend(timeout_ms=None),
    }


def test_every_word_of_a_service_reaches_the_gateway() -> None:
    """How its requests are treated is the gateway's to do."""
    spec: dict[str, Any] = {
        "concurrency": "auto",
        "protocol": "grpc",
        "balance": spec_of.Balance(policy="maglev", hash_on=spec_of.HashOn(of="client"), hash_load=None),
        "hold": True,
        "queue": spec_of.Queue(max=3, bytes=4, wait=0.25),
        "retries": Retries(attempts=1, budget=0.5, statuses=(500,), backoff=0.001, backoff_max=0.002),
        "hedge": spec_of.Hedging(after=0.05, budget=0.5),
        "eject": False,
        "slow_start": 0.0,
        "sticky": "at",
        "mirror": spec_of.Mirror(service="copy", share=0.5),
    }

    table = build_table(1, [routed(**spec), routed("copy", 20001)], {}, PUBLIC)

    assert table.services is not None
    assert table.services["shop/web"] == Backend(
        concurrency="auto",
        protocol="h2",
        balance="maglev",
        hash_on=HashOn(of="client"),
        hash_load=None,
        hold=True,
        wait_ms=250,
        queue_max=3,
        queue_bytes_max=4,
        retry=Retry(attempts=1, budget=0.5, statuses=(500,), backoff_ms=1, backoff_max_ms=2),
        hedge=Hedge(after_ms=50, budget=0.5),
        eject=False,
        slow_start_ms=0,
        sticky=Sticky(cookie="at"),
        mirror=Mirror(service="shop/copy", percent=50.0),
    )


def test_a_mirror_that_is_gone_is_left_out() -> None:
    """The gateway would refuse the whole table for it."""
    table = build_table(1, [routed(mirror=spec_of.Mirror(service="copy"))], {}, PUBLIC)

    assert table.services is not None
    assert table.services["shop/web"].mirror is None


def test_priorities_and_certificates_stand_at_the_listeners() -> None:
    """Those of all services at the public address together, in the order of their names."""
    a, b = (spec_of.Certificate(certificate=f"/{n}.pem", key=f"/{n}.key") for n in "ab")
    secured = spec_of.Tls(certificates=(b,), client_ca="/ca.pem")
    web = routed(
        routes=(Route(path="/", priority="high"),), tls=(b,), ports=(PublishedPort(port=1, tls=secured),)
    )
    api = routed("api", 20001, routes=(Route(path="/a"),), tls=(a, b))

    table = build_table(1, [web, api], {}, PUBLIC)

    at = {listener.address: listener for listener in table.listeners}
    first, second = (Certificate(certificate=c.certificate, key=c.key) for c in (a, b))
    assert at[PUBLIC].tls == Tls(certificates=(first, second))
    assert [rule.priority for rule in at[PUBLIC].rules] == ["normal", "high"]
    assert at["127.0.0.1:1"].tls == Tls(certificates=(second,), client_ca="/ca.pem")
    assert at["127.0.0.1:20000"].tls is None
    written = {one["address"]: one["tls"] for one in table.to_json()["listeners"]}
    pair = {"certificate": "/b.pem", "key": "/b.key"}
    assert written["127.0.0.1:1"] == {"certificates": [pair], "client_ca": "/ca.pem"}


def test_a_tcp_service_is_alone_at_its_addresses() -> None:
    """Also when two want one, which the gateway would refuse the whole table for."""
    raw = routed("raw", mode="tcp", ports=(PublishedPort(port=1), PublishedPort(port=1)))
    rival = routed("web", 20001, ports=(PublishedPort(port=1),))

    table = build_table(1, [raw, rival], {}, PUBLIC)

    found = {listener.address: (listener.mode, listener.rules) for listener in table.listeners}
    assert found["127.0.0.1:1"] == found["127.0.0.1:20000"] == ("tcp", (Rule(service="shop/raw"),))


def test_a_revision_that_is_tried_gets_its_share() -> None:
    """By weight and by header, and only while it is tried."""
    step = spec_of.Canary(share=0.05, header=spec_of.HeaderMatch(name="x-canary", value="yes"))
    update = UpdateConfig(canary=(spec_of.Canary(), step))
    rollout = Rollout(
        source=1, target=2, phase=RolloutPhase.CANARY, started_at=0.0, progressed_at=0.0, step=1
    )
    web = routed(update=update)
    canary, rolls = (
        Routed(service=replace(web.service, rollout=replace(rollout, phase=phase)), spec=web.spec)
        for phase in (RolloutPhase.CANARY, RolloutPhase.ROLLING)
    )

    shares = [build_table(1, [one], {}, PUBLIC).services or {} for one in (canary, rolls)]

    header = HeaderMatch(name="x-canary", value="yes")
    assert shares[0]["shop/web"].split == (Share(revision="2", weight=5.0, header=header),)
    assert shares[1]["shop/web"].split == ()


def test_a_worker_is_not_in_the_table() -> None:
    """No one is expected to call it."""
    table = build_table(1, [routed(serves=False)], {}, PUBLIC)

    assert table.to_json() == {"version": 1, "listeners": [], "services": {}, "access_log": None}


async def test_nothing_is_pushed_before_all_is_known() -> None:
    """A node that restarts must not take instances out that it has yet to find."""
    gateway = FakeGateway()
    routing = Routing(gateway, PUBLIC)
    async with running(routing):
        routing.set_service(routed())
        await asyncio.sleep(0.05)
        pushed_early = len(gateway.tables)
        routing.publish("shop/web", target())
        routing.open()
        await routing.confirmed()

    assert pushed_early == 0
    assert gateway.targets() == (target(),)


async def test_many_changes_are_one_push() -> None:
    """What comes up while a push is under way goes with the next."""
    gateway = FakeGateway()
    routing = Routing(gateway, PUBLIC)
    async with running(routing):
        routing.set_service(routed())
        routing.open()
        await routing.confirmed()
        before = len(gateway.tables)
        for number in range(200):
            routing.publish("shop/web", target(f"web-{number}"))
        await routing.confirmed()

    assert len(gateway.tables) - before == 1
    assert len(gateway.targets()) == 200


async def test_a_withdrawal_is_confirmed_by_a_table_without_the_target() -> None:
    """Not by one that was on its way already."""
    gateway = FakeGateway()
    routing = Routing(gateway, PUBLIC)
    async with running(routing):
        routing.set_service(routed())
        routing.publish("shop/web", target())
        routing.open()
        await routing.confirmed()
        routing.withdraw("shop/web", "web-1")
        await routing.confirmed()

        assert gateway.targets() == ()


async def test_versions_go_on_from_the_gateways() -> None:
    """The clock may have gone back since the last node; the gateway's version counts."""
    gateway = FakeGateway()
    ahead = 1 << 60
    gateway.refusals = [Outdated(ahead)]
    routing = Routing(gateway, PUBLIC)
    async with running(routing):
        routing.open()
        await routing.confirmed()

    assert gateway.tables[-1].version == ahead + 1


async def test_a_port_that_is_taken_keeps_nothing_else_from_the_gateway() -> None:
    """The table goes without that listener, and the user is told once."""
    gateway = FakeGateway()
    gateway.refusals = [Unbound({"127.0.0.1:8000": "address in use"})]
    told: list[str] = []
    routing = Routing(gateway, PUBLIC, tell=lambda kind, message: told.append(f"{kind}: {message}"))
    async with running(routing):
        routing.set_service(routed(ports=(PublishedPort(port=8000),)))
        routing.open()
        await routing.confirmed()

    assert [listener.address for listener in gateway.tables[-1].listeners] == ["127.0.0.1:20000"]
    assert told == ["listener-unbound: the gateway can't listen at 127.0.0.1:8000: address in use"]


async def test_a_gateway_that_went_away_gets_the_table_when_it_is_back() -> None:
    """A confirmation waits for it as long as one is known to live."""
    gateway = FakeGateway()
    gateway.refusals = [Unreachable("gone"), Unreachable("gone"), Unreachable("gone")]
    routing = Routing(gateway, PUBLIC)
    async with running(routing):
        routing.set_service(routed())
        routing.open()
        await routing.confirmed()

    assert len(gateway.tables) == 1


async def test_without_any_gateway_no_one_waits_for_its_word() -> None:
    """No request can be sent by a gateway that does not live."""
    gateway = FakeGateway()
    gateway.lives = False
    gateway.refusals = [Unreachable("gone")] * 1000
    routing = Routing(gateway, PUBLIC)
    async with running(routing):
        routing.open()
        routing.withdraw("shop/web", "web-1")
        await routing.confirmed()

    assert gateway.tables == []
