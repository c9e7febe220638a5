"""Endpoints of applications: list, look, apply, remove, restart, watch."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ValidationError
from starlette.responses import Response, StreamingResponse

from unisono.api import preflight, schemas, streams, views
from unisono.api.answers import Here, answer, encode
from unisono.api.context import Context
from unisono.api.problems import Problem
from unisono.control import commands
from unisono.control.errors import nearest
from unisono.control.plan import ServiceChange
from unisono.control.snapshot import Snapshot
from unisono.spec.model import ApplicationSpec

router = APIRouter(prefix="/v1/applications", tags=["applications"])


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


@router.get("", response_model=Applications)
async def list_applications(here: Here) -> Response:
    """All applications with the figures of their services."""
    snapshot = await here.mirror.now()
    return answer(Applications(applications=views.summaries(snapshot, listen=here.facts.listen)))


@router.get("/{application}", response_model=views.ApplicationView)
async def get_application(here: Here, application: str) -> Response:
    """One application with its services and instances."""
    return answer(await look(here, application))


@router.put("/{application}", response_model=PlanView)
async def apply(
    here: Here,
    application: str,
    body: schemas.ApplicationBody,  # type: ignore[valid-type]
    dry_run: Annotated[bool, Query(description="Say what would change, and change nothing.")] = False,
) -> Response:
    """
    Make this resolved application what should run; returns once that is recorded durably.

    Services that the body does not name are removed. Everything is checked before anything is written:
    that commands exist, that ports are free, that no other application has the routes.
    """
    spec = _spec(body, application)
    known = await here.mirror.now()
    await preflight.check(spec, known, here.facts.listen)
    if dry_run:
        plan = await commands.plan(here.store, spec)
    else:
        plan = await commands.apply(here.store, spec, allocate_port=here.allocate_port)
    return answer(
        PlanView(
            application=application,
            created=application not in known.applications,
            applied=not dry_run,
            changes=list(plan.changes),
        )
    )


@router.delete("/{application}", status_code=HTTPStatus.ACCEPTED, response_model=Accepted)
async def remove(here: Here, application: str) -> Response:
    """Begin to remove an application: dependants first, each finishing its requests."""
    services = await commands.remove(here.store, application)
    return _accepted(Accepted(application=application, services=list(services)))


@router.post("/{application}/restart", status_code=HTTPStatus.ACCEPTED, response_model=Accepted)
async def restart(here: Here, application: str, body: schemas.RestartRequest) -> Response:
    """Replace all instances by new ones of the same spec, as an update would."""
    services = await commands.restart(here.store, application, body.services or None)
    return _accepted(Accepted(application=application, services=[service.name for service in services]))


@router.get("/{application}/watch", response_class=StreamingResponse)
async def watch(here: Here, application: str) -> StreamingResponse:
    """
    Server-sent events: the application (event `application`) now and whenever it changes.

    Changes close together come as one. When it is gone, an event `removed` is the last.
    """
    await look(here, application)
    return streams.server_sent(_watch(here, application), here.stopping)


async def look(here: Context, application: str) -> views.ApplicationView:
    """
    The application as it is now.

    Raises:
        Problem: There is none of this name (404).
    """
    snapshot = await here.mirror.now()
    view = views.application(snapshot, application, listen=here.facts.listen, load=await here.load())
    if view is None:
        raise Problem(HTTPStatus.NOT_FOUND, _no_application(snapshot, application))
    return view


async def _watch(here: Context, application: str) -> AsyncIterator[bytes]:
    sent: views.ApplicationView | None = None
    async for snapshot in here.mirror.changes():
        view = views.application(snapshot, application, listen=here.facts.listen, load=views.Load())
        if view is None:
            yield streams.event(b"{}", kind="removed")
            return
        if sent is None or dataclasses.replace(view, store_revision=sent.store_revision) != sent:
            sent = view
            yield streams.event(encode(view), kind="application", id=snapshot.revision)


def _no_application(snapshot: Snapshot, name: str) -> str:
    return f"there is no application {name}{nearest(name, snapshot.applications)}"


def _accepted(view: object) -> Response:
    response = answer(view)
    response.status_code = HTTPStatus.ACCEPTED
    return response


def _spec(body: Any, application: str) -> ApplicationSpec:
    try:
        spec = schemas.application_of(body)
    except ValidationError as error:
        faults = [
            {"field": ".".join(map(str, fault["loc"])), "detail": fault["msg"]} for fault in error.errors()
        ]
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, faults[0]["detail"], errors=faults) from error
    if spec.name != application:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"the path names the application {application}, the body {spec.name}; they must be the same",
        )
    return spec
