"""
What a decision sees: all records at one revision of the store, the time, and the load.

A Snapshot is made once from a scan and then carried on by the batches of a watch; both go through
:func:`_changed`, so that they can't drift apart. Records are grouped by service, because decisions are
made by service; a service that did not change keeps its view, and what was computed of it.

Reading the store is not here (:mod:`unisono.control.loop`), nor is any decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from pydantic import ValidationError

from unisono.control.records import (
    Application,
    Figures,
    Goal,
    Instance,
    NodeRecord,
    Phase,
    Revision,
    Service,
    Status,
    decode,
)
from unisono.spec.model import ServiceSpec
from unisono.store import base

R = TypeVar("R")

ServiceKey = tuple[str, str]  # application, service


@dataclass(frozen=True, kw_only=True)
class Member:
    """An instance of a service: what it should do and what it does."""

    instance: Instance
    status: Status

    @property
    def id(self) -> str:
        """The instance's id."""
        return self.instance.id

    @property
    def phase(self) -> Phase:
        """Where it is in its life; PENDING while its agent has not spoken yet."""
        return self.status.phase

    @property
    def is_ready(self) -> bool:
        """Whether it does what it is for: it serves, or it has done all it had to do."""
        return self.phase in (Phase.READY, Phase.COMPLETED)


@dataclass(frozen=True, kw_only=True)
class ServiceView:
    """One service and all that belongs to it; ``service`` is None when only remains are left."""

    application: str
    name: str
    service: Service | None = None
    modified: int = 0  # the store's revision that last changed the Service record
    revisions: Mapping[int, Revision] = field(default_factory=dict)
    instances: Mapping[str, Instance] = field(default_factory=dict)
    statuses: Mapping[str, Status] = field(default_factory=dict)

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """All instances, those on their way out and jobs included, in the order of their ids."""
        return tuple(
            Member(
                instance=instance,
                status=self.statuses.get(id) or Status(phase=Phase.PENDING, since=instance.created_at),
            )
            for id, instance in sorted(self.instances.items())
        )

    @cached_property
    def running(self) -> tuple[Member, ...]:
        """Instances that should run and have not been let go; jobs are none of them."""
        return tuple(
            m
            for m in self.members
            if m.instance.goal is Goal.RUN and m.phase is not Phase.STOPPED and not m.instance.job
        )

    @cached_property
    def departing(self) -> tuple[Member, ...]:
        """Instances that were told to stop and have not yet; jobs are none of them."""
        return tuple(
            m
            for m in self.members
            if m.instance.goal is not Goal.RUN and m.phase is not Phase.STOPPED and not m.instance.job
        )

    @cached_property
    def jobs(self) -> tuple[Member, ...]:
        """Release commands."""
        return tuple(m for m in self.members if m.instance.job)

    def spec(self, revision: int | None) -> ServiceSpec | None:
        """The spec of a revision, if it is still kept."""
        record = None if revision is None else self.revisions.get(revision)
        return None if record is None else record.spec

    @property
    def current_spec(self) -> ServiceSpec | None:
        """The spec of the revision that should run."""
        return None if self.service is None else self.spec(self.service.revision)


Measured = Mapping[tuple[str, str, int], Figures]
"""The gateway's figures by application, service and revision; what is not in it was never asked."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All records as of the store's ``revision``, at the time ``now`` (seconds since the epoch)."""

    revision: int = 0
    now: float = 0.0
    in_flight: Mapping[str, int] = field(default_factory=dict)  # requests in work, by instance id
    measured: Measured = field(default_factory=dict)
    applications: Mapping[str, Application] = field(default_factory=dict)
    application_modified: Mapping[str, int] = field(default_factory=dict)
    services: Mapping[ServiceKey, ServiceView] = field(default_factory=dict)
    nodes: Mapping[str, NodeRecord] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)  # happenings: their keys, when they were written

    @classmethod
    def of(cls, stored: base.Snapshot) -> Snapshot:
        """
        The snapshot of a scan of everything.

        Raises:
            ValueError: A record can't be read; the message names its key.
        """
        return _changed(cls(), stored.revision, ((entry.key, entry) for entry in stored.entries))

    def after(self, batches: Iterable[base.Batch]) -> Snapshot:
        """
        The snapshot after these changes.

        Raises:
            ValueError: A record can't be read; the message names its key.
        """
        batches = tuple(batches)
        if not batches:
            return self
        events = ((event.key, event.entry) for batch in batches for event in batch.events)
        return _changed(self, batches[-1].revision, events)

    def at(self, now: float, in_flight: Mapping[str, int], measured: Measured | None = None) -> Snapshot:
        """The same records at another time and load."""
        return replace(self, now=now, in_flight=in_flight, measured=measured or {})


_KINDS = frozenset(("application", "service", "revision", "instance", "status", "node", "event"))
"""The first part of the keys of all records that a snapshot holds."""


class _Draft:
    """The dictionaries of a snapshot, each copied when it is first written to."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._plain: dict[str, dict[str, Any]] = {}
        self._views: dict[ServiceKey, dict[str, Any]] = {}

    def plain(self, name: str) -> dict[str, Any]:
        """A dictionary of the snapshot itself."""
        if name not in self._plain:
            self._plain[name] = dict(getattr(self._snapshot, name))
        return self._plain[name]

    def view(self, key: ServiceKey) -> dict[str, Any]:
        """The fields of a service's view."""
        if key not in self._views:
            old = self._snapshot.services.get(key)
            self._views[key] = {} if old is None else _fields_of(old)
        return self._views[key]

    def part(self, key: ServiceKey, name: str) -> dict[Any, Any]:
        """A dictionary of a service's view."""
        view = self.view(key)
        copied = view.setdefault("copied", set())
        if name not in copied:
            copied.add(name)
            view[name] = dict(view.get(name, {}))
        part: dict[Any, Any] = view[name]
        return part

    def finish(self, revision: int) -> Snapshot:
        """The new snapshot."""
        services = dict(self._snapshot.services)
        for key, fields in self._views.items():
            fields.pop("copied", None)
            view = ServiceView(**{"application": key[0], "name": key[1], **fields})
            if view.service or view.revisions or view.instances or view.statuses:
                services[key] = view
            else:
                services.pop(key, None)
        changed: dict[str, Any] = {"revision": revision, "services": services, **self._plain}
        return replace(self._snapshot, **changed)


def _fields_of(view: ServiceView) -> dict[str, Any]:
    """The declared fields of a view, without what it has computed of them."""
    return {name: getattr(view, name) for name in ServiceView.__dataclass_fields__}


def _changed(snapshot: Snapshot, revision: int, changes: Iterable[tuple[str, base.Entry | None]]) -> Snapshot:
    draft = _Draft(snapshot)
    touched = False
    for key, entry in changes:
        touched = touched or key.partition("/")[0] in _KINDS
        match key.split("/"):
            case ["application", app]:
                _set(draft.plain("applications"), app, _read(Application, entry))
                _set(draft.plain("application_modified"), app, entry and entry.modified)
            case ["service", app, name]:
                view = draft.view((app, name))
                view["service"] = _read(Service, entry)
                view["modified"] = entry.modified if entry else 0
            case ["revision", app, name, number]:
                _set(draft.part((app, name), "revisions"), int(number), _read(Revision, entry))
            case ["instance", app, name, id]:
                _set(draft.part((app, name), "instances"), id, _read(Instance, entry))
            case ["status", app, name, id]:
                _set(draft.part((app, name), "statuses"), id, _read(Status, entry))
            case ["node", id]:
                _set(draft.plain("nodes"), id, _read(NodeRecord, entry))
            case ["event", _]:
                _set(draft.plain("events"), key, entry and entry.modified)
            case _:
                pass  # the leader's and the commands' own keys, and rooms that came later
    # Other rooms of the store change far more often than these: what they do costs next to nothing here.
    return draft.finish(revision) if touched else replace(snapshot, revision=revision)


def _set(target: dict[Any, Any], key: object, value: object | None) -> None:
    if value is None:
        target.pop(key, None)
    else:
        target[key] = value


def _read(kind: type[R], entry: base.Entry | None) -> R | None:
    if entry is None:
        return None
    try:
        return decode(kind, entry.value)
    except ValidationError as error:
        raise ValueError(f"the record {entry.key} is no {kind.__name__}: {error}") from error
