"""
What applying a file would change: a pure function from what is known and what is asked to records.

Scale, restart, undo and remove are in :mod:`unisono.control.changes`; reading and writing the store, and
trying again when something came in between, is :mod:`unisono.control.commands`'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from enum import StrEnum

from unisono.control.addresses import check_addresses
from unisono.control.checks import check_application
from unisono.control.happenings import happening
from unisono.control.progress import begins_with
from unisono.control.records import (
    Application,
    Happening,
    Revision,
    Rollout,
    RolloutPhase,
    Service,
)
from unisono.control.snapshot import ServiceView, Snapshot
from unisono.spec.changes import changes
from unisono.spec.model import ApplicationSpec, ServiceSpec

AllocatePort = Callable[[AbstractSet[int]], int]
"""Gives a free port that is not among those taken."""


class ChangeKind(StrEnum):
    """What happens to a service."""

    CREATE = "create"
    ROLL = "roll"  # a new revision replaces its instances
    UPDATE = "update"  # takes effect on the running instances
    REMOVE = "remove"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One field before and after, as text; secrets are masked, None: not there."""

    field: str  # "healthcheck.path", "replicas"
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class ServiceChange:
    """What happens to one service, and why."""

    service: str
    kind: ChangeKind
    differences: tuple[Difference, ...] = ()
    revision: int | None = None  # the one that should run afterwards
    replicas: int | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What applying a file changes, service by service."""

    application: str
    changes: tuple[ServiceChange, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return all(change.kind is ChangeKind.UNCHANGED for change in self.changes)


@dataclass(frozen=True, kw_only=True)
class Changed:
    """Records to write, all or none."""

    applications: tuple[Application, ...] = ()
    services: tuple[Service, ...] = ()
    revisions: tuple[Revision, ...] = ()
    happenings: tuple[Happening, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.applications or self.services or self.revisions)


@dataclass(frozen=True, kw_only=True)
class Now:
    """What a command may not find out by itself: the time, and a word that was never used before."""

    at: float
    nonce: str


def apply(
    known: Snapshot, spec: ApplicationSpec, *, allocate_port: AllocatePort, now: Now
) -> tuple[Plan, Changed]:
    """
    Make the file true: new services are created, changed ones rolled, missing ones removed.

    Raises:
        Invalid: The file asks for something this version or one machine can't do.
        Conflict: Another application has a route or a port that it asks for.
    """
    check_application(spec)
    check_addresses(known, spec.name, spec.services.values())
    taken = {v.service.internal_port for v in known.services.values() if v.service is not None}
    made: list[ServiceChange] = []
    services: list[Service] = []
    revisions: list[Revision] = []
    for name, wanted in sorted(spec.services.items()):
        view = known.services.get((spec.name, name)) or ServiceView(application=spec.name, name=name)
        if view.service is None:
            port = allocate_port(taken)
            taken.add(port)
            change, service, revision = _create(view, wanted, port, now)
        else:
            change, service, revision = _update(view, view.service, wanted, now)
        made.append(change)
        if service != view.service:
            services.append(service)
        if revision != view.revisions.get(revision.number):
            revisions.append(revision)
    for view in services_of(known, spec.name):
        if view.service is not None and view.name not in spec.services:
            made.append(ServiceChange(service=view.name, kind=ChangeKind.REMOVE))
            if not view.service.removing:
                services.append(replace(view.service, removing=True))
    application = Application(
        name=spec.name,
        source=spec.source,
        services=tuple(spec.services),
        transactions=spec.transactions,
    )
    is_new = application != known.applications.get(spec.name)
    plan = Plan(application=spec.name, changes=tuple(made))
    return plan, Changed(
        applications=(application,) if is_new else (),
        services=tuple(services),
        revisions=tuple(revisions),
        happenings=tuple(_apply_news(plan, services, now)),
    )


def _create(
    view: ServiceView, wanted: ServiceSpec, port: int, now: Now
) -> tuple[ServiceChange, Service, Revision]:
    number = max(view.revisions, default=0) + 1
    service = Service(
        application=view.application,
        name=view.name,
        revision=number,
        stable=None,
        replicas=wanted.replicas,
        internal_port=port,
        rollout=_rollout(0, number, 1, wanted, now),
    )
    change = ServiceChange(
        service=view.name, kind=ChangeKind.CREATE, revision=number, replicas=wanted.replicas
    )
    return change, service, new_revision(view, number, wanted, now)


def _update(
    view: ServiceView, service: Service, wanted: ServiceSpec, now: Now
) -> tuple[ServiceChange, Service, Revision]:
    current = view.revisions.get(service.revision)
    replicas = _replicas_after(service, wanted)
    changed = replace(service, replicas=replicas, removing=False)
    differences = tuple(_differences(service, changed, current.spec if current else None, wanted))
    if current is not None and current.digest == wanted.revision_hash():
        revision = replace(current, spec=wanted)
        kind = ChangeKind.UPDATE if differences else ChangeKind.UNCHANGED
        if _begins_anew(service, current.spec, wanted):
            kind = ChangeKind.ROLL
            changed = started(changed, service.revision, wanted, now)
    else:
        revision = new_revision(view, max(view.revisions, default=0) + 1, wanted, now)
        kind = ChangeKind.ROLL
        changed = started(changed, revision.number, wanted, now)
    change = ServiceChange(
        service=view.name,
        kind=kind,
        differences=differences,
        revision=changed.revision,
        replicas=replicas,
    )
    return change, changed, revision


def _begins_anew(service: Service, old: ServiceSpec, wanted: ServiceSpec) -> bool:
    """Whether the rollout to a revision that has not changed can't just go on."""
    if service.rollout is None:
        return False
    if service.rollout.phase is RolloutPhase.RELEASING:
        # Its job may have been swept up with the service, or runs what is no longer wanted.
        return service.removing or old.update.release_command != wanted.update.release_command
    return service.rollout.phase is RolloutPhase.PAUSED


def started(service: Service, target: int, wanted: ServiceSpec, now: Now) -> Service:
    """A rollout to ``target``; one to what is stable already is the way back, tried again."""
    serial = service.rollout.serial + 1 if service.rollout else 1
    source = service.stable or 0
    rollout = _rollout(source, target, serial, wanted, now)
    if source == target:
        rollout = replace(rollout, phase=RolloutPhase.ROLLING_BACK, reason="tried again")
    return replace(service, revision=target, rollout=rollout)


def _rollout(source: int, target: int, serial: int, wanted: ServiceSpec, now: Now) -> Rollout:
    releases = bool(wanted.update.release_command)
    return Rollout(
        source=source,
        target=target,
        phase=RolloutPhase.RELEASING if releases else begins_with(source, target, wanted),
        started_at=now.at,
        progressed_at=now.at,
        serial=serial,
    )


def new_revision(view: ServiceView, number: int, spec: ServiceSpec, now: Now, nonce: str = "") -> Revision:
    """A revision\'s record."""
    return Revision(
        application=view.application,
        service=view.name,
        number=number,
        digest=spec.revision_hash(),
        spec=spec,
        created_at=now.at,
        nonce=nonce,
    )


def _replicas_after(service: Service, wanted: ServiceSpec) -> int:
    """A range in the file leaves the number set by hand alone; a plain number is the number."""
    if wanted.max_replicas is None:
        return wanted.replicas
    return min(max(service.replicas, wanted.replicas), wanted.max_replicas)


def _differences(
    before: Service, after: Service, old: ServiceSpec | None, new: ServiceSpec
) -> Iterator[Difference]:
    if before.removing:
        yield Difference(field="removing", before="true", after="false")
    if before.replicas != after.replicas:
        yield Difference(field="replicas", before=str(before.replicas), after=str(after.replicas))
    one, other = (ApplicationSpec(name=before.application, services={new.name: s}) for s in (old or new, new))
    for change in changes(one, other):
        for f in change.fields:
            if f.path != "replicas":  # what is wanted now counts, not what an earlier file said
                yield Difference(field=f.path, before=f.before, after=f.after)


def _apply_news(plan: Plan, services: Iterable[Service], now: Now) -> Iterator[Happening]:
    if plan.is_empty:
        return
    by_kind: dict[ChangeKind, list[str]] = {}
    for change in plan.changes:
        if change.kind is not ChangeKind.UNCHANGED:
            by_kind.setdefault(change.kind, []).append(change.service)
    message = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in by_kind.items())
    yield happening("application-applied", at=now.at, application=plan.application, message=message)
    rolled = set(by_kind.get(ChangeKind.ROLL, ()))
    for service in services:
        if service.name in rolled:
            yield rollout_news(service, now)


def rollout_news(service: Service, now: Now) -> Happening:
    """That a rollout begins."""
    rollout = service.rollout
    data = {"source": rollout.source, "target": rollout.target} if rollout else {}
    return happening(
        "rollout-started",
        at=now.at,
        application=service.application,
        service=service.name,
        message=f"to revision {service.revision}",
        data=data,
    )


def services_of(known: Snapshot, application: str) -> list[ServiceView]:
    """All services of an application, by name."""
    return [view for (name, _), view in sorted(known.services.items()) if name == application]
