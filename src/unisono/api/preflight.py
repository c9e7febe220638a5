"""
What can be known before anything is written: that commands can be started and ports can be had.

An application that fails here would be accepted and then never get ready; saying so at once, with every
fault by name, is kinder. What depends on other applications is :mod:`unisono.control.addresses`'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

from unisono.api.addresses import bind_failure, parse_address
from unisono.api.problems import Problem
from unisono.control.snapshot import Snapshot
from unisono.node.drivers.base import CannotStart
from unisono.node.drivers.startable import check_startable
from unisono.node.sharing import sizes
from unisono.spec.model import ApplicationSpec, PublishedPort
from unisono.spec.shared import DEFAULT_NODE_BYTES
from unisono.spec.units import format_size

_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound


@dataclass(frozen=True)
class _Fault:
    field: str
    detail: str
    status: HTTPStatus


async def check(
    spec: ApplicationSpec, known: Snapshot, listen: str, *, shared_memory: int = DEFAULT_NODE_BYTES
) -> None:
    """
    Look for all that would keep ``spec`` from running on this machine.

    Args:
        spec: What is to run.
        known: What runs.
        listen: The public address.
        shared_memory: Bytes for the tables of all applications.

    Raises:
        Problem: 422 if something is wrong with the file, 409 if a port is in use; names every fault.
    """
    # In a thread: a PATH on a slow disk must not hold up the node.
    faults = await asyncio.to_thread(
        lambda: [*_commands(spec), *_memory(spec, known, shared_memory), *_ports(spec, known, listen)]
    )
    if not faults:
        return
    wrong = any(fault.status is HTTPStatus.UNPROCESSABLE_ENTITY for fault in faults)
    raise Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.CONFLICT,
        f"{faults[0].field}: {faults[0].detail}",
        errors=[{"field": fault.field, "detail": fault.detail} for fault in faults],
    )


def _commands(spec: ApplicationSpec) -> Iterator[_Fault]:
    for name, service in spec.services.items():
        if service.driver == "container":
            continue  # its command is inside of the image; that there are no containers is said by who plans
        try:
            check_startable(service)
        except CannotStart as error:
            detail = str(error).removeprefix("cannot start: ")
            yield _Fault(f"services.{name}", detail, HTTPStatus.UNPROCESSABLE_ENTITY)


def _memory(spec: ApplicationSpec, known: Snapshot, limit: int) -> Iterator[_Fault]:
    """The tables of all applications together have no more than the node gives them."""
    own = {table.prefix: table.size for service in spec.services.values() for table in service.shared}
    others = {application for application, _ in known.services} - {spec.name}
    taken = sum(sizes(known, others).values())
    if own and taken + sum(own.values()) > limit:
        wants, left = format_size(sum(own.values())), format_size(max(limit - taken, 0))
        detail = (
            f"wants {wants}, {left} are left of {format_size(limit)} for all applications; "
            "give the node more with --shared-memory"
        )
        yield _Fault("shared", detail, HTTPStatus.CONFLICT)


def _ports(spec: ApplicationSpec, known: Snapshot, listen: str) -> Iterator[_Fault]:
    published = _published(known)
    own = _instance_ports(known)
    yield from _public(spec, known, listen)
    for name, service in spec.services.items():
        for port in service.ports:
            address = _address(port)
            if address in published or address == listen:
                continue  # the gateway listens there already, or will
            rival = next((one for one in (listen, *published) if _overlaps(one, port.host_ip, port.port)), "")
            reason = f"overlaps with {rival}, where the gateway answers" if rival else ""
            reason = reason or bind_failure(port.host_ip, port.port)
            if reason:
                yield _Fault(f"services.{name}.ports", reason, HTTPStatus.CONFLICT)
        if service.port is not None and service.port not in own:
            reason = bind_failure("0.0.0.0", service.port)  # noqa: S104 - bound for a moment only
            if reason:
                yield _Fault(f"services.{name}.port", reason, HTTPStatus.CONFLICT)


def _public(spec: ApplicationSpec, known: Snapshot, listen: str) -> Iterator[_Fault]:
    """The public address is bound for the first route; before that, someone else may have it."""
    routed = [name for name, service in spec.services.items() if service.routes]
    specs = (view.current_spec for view in known.services.values())
    if not routed or listen in _published(known) or any(one.routes for one in specs if one):
        return
    if reason := bind_failure(*parse_address(listen)):
        hint = f"{reason}, with --listen HOST:PORT of `unisono node` or `unisono up`"
        yield _Fault(f"services.{routed[0]}.routes", hint, HTTPStatus.CONFLICT)


def _published(known: Snapshot) -> set[str]:
    """Addresses at which the gateway answers for services that it knows."""
    specs = (view.current_spec for view in known.services.values())
    return {_address(port) for spec in specs if spec for port in spec.ports}


def _address(port: PublishedPort) -> str:
    return f"[{port.host_ip}]:{port.port}" if ":" in port.host_ip else f"{port.host_ip}:{port.port}"


def _instance_ports(known: Snapshot) -> set[int | None]:
    return {member.status.port for view in known.services.values() for member in view.members}


def _overlaps(address: str, host: str, port: int) -> bool:
    other_host, _, other_port = address.rpartition(":")
    if other_port != str(port):
        return False
    return host in _ANY or other_host.strip("[]") in _ANY
