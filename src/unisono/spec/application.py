"""
From all services as they are written to an application: names, which services take part, and what
services must not say together.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unisono.spec import schema
from unisono.spec.convert import service_spec
from unisono.spec.draft import Draft
from unisono.spec.errors import Mark, Problem, Report, field_path
from unisono.spec.model import ApplicationSpec, Condition, Route, ServiceSpec
from unisono.spec.nodes import ListNode, MapNode, find, key_mark, quoted
from unisono.spec.outside import Outside
from unisono.spec.ports import collisions
from unisono.spec.shared import given_to
from unisono.spec.tls import tls

MAX_NAME = 63
MAX_CIRCLE_SHOWN = 12  # names
_APPLICATION = re.compile(r"[a-z0-9][a-z0-9_-]*")
_SERVICE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*")


def application_name(
    given: str | None, file: schema.File, tree: MapNode, folder: Path, report: Report
) -> str:
    """
    The name given by the caller, by the file, or by its folder, which is made to fit as Compose does it.
    """
    wanted = f"a-z, 0-9, _ and -, at most {MAX_NAME} of them, the first a letter or number"
    if given is not None:
        if not _fits(given, _APPLICATION):
            report.error(Problem(found=f"the name {quoted(given)}", wanted=wanted))
        return given
    if file.name is not None:
        if not _fits(file.name, _APPLICATION):
            node = tree["name"]
            report.error(Problem(mark=node.mark, path="name", found=quoted(file.name), wanted=wanted))
        return file.name
    name = re.sub(r"[^a-z0-9_-]", "", folder.resolve().name.lower()).lstrip("_-")[:MAX_NAME]
    if not name:
        message = f"the folder {folder.resolve()} gives the application no name"
        report.error(Problem(mark=tree.mark, message=message, hint="write name: at the top of the file"))
    return name


def _fits(name: str, pattern: re.Pattern[str]) -> bool:
    return len(name) <= MAX_NAME and bool(pattern.fullmatch(name))


def select(
    services: Mapping[str, schema.Service],
    tree: MapNode,
    profiles: Sequence[str],
    wanted: Sequence[str],
    report: Report,
) -> list[str]:
    """
    The services that take part: those without a profile or with an active one; if some are wanted by
    name, those with their profiles, and all that they depend on.
    """
    active = set(profiles)
    for name in wanted:
        if name not in services:
            report.error(Problem(message=f"found no service {quoted(name)}, want {_nearest(name, services)}"))
        else:
            active.update(services[name].profiles or ())
    report.check()

    def enabled(name: str) -> bool:
        own = services[name].profiles
        return not own or "*" in active or not active.isdisjoint(own)

    chosen = dict.fromkeys(name for name in (wanted or services) if enabled(name))
    queue = list(chosen)
    while queue:
        name = queue.pop()
        for other in services[name].depends_on or {}:
            if other in services and enabled(other):
                if other not in chosen:
                    chosen[other] = None
                    queue.append(other)
            else:
                _absent(tree, name, other, services, report)
    return [name for name in services if name in chosen]


def _absent(
    tree: MapNode, name: str, other: str, services: Mapping[str, schema.Service], report: Report
) -> None:
    """Say that ``other``, on which ``name`` depends, does not take part."""
    path = ("services", name, "depends_on", other)
    mark = find(tree, path).mark
    if not (services[name].depends_on or {})[other].required:
        report.warn("it is not there, and not required", mark=mark, path=field_path(path))
    elif other in services:
        profiles = " or ".join(services[other].profiles or ())
        message = f"{other} is not active, it has the profile {profiles}"
        hint = f"name the profile with --profile, or write required: false under depends_on.{other}"
        report.error(Problem(mark=mark, path=field_path(path), message=message, hint=hint))
    else:
        wanted = _nearest(other, services)
        report.error(
            Problem(mark=mark, path=field_path(path), found=f"no service {quoted(other)}", wanted=wanted)
        )


def _nearest(name: str, services: Collection[str]) -> str:
    near = difflib.get_close_matches(name, services, 1)
    return near[0] if near else "one of " + (", ".join(services) or "none")


def application(
    file: schema.File,
    tree: MapNode,
    chosen: Sequence[str],
    *,
    name: str,
    source: str,
    variables: Mapping[str, str],
    inherited: Mapping[str, str],
    report: Report,
) -> ApplicationSpec:
    """
    The application of the ``chosen`` services.

    Raises:
        SpecError: Anything is wrong; every problem found is in it.
    """
    services = {other: (file.services or {})[other] for other in chosen}
    _check_names(services, tree, report)
    _check_circles(services, tree, report)
    _check_variables(services, tree, report)
    needed: dict[str, set[Condition]] = {other: set() for other in chosen}
    for service in services.values():
        for other, entry in (service.depends_on or {}).items():
            needed.setdefault(other, set()).add(Condition(entry.condition))
    specs = {}
    for other, service in services.items():
        draft = Draft(
            name=other,
            written=service,
            node=tree["services"][other],
            report=report,
            variables=variables,
            inherited=inherited,
            needed=frozenset(needed[other]),
        )
        specs[other] = _without_absent(service_spec(draft), services)
    specs = _with_public_tls(specs, file, tree, report)
    specs = _with_shared(specs, file, tree, report)
    _check_mirrors(specs, tree, report)
    _check_routes(specs, tree, report)
    _check_fixed_ports(specs, tree, report)
    collisions(tree, {other: spec.ports for other, spec in specs.items()}, report)
    report.check()
    outside = Outside() if file.transactions is None else Outside(allow=file.transactions.allow)
    return ApplicationSpec(name=name, services=specs, source=source, transactions=outside)


def _without_absent(spec: ServiceSpec, services: Mapping[str, schema.Service]) -> ServiceSpec:
    """Dependencies that are not required and not there are left out, with a warning given before."""
    return replace(spec, depends_on=tuple(d for d in spec.depends_on if d.service in services))


def _with_public_tls(
    specs: dict[str, ServiceSpec], file: schema.File, tree: MapNode, report: Report
) -> dict[str, ServiceSpec]:
    """The certificates of the public address, with the services that have routes there."""
    found = tls(file.tls, tree.get("tls", tree), report)
    if found is None:
        return specs
    if not any(spec.routes for spec in specs.values()):
        message = "has no effect: no service has routes at the public address"
        report.warn(message, mark=key_mark(tree, "tls"), path="tls")
    return {
        name: replace(spec, tls=found.certificates) if spec.routes else spec for name, spec in specs.items()
    }


def _with_shared(
    specs: dict[str, ServiceSpec], file: schema.File, tree: MapNode, report: Report
) -> dict[str, ServiceSpec]:
    """The application's tables in memory, each with the services that may read all that is in it."""
    tables = file.shared or ()
    given = {
        name: replace(spec, shared=given_to(spec.access, tables)) if tables else spec
        for name, spec in specs.items()
    }
    for table in tables:
        if not any(table in spec.shared for spec in given.values()):
            path = ("shared", table.prefix)
            message = "has no effect: no service has access to all keys that begin so"
            report.warn(message, mark=find(tree, path).mark, path=field_path(path))
    return given


def _check_mirrors(specs: Mapping[str, ServiceSpec], tree: MapNode, report: Report) -> None:
    for name, spec in specs.items():
        if spec.mirror is None:
            continue
        path = ("services", name, "mirror")
        mark = find(tree, path).mark
        other = specs.get(spec.mirror.service)
        if other is None or other.name == name:
            others = {n: s for n, s in specs.items() if n != name and s.serves}
            found = f"{'no' if other is None else 'the'} service {quoted(spec.mirror.service)}"
            wanted = "another service"
            if others:
                wanted += ", such as " + _nearest(spec.mirror.service, others)
            report.error(Problem(mark=mark, path=field_path(path), found=found, wanted=wanted))
        elif not other.serves or other.mode == "tcp":
            message = f"{other.name} does not serve HTTP, so that nothing can be copied to it"
            report.error(Problem(mark=mark, path=field_path(path), message=message))


def _check_names(services: Mapping[str, schema.Service], tree: MapNode, report: Report) -> None:
    node = tree.get("services")
    if not services:
        message = "found no service to run, want at least one"
        hint = None
        if isinstance(node, MapNode) and node:
            hint = "all services have profiles; name one with --profile"
        report.error(Problem(mark=(node or tree).mark, path="services", message=message, hint=hint))
        return
    for name in services:
        if not _fits(name, _SERVICE):
            wanted = f"a-z, A-Z, 0-9, ., _ and -, at most {MAX_NAME} of them, the first a letter or number"
            found = f"the service {quoted(name)}"
            mark = key_mark(tree["services"], name)
            report.error(Problem(mark=mark, path="services", found=found, wanted=wanted))


def _check_circles(services: Mapping[str, schema.Service], tree: MapNode, report: Report) -> None:
    """Note one circle in depends_on, if there is any: from there on orders make no sense."""
    waiting = {
        name: [o for o in (service.depends_on or {}) if o in services] for name, service in services.items()
    }
    order: list[str] = []
    free = [name for name, others in waiting.items() if not others]
    dependents: dict[str, list[str]] = {}
    left = {name: len(set(others)) for name, others in waiting.items()}
    for name, others in waiting.items():
        for other in set(others):
            dependents.setdefault(other, []).append(name)
    while free:
        name = free.pop()
        order.append(name)
        for dependent in dependents.get(name, ()):
            left[dependent] -= 1
            if not left[dependent]:
                free.append(dependent)
    stuck = [name for name in services if name not in set(order)]
    if not stuck:
        return
    # Each stuck service waits for another stuck one, so following them must come back.
    trail: list[str] = []
    name = stuck[0]
    while name not in trail:
        trail.append(name)
        name = next(other for other in waiting[name] if left[other])
    circle = [*trail[trail.index(name) :], name]
    path = ("services", circle[0], "depends_on", circle[1])
    shown = circle if len(circle) <= MAX_CIRCLE_SHOWN else [*circle[: MAX_CIRCLE_SHOWN - 2], "…", name]
    message = f"found the circle {' → '.join(shown)}, want services that can start one after the other"
    report.error(Problem(mark=find(tree, path).mark, path=field_path(path), message=message))


def _check_variables(services: Mapping[str, schema.Service], tree: MapNode, report: Report) -> None:
    """Note a service that would see two of those it depends on under one variable."""
    for name, service in services.items():
        taken: dict[str, str] = {}
        for other in service.depends_on or {}:
            variable = re.sub(r"[^A-Z0-9]", "_", other.upper()) + "_URL"
            if taken.setdefault(variable, other) != other:
                path = ("services", name, "depends_on", other)
                message = (
                    f"{other} and {taken[variable]} would both be {variable}, want names that differ in it"
                )
                report.error(Problem(mark=find(tree, path).mark, path=field_path(path), message=message))


def _check_routes(specs: Mapping[str, ServiceSpec], tree: MapNode, report: Report) -> None:
    taken: dict[tuple[str | None, str], tuple[str, ...]] = {}
    for name, spec in specs.items():
        where = ("services", name, "routes")
        for number, route in enumerate(spec.routes):
            if any((r.host, r.path) == (route.host, route.path) for r in spec.routes[:number]):
                shown = (route.host or "") + route.path
                message = f"the route {shown} is there twice with different priorities, want one"
                mark = find(tree, where).mark
                report.error(Problem(mark=mark, path=field_path(where), message=message))
            known = taken.setdefault((route.host, route.path), where)
            if known != where:
                first, second = _route_at(tree, known, route), _route_at(tree, where, route)
                shown = (route.host or "") + route.path
                message = f"the route {shown} also belongs to {known[1]} in {first}"
                report.error(Problem(mark=second, path=field_path(where), message=message))


def _route_at(tree: MapNode, where: tuple[str, ...], route: Route) -> Mark:
    node = find(tree, where)
    for item in node if isinstance(node, ListNode) else ():
        path, host = item.get("path"), item.get("host")
        same_host = (host.text.lower() if host is not None else None) == route.host
        if same_host and (path.text if path is not None else "/") == route.path:
            return Mark(item.mark.source, item.mark.line, item.mark.column)
    return node.mark


def _check_fixed_ports(specs: Mapping[str, ServiceSpec], tree: MapNode, report: Report) -> None:
    """No port that a program insists on may be another program's or one of the gateway's."""
    for name, spec in specs.items():
        for other, rival in specs.items():
            if spec.port is None or other == name:
                continue
            mark = find(tree, ("services", other, "port" if rival.port == spec.port else "ports")).mark
            if spec.port in {rival.port, *(port.port for port in rival.ports)} and (
                name < other or rival.port != spec.port
            ):
                path = ("services", name, "port")
                message = f"the port {spec.port} is also wanted by {other} in {mark}"
                report.error(Problem(mark=find(tree, path).mark, path=field_path(path), message=message))
