"""Records for tests, with all that a test does not speak of filled in."""

from __future__ import annotations

from typing import Any

from unisono.control.records import (
    Application,
    Figures,
    Goal,
    Instance,
    NodeRecord,
    Phase,
    Revision,
    Rollout,
    RolloutPhase,
    Service,
    Status,
    application_key,
    encode,
    instance_key,
    node_key,
    revision_key,
    service_key,
    status_key,
)
from unisono.control.snapshot import Snapshot
from unisono.spec.model import ApplicationSpec, Dependency, ServiceSpec, UpdateConfig
from unisono.store import base

APP = "shop"


def spec(name: str = "web", **fields: Any) -> ServiceSpec:
    """A service that runs ``good``; ``after`` names what it depends on, ``update`` its rules."""
    after = fields.pop("after", ())
    update = fields.pop("update", {})
    return ServiceSpec(
        name=name,
        command=fields.pop("command", ("good",)),
        depends_on=tuple(d if isinstance(d, Dependency) else Dependency(service=d) for d in after),
        update=UpdateConfig(**update),
        **fields,
    )


def application(*services: ServiceSpec, name: str = APP) -> ApplicationSpec:
    """A file of these services."""
    return ApplicationSpec(name=name, services={s.name: s for s in services}, source="unisono.yaml")


class Scene:
    """Builds a snapshot record by record, the way the store would hold it."""

    def __init__(self, *, now: float = 1000.0) -> None:
        self.now = now
        self.records: dict[str, object] = {
            node_key("here"): NodeRecord(id="here", host="here", version="0", started_at=0.0),
            application_key(APP): Application(name=APP, source="", services=()),
        }
        self.in_flight: dict[str, int] = {}
        self.measured: dict[tuple[str, str, int], Figures] = {}

    def service(
        self,
        name: str = "web",
        *,
        revisions: dict[int, ServiceSpec] | None = None,
        rollout: Rollout | None = None,
        **fields: Any,
    ) -> Scene:
        """A service, stable at revision 1 with one replica unless told otherwise."""
        for number, service_spec in (revisions or {1: spec(name)}).items():
            self.records[revision_key(APP, name, number)] = Revision(
                application=APP,
                service=name,
                number=number,
                digest=service_spec.revision_hash(),
                spec=service_spec,
                created_at=0.0,
            )
        values = {"revision": 1, "stable": 1, "replicas": 1, "internal_port": 20000, **fields}
        self.records[service_key(APP, name)] = Service(application=APP, name=name, rollout=rollout, **values)
        return self

    def instance(
        self,
        id: str,
        phase: Phase | None = Phase.READY,
        *,
        service: str = "web",
        status: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Scene:
        """An instance of revision 1 and what it does; ``phase`` None: its agent has not spoken."""
        values = {"revision": 1, "node": "here", "goal": Goal.RUN, **fields}
        self.records[instance_key(APP, service, id)] = Instance(
            application=APP, service=service, id=id, **values
        )
        if phase is not None:
            seen = {"since": 0.0, **(status or {})}
            self.records[status_key(APP, service, id)] = Status(phase=phase, **seen)
        return self

    def put(self, key: str, record: object) -> Scene:
        """Any other record."""
        self.records[key] = record
        return self

    def snapshot(self) -> Snapshot:
        """All of it."""
        entries = tuple(
            base.Entry(key=key, value=encode(record), created=1, modified=1)
            for key, record in sorted(self.records.items())
        )
        return Snapshot.of(base.Snapshot(revision=1, entries=entries)).at(
            self.now, self.in_flight, self.measured
        )


def rolling(source: int = 1, target: int = 2, **fields: Any) -> Rollout:
    """A rollout in the middle, begun at 1000."""
    values = {
        "phase": RolloutPhase.ROLLING,
        "started_at": 1000.0,
        "progressed_at": 1000.0,
        "serial": 1,
        **fields,
    }
    return Rollout(source=source, target=target, **values)
