"""Endpoints of the node itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from starlette.responses import Response

from unisono.api.context import Context
from unisono.api.operations import Operation
from unisono.api.problems import Problem
from unisono.control.records import LEADER_KEY, Leader, decode

METRICS_TIMEOUT = 5.0  # seconds; Prometheus waits for ten by default
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, kw_only=True)
class GatewayView:
    """
    The gateway process beside the node; ``None`` where it does not answer.

    The rest is as in :class:`unisono.api.context.GatewayState`.
    """

    pid: int | None
    connections: int | None
    current: bool
    problem: str
    unbound: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class NodeView:
    """The node itself; ``listen`` is where the gateway answers requests."""

    id: str
    host: str
    version: str
    pid: int
    started_at: float
    state_folder: str
    listen: str
    api: str | None
    ends_when_empty: bool
    leader: bool
    gateway: GatewayView
    applications: int
    instances: int
    store_revision: int


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """The node has begun to end."""

    stopping: bool = True


async def get_node(here: Context) -> NodeView:
    """Who the node is, where it answers, how its gateway does."""
    snapshot = await here.informer.now()
    figures = await here.measurements()
    leader = await here.store.get(LEADER_KEY)
    facts, gateway = here.facts, here.gateway()
    return NodeView(
        id=facts.id,
        host=facts.host,
        version=facts.version,
        pid=facts.pid,
        started_at=facts.started_at,
        state_folder=str(facts.state_folder),
        listen=facts.listen,
        api=facts.api,
        ends_when_empty=facts.ends_when_empty,
        leader=leader is not None and decode(Leader, leader.value).node == facts.id,
        gateway=GatewayView(
            pid=figures.get("pid"),
            connections=figures.get("connections"),
            current=gateway.current,
            problem=gateway.problem,
            unbound=gateway.unbound,
        ),
        applications=len(snapshot.applications),
        instances=sum(len(view.instances) for view in snapshot.services.values()),
        store_revision=snapshot.revision,
    )


async def metrics(here: Context) -> Response:
    """The gateway's figures for Prometheus, in its text format."""
    try:
        async with asyncio.timeout(METRICS_TIMEOUT):
            text = await here.metrics()
    except (OSError, TimeoutError) as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"the gateway does not answer: {error}") from error
    return Response(text, media_type=METRICS_TYPE)


async def stop_node(here: Context) -> Stopping:
    """End the node. Gateway and instances run on; the next node adopts them."""
    here.stop()
    return Stopping()


OPERATIONS = (
    Operation("GET", "/v1/node", get_node),
    Operation("GET", "/v1/metrics", metrics, media_type=METRICS_TYPE),
    Operation("POST", "/v1/node/stop", stop_node, HTTPStatus.ACCEPTED),
)
