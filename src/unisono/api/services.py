"""Endpoints of services: look, scale, roll out and back; and of their instances."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from unisono.api import schemas, views
from unisono.api.applications import Accepted, look
from unisono.api.context import Context
from unisono.api.operations import Operation
from unisono.api.problems import Problem
from unisono.control import commands
from unisono.control.errors import nearest


@dataclass(frozen=True, kw_only=True)
class Services:
    """The services of an application, in the order of its file."""

    services: list[views.ServiceView]


@dataclass(frozen=True, kw_only=True)
class Instances:
    """The instances of an application, service by service."""

    instances: list[views.InstanceView]


async def list_services(here: Context, application: str) -> Services:
    """All services of an application with their instances."""
    return Services(services=(await look(here, application)).services)


async def get_service(here: Context, application: str, service: str) -> views.ServiceView:
    """One service with its instances."""
    found = {view.name: view for view in (await look(here, application)).services}
    if service not in found:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            f"{application} has no service {service}{nearest(service, found)}",
        )
    return found[service]


async def scale(here: Context, application: str, service: str, body: schemas.ScaleRequest) -> Accepted:
    """Change how many instances a service should have."""
    await commands.scale(here.store, application, service, body.replicas)
    return Accepted(application=application, services=[service])


async def get_rollout(here: Context, application: str, service: str) -> views.RolloutHistory:
    """The rollout in force or the last one, and the revisions kept."""
    await get_service(here, application, service)
    snapshot = await here.informer.now()
    found = snapshot.services.get((application, service))
    history = views.history(found) if found else None
    if history is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"{application} has no service {service}")
    return history


async def undo(here: Context, application: str, service: str) -> Accepted:
    """Return a service to the stable revision before, by a rollout like any other."""
    await commands.undo(here.store, application, service)
    return Accepted(application=application, services=[service])


async def list_instances(here: Context, application: str) -> Instances:
    """All instances of an application."""
    found = await look(here, application)
    return Instances(instances=[one for service in found.services for one in service.instances])


_APPLICATION = "/v1/applications/{application}"
_SERVICE = _APPLICATION + "/services/{service}"

OPERATIONS = (
    Operation("GET", _APPLICATION + "/services", list_services),
    Operation("GET", _SERVICE, get_service),
    Operation("POST", _SERVICE + "/scale", scale, HTTPStatus.ACCEPTED),
    Operation("GET", _SERVICE + "/rollout", get_rollout),
    Operation("POST", _SERVICE + "/rollout/undo", undo, HTTPStatus.ACCEPTED),
    Operation("GET", _APPLICATION + "/instances", list_instances),
)
