"""
Routes and published ports: each belongs to one service, over all applications of the node.

What the gateway does with them is not here; that internal ports are unique sees to
:func:`unisono.control.plan.apply`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from unisono.control.errors import Conflict
from unisono.control.snapshot import Snapshot
from unisono.spec.model import PublishedPort, ServiceSpec

_ANY_HOST = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound


def check_addresses(known: Snapshot, application: str, services: Iterable[ServiceSpec]) -> None:
    """Refuse a route or a published port that two services would share, in whatever application."""
    routes: dict[tuple[str | None, str], str] = {}
    ports: list[tuple[PublishedPort, str]] = []
    for owner, spec in _specs_of_others(known, application):
        routes.update(((r.host, r.path), owner) for r in spec.routes)
        ports += [(p, owner) for p in spec.ports]
    for spec in services:
        owner = f"{application}/{spec.name}"
        for route in spec.routes:
            other = routes.setdefault((route.host, route.path), owner)
            if other != owner:
                shown = f"{route.path} at {route.host or 'any host'}"
                raise Conflict(
                    f"{owner} and {other} have the same route {shown}; give one another path or host",
                    found=f"{shown}, which is {other}'s",
                    wanted="a path or host of its own",
                )
        for port in spec.ports:
            rival = next((o for p, o in ports if o != owner and _overlap(p, port)), None)
            if rival is not None:
                raise Conflict(
                    f"{owner} and {rival} publish the same port {port.host_ip}:{port.port}; change one",
                    found=f"port {port.port} of {rival}",
                    wanted="a port of its own",
                )
            ports.append((port, owner))


def _specs_of_others(known: Snapshot, application: str) -> Iterator[tuple[str, ServiceSpec]]:
    """The specs that services of other applications follow, or may come back to by themselves."""
    for (name, service), view in sorted(known.services.items()):
        if name == application or view.service is None:
            continue
        numbers = {view.service.revision, view.service.stable}
        for number in numbers:
            spec = view.spec(number)
            if spec is not None:
                yield f"{name}/{service}", spec


def _overlap(one: PublishedPort, other: PublishedPort) -> bool:
    hosts = {one.host_ip, other.host_ip}
    return one.port == other.port and (len(hosts) == 1 or bool(hosts & _ANY_HOST))
