"""Endpoints of services: look, scale, roll out and back; and of their instances."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from fastapi import APIRouter
from starlette.responses import Response

from unisono.api import schemas, views
from unisono.api.answers import Here, answer
from unisono.api.applications import Accepted, look
from unisono.api.context import Context
from unisono.api.problems import Problem
from unisono.control import commands
from unisono.control.errors import nearest

router = APIRouter(prefix="/v1/applications/{application}", tags=["services"])


@dataclass(frozen=True, kw_only=True)
class Services:
    """The services of an application, in the order of its file."""

    services: list[views.ServiceView]


@dataclass(frozen=True, kw_only=True)
class Instances:
    """The instances of an application, service by service."""

    instances: list[views.InstanceView]


@router.get("/services", response_model=Services)
async def list_services(here: Here, application: str) -> Response:
    """All services of an application with their instances."""
    return answer(Services(services=(await look(here, application)).services))


@router.get("/services/{service}", response_model=views.ServiceView)
async def get_service(here: Here, application: str, service: str) -> Response:
    """One service with its instances."""
    return answer(await _service(here, application, service))


@router.post("/services/{service}/scale", status_code=HTTPStatus.ACCEPTED, response_model=Accepted)
async def scale(here: Here, application: str, service: str, body: schemas.ScaleRequest) -> Response:
    """Change how many instances a service should have."""
    await commands.scale(here.store, application, service, body.replicas)
    return _accepted(application, service)


@router.get("/services/{service}/rollout", response_model=views.RolloutHistory)
async def get_rollout(here: Here, application: str, service: str) -> Response:
    """The rollout in force or the last one, and the revisions kept."""
    await _service(here, application, service)
    snapshot = await here.mirror.now()
    found = snapshot.services.get((application, service))
    history = views.history(found) if found else None
    if history is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"{application} has no service {service}")
    return answer(history)


@router.post("/services/{service}/rollout/undo", status_code=HTTPStatus.ACCEPTED, response_model=Accepted)
async def undo(here: Here, application: str, service: str) -> Response:
    """Return a service to the stable revision before, by a rollout like any other."""
    await commands.undo(here.store, application, service)
    return _accepted(application, service)


@router.get("/instances", response_model=Instances)
async def list_instances(here: Here, application: str) -> Response:
    """All instances of an application."""
    found = await look(here, application)
    return answer(Instances(instances=[one for service in found.services for one in service.instances]))


async def _service(here: Context, application: str, service: str) -> views.ServiceView:
    found = {view.name: view for view in (await look(here, application)).services}
    if service not in found:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            f"{application} has no service {service}{nearest(service, found)}",
        )
    return found[service]


def _accepted(application: str, service: str) -> Response:
    response = answer(Accepted(application=application, services=[service]))
    response.status_code = HTTPStatus.ACCEPTED
    return response
