"""
What a user sees of the records: pure functions from a snapshot (and the gateway's figures) to views.

The views are the answers of the HTTP API; :mod:`unisono.client.views` repeats their shape for readers,
and a test holds the two together. Times are seconds since the epoch. Reading the store is not here
(:mod:`unisono.api.informer`), and how a view looks on a terminal is the CLI's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from unisono.control import snapshot as control
from unisono.control.ordering import blockers
from unisono.control.progress import is_active, replicas_of
from unisono.control.records import Application, Goal, Phase, RolloutPhase
from unisono.control.snapshot import Member, Snapshot
from unisono.spec.model import PublishedPort, Route, ServiceSpec

State = Literal["ready", "starting", "updating", "degraded", "failed", "stopped", "completed", "removing"]

# The first of these that one of an application's services is in is the application's own.
_WORST_FIRST: tuple[State, ...] = ("failed", "degraded", "updating", "starting")

_PORTS = {"http": "80", "https": "443"}  # those that a URL need not name
_UNDER_WAY = (RolloutPhase.RELEASING, RolloutPhase.CANARY, RolloutPhase.ROLLING, RolloutPhase.ROLLING_BACK)


@dataclass(frozen=True, kw_only=True)
class Load:
    """The gateway's figures: what ``GET /v1/measurements`` of its control socket says, or nothing."""

    services: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by "application/service"

    def of_service(self, application: str, service: str, figure: str) -> int | None:
        """A figure of a service, such as "waiting"; ``None`` if the gateway did not say."""
        found = self.services.get(f"{application}/{service}", {}).get(figure)
        return None if found is None else int(found)

    def of_instance(self, application: str, service: str, instance: str) -> int | None:
        """How many requests an instance works on; ``None`` if the gateway did not say."""
        targets = self.services.get(f"{application}/{service}", {}).get("targets", {})
        found = targets.get(instance, {}).get("in_flight")
        return None if found is None else int(found)


@dataclass(frozen=True, kw_only=True)
class InstanceView:
    """One instance: what it should do and what it does."""

    id: str
    application: str
    service: str
    node: str
    revision: int
    goal: str
    job: bool
    phase: str
    since: float
    generation: int
    pid: int | None
    port: int | None
    restarts: int
    failures: int
    ready_at: float | None
    retry_at: float | None
    exit_code: int | None
    reason: str
    created_at: float
    in_flight: int | None


@dataclass(frozen=True, kw_only=True)
class RolloutView:
    """A change from one revision to another; ``updated`` instances of the target are ready."""

    source: int
    target: int
    phase: str
    started_at: float
    failures: int
    reason: str
    updated: int
    replicas: int


@dataclass(frozen=True, kw_only=True)
class RevisionView:
    """One kept revision of a service."""

    number: int
    digest: str
    created_at: float
    command: list[str]


@dataclass(frozen=True, kw_only=True)
class RolloutHistory:
    """The rollout in force or the last one, and the revisions kept."""

    application: str
    service: str
    revision: int
    stable: int | None
    rollout: RolloutView | None
    revisions: list[RevisionView]


@dataclass(frozen=True, kw_only=True)
class ServiceView:
    """
    One service with its instances.

    ``settled`` tells that nothing is under way: it has what it should have, and its last rollout ended.
    """

    application: str
    name: str
    state: State
    settled: bool
    reason: str
    revision: int
    stable: int | None
    replicas: int
    ready: int
    urls: list[str]
    internal_url: str | None
    requests: int | None
    failed_requests: int | None
    waiting: int | None
    in_flight: int | None
    rollout: RolloutView | None
    instances: list[InstanceView]


@dataclass(frozen=True, kw_only=True)
class ApplicationView:
    """One application as of one revision of the store."""

    name: str
    source: str
    state: State
    removing: bool
    store_revision: int
    services: list[ServiceView]


@dataclass(frozen=True, kw_only=True)
class ApplicationSummary:
    """One line of the list of applications."""

    name: str
    source: str
    state: State
    services: int
    instances: int
    ready: int


def application(snapshot: Snapshot, name: str, *, listen: str, load: Load) -> ApplicationView | None:
    """The application ``name``, or ``None`` if nothing of it is there; ``listen`` is the public address."""
    record = snapshot.applications.get(name)
    found = [view for (owner, _), view in sorted(snapshot.services.items()) if owner == name and view.service]
    if record is None and not found:
        return None
    services = [_service(snapshot, view, listen, load) for view in found]
    removing = record is None or record.removing
    return ApplicationView(
        name=name,
        source=record.source if record else "",
        state="removing" if removing else _worst(service.state for service in services),
        removing=removing,
        store_revision=snapshot.revision,
        services=_in_file_order(services, record),
    )


def summaries(snapshot: Snapshot, *, listen: str) -> list[ApplicationSummary]:
    """All applications, in the order of their names."""
    views = (application(snapshot, name, listen=listen, load=Load()) for name in sorted(_names(snapshot)))
    return [
        ApplicationSummary(
            name=view.name,
            source=view.source,
            state=view.state,
            services=len(view.services),
            instances=sum(len(service.instances) for service in view.services),
            ready=sum(service.ready for service in view.services),
        )
        for view in views
        if view
    ]


def history(view: control.ServiceView) -> RolloutHistory | None:
    """The rollout and the revisions of a service, or ``None`` if only remains of it are left."""
    if view.service is None:
        return None
    return RolloutHistory(
        application=view.application,
        service=view.name,
        revision=view.service.revision,
        stable=view.service.stable,
        rollout=_rollout(view),
        revisions=[
            RevisionView(
                number=revision.number,
                digest=revision.digest,
                created_at=revision.created_at,
                command=list(revision.spec.command),
            )
            for revision in sorted(view.revisions.values(), key=lambda revision: revision.number)
        ],
    )


def urls(spec: ServiceSpec, listen: str, *, secured: bool = False) -> list[str]:
    """
    Where clients reach the service: its routes at the public address, then its published ports.

    ``secured``: TLS is spoken at the public address, by its own word or another service's.
    """
    routes = [_route_url(route, listen, secured=secured or bool(spec.tls)) for route in spec.routes]
    return routes + [_port_url(port, spec) for port in spec.ports]


def _internal_url(port: int, spec: ServiceSpec) -> str:
    address = f"127.0.0.1:{port}"
    return f"tcp://{address}" if spec.mode == "tcp" else f"http://{address}/"


def _is_secured(snapshot: Snapshot) -> bool:
    specs = (view.current_spec for view in snapshot.services.values())
    return any(spec.tls for spec in specs if spec is not None and spec.routes)


def _port_url(port: PublishedPort, spec: ServiceSpec) -> str:
    address = f"{port.host_ip}:{port.port}"
    if spec.mode == "tcp":
        return f"{'tls' if port.tls else 'tcp'}://{_reachable(address, '')}"
    scheme = "https" if port.tls else "http"
    return f"{scheme}://{_reachable(address, scheme)}/"


def _names(snapshot: Snapshot) -> set[str]:
    return set(snapshot.applications) | {key[0] for key, view in snapshot.services.items() if view.service}


def _in_file_order(services: list[ServiceView], record: Application | None) -> list[ServiceView]:
    order = {name: index for index, name in enumerate(record.services if record else ())}
    return sorted(services, key=lambda service: (order.get(service.name, len(order)), service.name))


def _worst(states: Iterable[State]) -> State:
    found = set(states)
    return next((state for state in _WORST_FIRST if state in found), "ready")


def _service(snapshot: Snapshot, view: control.ServiceView, listen: str, load: Load) -> ServiceView:
    service = view.service
    assert service is not None  # noqa: S101 - application() leaves out remains
    spec = view.current_spec
    ready = sum(member.is_ready for member in view.running)
    current = sum(member.is_ready and member.instance.revision == service.revision for member in view.running)
    replicas = replicas_of(service, spec)
    state = _state(view, ready, replicas)
    app, name = view.application, view.name
    return ServiceView(
        application=app,
        name=name,
        state=state,
        settled=current >= replicas and not is_active(service.rollout),
        reason=_reason(snapshot, view, state),
        revision=service.revision,
        stable=service.stable,
        replicas=replicas,
        ready=ready,
        urls=urls(spec, listen, secured=_is_secured(snapshot)) if spec else [],
        internal_url=_internal_url(service.internal_port, spec) if spec and spec.serves else None,
        requests=load.of_service(app, name, "requests"),
        failed_requests=load.of_service(app, name, "failures"),
        waiting=load.of_service(app, name, "waiting"),
        in_flight=load.of_service(app, name, "in_flight"),
        rollout=_rollout(view),
        instances=[_instance(member, load) for member in view.members],
    )


def _instance(member: Member, load: Load) -> InstanceView:
    instance, status = member.instance, member.status
    return InstanceView(
        id=instance.id,
        application=instance.application,
        service=instance.service,
        node=instance.node,
        revision=instance.revision,
        goal=instance.goal.value,
        job=instance.job,
        phase=status.phase.value,
        since=status.since,
        generation=status.generation,
        pid=status.pid,
        port=status.port,
        restarts=status.restarts,
        failures=status.failures,
        ready_at=status.ready_at,
        retry_at=status.retry_at,
        exit_code=status.exit_code,
        reason=status.reason,
        created_at=instance.created_at,
        in_flight=load.of_instance(instance.application, instance.service, instance.id),
    )


def _rollout(view: control.ServiceView) -> RolloutView | None:
    rollout = view.service.rollout if view.service else None
    if rollout is None or view.service is None:
        return None
    wanted = rollout.source if rollout.phase is RolloutPhase.ROLLING_BACK else rollout.target
    return RolloutView(
        source=rollout.source,
        target=rollout.target,
        phase=rollout.phase.value,
        started_at=rollout.started_at,
        failures=rollout.failures,
        reason=rollout.reason,
        updated=sum(m.is_ready and m.instance.revision == wanted for m in view.running),
        replicas=view.service.replicas,
    )


def _state(view: control.ServiceView, ready: int, replicas: int) -> State:
    service = view.service
    if service is None or service.removing:
        return "removing"
    if service.rollout and service.rollout.source and service.rollout.phase in _UNDER_WAY:
        return "updating"
    if ready >= replicas:
        return _complete_state(view)
    phases = {member.phase for member in view.running}
    if Phase.FAILED in phases:
        return "failed"
    troubled = phases & {Phase.UNHEALTHY, Phase.BACKOFF} or any(m.status.restarts for m in view.running)
    return "degraded" if troubled else "starting"


def _complete_state(view: control.ServiceView) -> State:
    phases = {member.phase for member in view.running}
    if not phases:
        return "stopped"
    return "completed" if phases == {Phase.COMPLETED} else "ready"


def _reason(snapshot: Snapshot, view: control.ServiceView, state: State) -> str:
    """Why the service is not ready, in words."""
    if state in ("ready", "stopped", "completed", "removing"):
        return ""
    for phase in (Phase.FAILED, Phase.UNHEALTHY, Phase.BACKOFF, Phase.STARTING, Phase.PENDING):
        for member in view.members:
            if member.phase is phase and member.instance.goal is Goal.RUN and member.status.reason:
                return f"{member.id}: {member.status.reason}"
    if view.service is None or view.running:
        return ""
    return "; ".join(blockers(snapshot, view, view.service.revision))


def _route_url(route: Route, listen: str, *, secured: bool) -> str:
    scheme = "https" if secured else "http"
    address = _reachable(listen, scheme)
    if route.host:
        _, _, port = listen.rpartition(":")
        address = route.host if port == _PORTS[scheme] else f"{route.host}:{port}"
    return f"{scheme}://{address}{route.path}"


def _reachable(address: str, scheme: str) -> str:
    """An address that a client on this machine can use: one that means "any" is none."""
    host, _, port = address.rpartition(":")
    if host in ("0.0.0.0", "", "*"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    elif host in ("[::]", "::"):
        host = "[::1]"
    elif ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return host if port == _PORTS.get(scheme) else f"{host}:{port}"
