"""What a user sees of the records."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.api.specs import service as spec_of
from unisono.api import views
from unisono.api.views import Load
from unisono.control.records import (
    Application,
    Goal,
    Instance,
    Phase,
    Revision,
    Rollout,
    RolloutPhase,
    Service,
    Status,
)
from unisono.control.snapshot import ServiceView, Snapshot
from unisono.spec.model import Condition, Dependency, PublishedPort, Route, ServiceSpec
from unisono.spec.requests import Certificate, Tls

TLS = Tls(certificates=(Certificate(certificate="/a.pem", key="/a.key"),))
LISTEN = "127.0.0.1:8080"


def rollout(phase: RolloutPhase, source: int = 1, target: int = 2, reason: str = "") -> Rollout:
    return Rollout(
        source=source, target=target, phase=phase, started_at=5.0, progressed_at=5.0, reason=reason
    )


def view_of(spec: ServiceSpec, *phases: Phase | Status, revision: int = 1, **fields: Any) -> ServiceView:
    """A service of "shop" with an instance of ``revision`` in each of these phases."""
    name = spec.name
    service = Service(
        application="shop",
        name=name,
        revision=fields.pop("wanted", revision),
        stable=1,
        replicas=fields.pop("replicas", len(phases)),
        internal_port=20_001,
        **fields,
    )
    statuses = {
        f"{name}-{index}": Status(phase=phase, since=1.0) if isinstance(phase, Phase) else phase
        for index, phase in enumerate(phases)
    }
    instances = {
        id: Instance(application="shop", service=name, id=id, revision=revision, node="n") for id in statuses
    }
    revisions = {
        number: Revision(
            application="shop", service=name, number=number, digest="d", spec=spec, created_at=0.0
        )
        for number in {revision, service.revision}
    }
    return ServiceView(
        application="shop",
        name=name,
        service=service,
        revisions=revisions,
        instances=instances,
        statuses=statuses,
    )


def snapshot_of(*found: ServiceView, removing: bool = False) -> Snapshot:
    names = tuple(view.name for view in found)
    return Snapshot(
        revision=7,
        applications={"shop": Application(name="shop", source="s", services=names, removing=removing)},
        services={("shop", view.name): view for view in found},
    )


def shown(*found: ServiceView, load: Load | None = None) -> views.ApplicationView:
    view = views.application(snapshot_of(*found), "shop", listen=LISTEN, load=load or Load())
    assert view is not None
    return view


@pytest.mark.parametrize(
    ("phases", "fields", "state"),
    [
        ([Phase.READY, Phase.READY], {}, "ready"),
        ([Phase.READY, Phase.STARTING], {}, "starting"),
        ([], {"replicas": 1}, "starting"),
        ([], {"replicas": 0}, "stopped"),
        ([Phase.COMPLETED], {}, "completed"),
        ([Phase.READY, Phase.FAILED], {}, "failed"),
        ([Phase.READY, Phase.BACKOFF], {}, "degraded"),
        ([Phase.READY, Phase.UNHEALTHY], {}, "degraded"),
        ([Status(phase=Phase.STARTING, since=1.0, restarts=2)], {}, "degraded"),
        ([Phase.READY], {"removing": True}, "removing"),
        ([Phase.READY], {"rollout": rollout(RolloutPhase.ROLLING), "wanted": 2}, "updating"),
        ([Phase.READY], {"rollout": rollout(RolloutPhase.MONITORING)}, "ready"),
        ([Phase.STARTING], {"rollout": rollout(RolloutPhase.ROLLING, source=0, target=1)}, "starting"),
    ],
)
def test_state(phases: list[Any], fields: dict[str, Any], state: str) -> None:
    """The state of a service is one word that follows from its instances and its rollout."""
    assert shown(view_of(spec_of(), *phases, **fields)).services[0].state == state


@pytest.mark.parametrize(
    ("phases", "fields", "settled"),
    [
        ([Phase.READY], {}, True),
        ([Phase.STARTING], {}, False),
        ([Phase.READY], {"wanted": 2}, False),
        ([Phase.READY], {"rollout": rollout(RolloutPhase.MONITORING)}, False),
        ([Phase.READY], {"rollout": rollout(RolloutPhase.DONE)}, True),
        ([Phase.READY], {"rollout": rollout(RolloutPhase.ROLLED_BACK)}, True),
    ],
)
def test_settled(phases: list[Phase], fields: dict[str, Any], settled: bool) -> None:
    """A service is settled once it has what it should have and its rollout has ended."""
    assert shown(view_of(spec_of(), *phases, **fields)).services[0].settled is settled


def test_reason_names_the_worst_instance() -> None:
    """Why a service is not ready is what its worst instance says."""
    backoff = Status(phase=Phase.BACKOFF, since=1.0, reason="exited with code 1")
    starting = Status(phase=Phase.STARTING, since=1.0, reason="not listening yet")

    found = shown(view_of(spec_of(), starting, backoff)).services[0]

    assert found.reason == "orders-1: exited with code 1"


def test_reason_names_whom_it_waits_for() -> None:
    """A service without instances says which dependency holds it up."""
    waiting = spec_of("orders", depends_on=(Dependency(service="payments", condition=Condition.HEALTHY),))

    found = shown(view_of(waiting, replicas=1), view_of(spec_of("payments"), Phase.STARTING)).services[0]

    assert found.reason == "waits for payments (service_healthy)"


def test_instance_on_its_way_out_does_not_count() -> None:
    """An instance that was told to stop is not counted as ready, however it does."""
    view = view_of(spec_of(), Phase.READY, replicas=1)
    leaving = {id: dataclasses.replace(one, goal=Goal.STOP) for id, one in view.instances.items()}

    assert shown(dataclasses.replace(view, instances=leaving)).services[0].ready == 0


@pytest.mark.parametrize(
    ("listen", "fields", "expected"),
    [
        (LISTEN, {"routes": (Route(path="/orders"),)}, ["http://127.0.0.1:8080/orders"]),
        ("0.0.0.0:80", {"routes": (Route(path="/"),)}, ["http://127.0.0.1/"]),
        ("[::]:8080", {"routes": (Route(path="/"),)}, ["http://[::1]:8080/"]),
        (LISTEN, {"routes": (Route(path="/", host="a.example"),)}, ["http://a.example:8080/"]),
        (LISTEN, {"ports": (PublishedPort(port=8000),)}, ["http://127.0.0.1:8000/"]),
        (LISTEN, {"ports": (PublishedPort(port=8000, host_ip="::1"),)}, ["http://[::1]:8000/"]),
        (LISTEN, {"mode": "tcp", "ports": (PublishedPort(port=8000),)}, ["tcp://127.0.0.1:8000"]),
        (LISTEN, {"ports": (PublishedPort(port=443, tls=TLS),)}, ["https://127.0.0.1/"]),
        (
            "0.0.0.0:443",
            {"routes": (Route(path="/", host="a.example"),), "tls": TLS.certificates},
            ["https://a.example/"],
        ),
        (LISTEN, {}, []),
    ],
)
def test_urls(listen: str, fields: dict[str, Any], expected: list[str]) -> None:
    """URLs are such that a client on this machine can use them."""
    assert views.urls(spec_of(**fields), listen) == expected


def test_figures_of_the_gateway() -> None:
    """Requests in flight come from the gateway; without its word they are unknown, not zero."""
    figures = {
        "shop/orders": {
            "requests": 9,
            "failures": 1,
            "waiting": 2,
            "in_flight": 3,
            "targets": {"orders-0": {"in_flight": 3}},
        }
    }
    told = shown(view_of(spec_of(), Phase.READY), load=Load(services=figures)).services[0]
    untold = shown(view_of(spec_of(), Phase.READY)).services[0]

    assert (told.requests, told.failed_requests, told.waiting, told.in_flight) == (9, 1, 2, 3)
    assert told.instances[0].in_flight == 3
    assert (untold.requests, untold.in_flight, untold.instances[0].in_flight) == (None, None, None)


def test_services_in_the_order_of_the_file() -> None:
    """Services are shown as the application names them."""
    found = shown(view_of(spec_of("web"), Phase.READY), view_of(spec_of("api"), Phase.READY))

    assert [service.name for service in found.services] == ["web", "api"]


def test_unknown_application() -> None:
    """Of an application that is not there, nothing is shown."""
    assert views.application(snapshot_of(), "other", listen=LISTEN, load=Load()) is None
