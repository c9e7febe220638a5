"""
What scale, restart, readdress, undo and remove would change: pure functions from what is known to records.

Applying a file is in :mod:`unisono.control.plan`, writing in :mod:`unisono.control.commands`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from unisono.control.addresses import check_addresses
from unisono.control.checks import check_replicas
from unisono.control.errors import Conflict, Invalid, NotFound, nearest
from unisono.control.happenings import happening
from unisono.control.plan import (
    AllocatePort,
    Changed,
    Now,
    new_revision,
    rollout_news,
    services_of,
    started,
)
from unisono.control.progress import is_active
from unisono.control.records import Happening, Revision, Rollout, RolloutPhase, Service
from unisono.control.rollout import turned_back
from unisono.control.snapshot import ServiceView, Snapshot
from unisono.spec.model import ServiceSpec


def scale(
    known: Snapshot, application: str, service: str, replicas: int, now: Now
) -> tuple[Service, Changed]:
    """
    Another number of instances.

    Raises:
        NotFound: No such service.
        Conflict: It is being removed.
        Invalid: The number is outside of what the service's file allows.
    """
    view, record = _find(known, application, service)
    spec = _spec_of(view, record)
    check_replicas(spec, replicas)
    if spec.max_replicas is not None and replicas != 0 and not spec.replicas <= replicas <= spec.max_replicas:
        wanted = f"{spec.replicas} to {spec.max_replicas}, or 0"
        raise Invalid(
            f"{replicas} instances of {service}; its file allows {wanted}", found=str(replicas), wanted=wanted
        )
    if replicas == record.replicas:
        return record, Changed()
    scaled = replace(record, replicas=replicas)
    news = happening(
        "service-scaled",
        at=now.at,
        application=application,
        service=service,
        message=f"from {record.replicas} to {replicas}",
        data={"before": record.replicas, "after": replicas},
    )
    return scaled, Changed(services=(scaled,), happenings=(news,))


def restart(
    known: Snapshot, application: str, services: Iterable[str] | None, now: Now
) -> tuple[tuple[Service, ...], Changed]:
    """
    Replace all instances by new ones of the same spec; ``services`` None means all.

    A release command that has done its work once is not run again.

    Raises:
        NotFound: No such application or service.
        Conflict: One is being removed.
    """
    restarted: list[Service] = []
    revisions: list[Revision] = []
    for name in _names(known, application, services):
        view, record = _find(known, application, name)
        spec = _spec_of(view, record)
        revision = new_revision(view, max(view.revisions) + 1, spec, now, nonce=now.nonce)
        begun = started(record, revision.number, spec, now)
        if record.stable == record.revision and begun.rollout is not None:
            begun = replace(begun, rollout=replace(begun.rollout, phase=RolloutPhase.ROLLING))
        revisions.append(revision)
        restarted.append(begun)
    news = tuple(rollout_news(service, now) for service in restarted)
    return tuple(restarted), Changed(services=tuple(restarted), revisions=tuple(revisions), happenings=news)


def readdress(
    known: Snapshot, names: Iterable[tuple[str, str]], allocate_port: AllocatePort, now: Now
) -> tuple[tuple[Service, ...], Changed]:
    """
    Give services another internal port, and restart what depends on them: it was told the old one.

    ``names`` are pairs of application and service; those that are gone meanwhile are left out.

    Raises:
        Conflict: No port is left.
    """
    taken = {v.service.internal_port for v in known.services.values() if v.service is not None}
    moved: dict[tuple[str, str], Service] = {}
    for name in names:
        view = known.services.get(name)
        if view is not None and view.service is not None:
            port = allocate_port(taken)
            taken.add(port)
            moved[name] = replace(view.service, internal_port=port)
    changed = dict(moved)
    revisions: list[Revision] = []
    news = [_readdressed(known, service, now) for service in moved.values()]
    for application in sorted({application for application, _ in moved}):
        told = [view.name for view in services_of(known, application) if _was_told(view, moved)]
        if told:
            restarted, more = restart(known, application, told, now)
            for service in restarted:
                name = (application, service.name)
                port = moved.get(name, service).internal_port
                changed[name] = replace(service, internal_port=port)
            revisions += more.revisions
            news += more.happenings
    return tuple(moved.values()), Changed(
        services=tuple(changed.values()), revisions=tuple(revisions), happenings=tuple(news)
    )


def _was_told(view: ServiceView, moved: Mapping[tuple[str, str], Service]) -> bool:
    """Whether a service that stays found one of ``moved`` at its old port."""
    if view.service is None or view.service.removing or view.current_spec is None:
        return False
    return any((view.application, d.service) in moved for d in view.current_spec.depends_on)


def _readdressed(known: Snapshot, service: Service, now: Now) -> Happening:
    before = known.services[service.application, service.name].service
    old = before.internal_port if before is not None else 0
    return happening(
        "service-readdressed",
        at=now.at,
        application=service.application,
        service=service.name,
        message=f"from port {old}, which somebody else has, to {service.internal_port}",
        data={"before": old, "after": service.internal_port},
    )


def undo(known: Snapshot, application: str, service: str, now: Now) -> tuple[Service, Changed]:
    """
    Go back to the stable revision before; an undo of an undo brings back what it undid.

    A rollout on its way, or a paused one, is turned back to where it came from. The release command of
    the revision gone back to is not run: it has been.

    Raises:
        NotFound: No such service.
        Conflict: There is nothing to go back to, or it would take another application's route or port.
    """
    view, record = _find(known, application, service)
    rollout = record.rollout
    serial = rollout.serial + 1 if rollout else 1
    is_paused = rollout is not None and rollout.phase is RolloutPhase.PAUSED
    if rollout is not None and (is_active(rollout) or is_paused) and rollout.source:
        if rollout.phase is RolloutPhase.ROLLING_BACK:
            raise Conflict(
                f"{service} is going back to revision {rollout.source} already",
                found="a rollback on its way",
                wanted="its end",
            )
        undone = turned_back(record, replace(rollout, serial=serial), "undone by hand", now.at)
    else:
        target = next((n for n in reversed(record.history) if n in view.revisions), None)
        if target is None or is_active(rollout) or is_paused:
            raise Conflict(
                f"{service} has no earlier revision that was stable",
                found=f"revision {record.revision} only",
                wanted="an earlier stable revision",
            )
        spec = view.revisions[target].spec
        _check_return(known, application, spec)
        going_back = Rollout(
            source=record.stable or 0,
            target=target,
            phase=RolloutPhase.ROLLING,
            started_at=now.at,
            progressed_at=now.at,
            serial=serial,
        )
        undone = replace(record, revision=target, rollout=going_back)
    return undone, Changed(services=(undone,), happenings=(rollout_news(undone, now),))


def _check_return(known: Snapshot, application: str, spec: ServiceSpec) -> None:
    """An old spec must still fit to what has come since."""
    present = {
        v.name: v.current_spec
        for v in services_of(known, application)
        if v.service and not v.service.removing
    }
    for dependency in spec.depends_on:
        if dependency.required and dependency.service not in present:
            raise Conflict(
                f"that revision of {spec.name} depends on {dependency.service}, which is gone",
                found=f"no service {dependency.service}",
                wanted=f"{dependency.service}, or a revision without it",
            )
    others = [s for name, s in present.items() if s is not None and name != spec.name]
    check_addresses(known, application, [*others, spec])


def remove(
    known: Snapshot, application: str, services: Iterable[str] | None, now: Now
) -> tuple[tuple[str, ...], Changed]:
    """
    Stop services and forget them; ``services`` None means the whole application.

    Raises:
        NotFound: No such application or service.
        Conflict: A service that stays needs one that is to go.
    """
    names = tuple(_names(known, application, services))
    leaving = [_find(known, application, name, removing=True)[1] for name in names]
    staying = [
        v
        for v in services_of(known, application)
        if v.service is not None and not v.service.removing and v.name not in names
    ]
    for view in staying:
        needed = [
            d.service
            for d in (view.current_spec.depends_on if view.current_spec else ())
            if d.required and d.service in names
        ]
        if needed:
            raise Conflict(
                f"{view.name} depends on {needed[0]}; remove {view.name} too, or apply a file without it",
                found=f"{view.name} depends on {needed[0]}",
                wanted=f"{view.name} among the services to remove",
            )
    record = known.applications[application]
    left = replace(record, services=tuple(v.name for v in staying), removing=not staying)
    changed = tuple(replace(s, removing=True) for s in leaving if not s.removing)
    if staying:
        news = [
            happening("service-removing", at=now.at, application=application, service=s.name) for s in changed
        ]
    else:
        news = [happening("application-removing", at=now.at, application=application)]
    is_new = left != record
    return names, Changed(
        applications=(left,) if is_new else (),
        services=changed,
        happenings=tuple(news) if is_new or changed else (),
    )


def _names(known: Snapshot, application: str, services: Iterable[str] | None) -> list[str]:
    _find_application(known, application)
    if services is None:
        return [v.name for v in services_of(known, application) if v.service is not None]
    return list(dict.fromkeys(services))


def _find_application(known: Snapshot, application: str) -> None:
    if application not in known.applications:
        instead = nearest(application, known.applications, has="there is")
        raise NotFound(
            f"there is no application {application}{instead}",
            found=application,
            wanted=", ".join(sorted(known.applications)) or "an application that was applied",
        )


def _find(
    known: Snapshot, application: str, service: str, *, removing: bool = False
) -> tuple[ServiceView, Service]:
    """The service; one that is being removed only where ``removing`` allows it."""
    _find_application(known, application)
    view = known.services.get((application, service))
    if view is None or view.service is None:
        names = [v.name for v in services_of(known, application) if v.service is not None]
        raise NotFound(
            f"{application} has no service {service}{nearest(service, names)}",
            found=service,
            wanted=", ".join(names),
        )
    if view.service.removing and not removing:
        raise Conflict(
            f"{service} is being removed; apply its file to keep it",
            found="a service on its way out",
            wanted="a service that is to run",
        )
    return view, view.service


def _spec_of(view: ServiceView, record: Service) -> ServiceSpec:
    spec = view.spec(record.revision)
    if spec is None:
        raise NotFound(
            f"revision {record.revision} of {view.name} is missing; apply its file again",
            found=f"revisions {', '.join(map(str, sorted(view.revisions))) or 'none'}",
            wanted=f"revision {record.revision}",
        )
    return spec
