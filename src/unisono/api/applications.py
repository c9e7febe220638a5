"""Endpoints of applications: list, look, apply, remove, restart, watch."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from pydantic import Field
from starlette.responses import StreamingResponse

from unisono.api import preflight, schemas, streams, views
from unisono.api.context import Context
from unisono.api.operations import Operation, encode
from unisono.api.problems import Problem
from unisono.control import commands
from unisono.control.errors import nearest
from unisono.control.plan import ServiceChange
from unisono.control.snapshot import Snapshot
from unisono.spec.model import ApplicationSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Applications:
    """All applications, in the order of their names."""

    applications: list[views.ApplicationSummary]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanView:
    """What applying would change, or has changed."""

    application: str
    created: bool
    applied: bool
    changes: list[ServiceChange]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accepted:
    """What was recorded; the node now makes it so."""

    application: str
    services: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApplyQuery:
    """How to apply."""

    dry_run: Annotated[bool, Field(description="Say what would change, and change nothing.")] = False


async def list_applications(here: Context) -> Applications:
    """All applications with the figures of their services."""
    snapshot = await here.informer.now()
    return Applications(applications=views.summaries(snapshot, listen=here.facts.listen))


async def look(here: Context, application: str) -> views.ApplicationView:
    """One application with its services and instances."""
    snapshot = await here.informer.now()
    view = views.application(snapshot, application, listen=here.facts.listen, load=await here.load())
    if view is None:
        raise Problem(HTTPStatus.NOT_FOUND, _no_application(snapshot, application))
    return view


async def apply(here: Context, application: str, query: ApplyQuery, body: ApplicationSpec) -> PlanView:
    """
    Make this resolved application what should run; returns once that is recorded durably.

    Services that the body does not name are removed. Everything is checked before anything is written:
    that commands exist, that ports are free, that no other application has the routes.
    """
    if body.name != application:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"the path names the application {application}, the body {body.name}; they must be the same",
        )
    known = await here.informer.now()
    await preflight.check(body, known, here.facts.listen, shared_memory=here.facts.shared_memory)
    if query.dry_run:
        plan = await commands.plan(here.store, body)
    else:
        plan = await commands.apply(here.store, body, allocate_port=here.allocate_port)
    return PlanView(
        application=application,
        created=application not in known.applications,
        applied=not query.dry_run,
        changes=list(plan.changes),
    )


async def remove(here: Context, application: str) -> Accepted:
    """Begin to remove an application: dependants first, each finishing its requests."""
    services = await commands.remove(here.store, application)
    return Accepted(application=application, services=list(services))


async def restart(here: Context, application: str, body: schemas.RestartRequest) -> Accepted:
    """Replace all instances by new ones of the same spec, as an update would."""
    services = await commands.restart(here.store, application, list(body.services) or None)
    return Accepted(application=application, services=[service.name for service in services])


async def watch(here: Context, application: str) -> StreamingResponse:
    """
    Server-sent events: the application (event `application`) now and whenever it changes.

    Changes close together come as one. When it is gone, an event `removed` is the last.
    """
    await look(here, application)
    return streams.server_sent(_watch(here, application), here.stopping)


async def _watch(here: Context, application: str) -> AsyncIterator[bytes]:
    sent: views.ApplicationView | None = None
    async for snapshot in here.informer.changes():
        view = views.application(snapshot, application, listen=here.facts.listen, load=views.Load())
        if view is None:
            yield streams.event(b"{}", kind="removed")
            return
        if sent is None or dataclasses.replace(view, store_revision=sent.store_revision) != sent:
            sent = view
            yield streams.event(encode(view), kind="application", id=snapshot.revision)


def _no_application(snapshot: Snapshot, name: str) -> str:
    return f"there is no application {name}{nearest(name, snapshot.applications, has='there is')}"


_APPLICATION = "/v1/applications/{application}"

OPERATIONS = (
    Operation("GET", "/v1/applications", list_applications),
    Operation("GET", _APPLICATION, look),
    Operation("PUT", _APPLICATION, apply),
    Operation("DELETE", _APPLICATION, remove, HTTPStatus.ACCEPTED),
    Operation("POST", _APPLICATION + "/restart", restart, HTTPStatus.ACCEPTED),
    Operation("GET", _APPLICATION + "/watch", watch, media_type=streams.EVENTS),
)
