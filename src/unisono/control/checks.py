"""
What an application must be to be accepted, whoever sends it and by whatever way.

Files are checked with line and field where they are read (:mod:`unisono.spec`); here is the last guard
in front of the store, which also holds for what comes over the API.
"""

from __future__ import annotations

import graphlib
import re

from unisono.control.errors import Invalid, nearest
from unisono.spec.model import ApplicationSpec, ServiceSpec

REPLICAS_MAX = 1000
"""Instances of one service."""

SERVICES_MAX = 200
"""Services of one application: all of them change in one transaction of the store."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def check_application(spec: ApplicationSpec) -> None:
    """
    Refuse what this version, or one machine, can't run.

    Raises:
        Invalid: The message names the service and what would be right.
    """
    _check_name("application", spec.name)
    if not spec.services:
        raise Invalid(
            f"{spec.source or spec.name} has no services; to stop an application, remove it",
            found="no services",
            wanted="at least one service",
        )
    if len(spec.services) > SERVICES_MAX:
        raise Invalid(
            f"{spec.name} has {len(spec.services)} services; at most {SERVICES_MAX} are possible",
            found=str(len(spec.services)),
            wanted=f"at most {SERVICES_MAX}",
        )
    containers = sorted(name for name, s in spec.services.items() if s.driver == "container")
    if containers:
        raise Invalid(
            f"no container driver in this version, which {', '.join(containers)} would need: "
            "give it a command, or leave it out with profiles",
            found=f"image without command: {', '.join(containers)}",
            wanted="a command",
        )
    for name, service in spec.services.items():
        _check_service(spec, name, service)
    _check_order(spec)


def _check_service(spec: ApplicationSpec, name: str, service: ServiceSpec) -> None:
    _check_name("service", name)
    if service.name != name:
        raise Invalid(f"the service {name} calls itself {service.name}", found=service.name, wanted=name)
    if not service.command:
        raise Invalid(f"the service {name} has no command", found="no command", wanted="a command")
    check_replicas(service, max(service.replicas, service.max_replicas or 0))
    if service.mirror is not None and service.mirror.service not in spec.services.keys() - {name}:
        raise Invalid(
            f"{name} is mirrored to {service.mirror.service}, which is no other service of {spec.name}",
            found=service.mirror.service,
            wanted="another service of the application",
        )
    for dependency in service.depends_on:
        if dependency.required and dependency.service not in spec.services:
            near = nearest(dependency.service, spec.services)
            raise Invalid(
                f"{name} depends on {dependency.service}, which {spec.name} does not have{near}",
                found=dependency.service,
                wanted=f"one of {', '.join(sorted(spec.services))}",
            )


def _check_order(spec: ApplicationSpec) -> None:
    graph = {name: [d.service for d in s.depends_on] for name, s in spec.services.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        raise Invalid(
            f"depends_on goes in a circle: {cycle}", found=cycle, wanted="an order to start in"
        ) from None


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        wanted = "letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit"
        raise Invalid(f"{name!r} is no name for a {what}; wanted: {wanted}", found=name, wanted=wanted)


def check_replicas(spec: ServiceSpec, replicas: int) -> None:
    """
    Refuse a number of instances that can't be run.

    Raises:
        Invalid: The message says how many can.
    """
    if spec.port is not None and replicas > 1:
        raise Invalid(
            f"{spec.name} insists on port {spec.port}, which one machine has once: {replicas} instances "
            "can't run; take {port} or $PORT instead",
            found=str(replicas),
            wanted="at most 1",
        )
    if not 0 <= replicas <= REPLICAS_MAX:
        raise Invalid(
            f"{replicas} instances of {spec.name}; 0 to {REPLICAS_MAX} are possible",
            found=str(replicas),
            wanted=f"0 to {REPLICAS_MAX}",
        )
