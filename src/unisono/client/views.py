"""
The shapes in which a node speaks of itself: what its HTTP API answers, as typed dictionaries.

They say what a reader of the JSON can count on; the node fills them in :mod:`unisono.api.views`, and a
newer node may add keys. Times are seconds since the epoch, durations are seconds, ``None`` means that
there is nothing to tell (no port yet, no retry planned).
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

State = Literal["ready", "starting", "updating", "degraded", "failed", "stopped", "completed", "removing"]


class InstanceView(TypedDict):
    """One instance: what it should do and what it does."""

    id: str
    application: str
    service: str
    node: str
    revision: int
    goal: str  # "run", "stop" or "kill"
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
    in_flight: int | None  # requests it works on; None: the gateway was not asked or did not say


class RolloutView(TypedDict):
    """A change from one revision to another."""

    source: int
    target: int
    phase: str
    started_at: float
    failures: int
    reason: str
    updated: int  # instances of the target that are ready
    replicas: int


class RolloutHistory(TypedDict):
    """The rollout in force or the last one, and the revisions that can be returned to."""

    application: str
    service: str
    revision: int
    stable: int | None
    rollout: RolloutView | None
    revisions: list[RevisionView]


class RevisionView(TypedDict):
    """One kept revision of a service."""

    number: int
    digest: str
    created_at: float
    command: list[str]


class ServiceView(TypedDict):
    """One service with its instances."""

    application: str
    name: str
    state: State
    settled: bool  # it has what it should have, and no rollout is under way
    reason: str  # why it is not ready; empty when it is
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


class ApplicationView(TypedDict):
    """One application as of one revision of the store."""

    name: str
    source: str
    state: State
    removing: bool
    store_revision: int
    services: list[ServiceView]


class ApplicationSummary(TypedDict):
    """One line of the list of applications."""

    name: str
    source: str
    state: State
    services: int
    instances: int
    ready: int


class NodeView(TypedDict):
    """The node itself."""

    id: str
    host: str
    version: str
    pid: int
    started_at: float
    state_folder: str
    listen: str
    api: str | None
    ends_when_empty: bool
    leader: bool
    gateway: GatewayView
    applications: int
    instances: int
    store_revision: int


class GatewayView(TypedDict):
    """
    The gateway process beside the node; ``None`` where it does not answer.

    ``current``: it runs, and follows all that is to be routed. ``problem`` says why none can be started,
    empty where one runs or is just being started; ``unbound`` why it can't listen at the addresses that are
    its keys.
    """

    pid: int | None
    connections: int | None
    current: bool
    problem: str
    unbound: dict[str, str]


class DifferenceView(TypedDict):
    """One field of a service, such as "healthcheck.path", before and after."""

    field: str
    before: Any
    after: Any


class ChangeView(TypedDict):
    """What happens to one service, and why."""

    service: str
    kind: Literal["create", "roll", "update", "remove", "unchanged"]
    differences: list[DifferenceView]
    revision: int | None  # the one that should run afterwards
    replicas: int | None


class PlanView(TypedDict):
    """What applying a file would do, or has done."""

    application: str
    created: bool  # there was no such application before
    applied: bool
    changes: list[ChangeView]


class EventView(TypedDict):
    """One happening; ``id`` is the store's revision, from where a stream can be taken up again."""

    id: int
    at: float
    kind: str
    application: str
    service: str
    instance: str
    message: str
    data: dict[str, Any]


class LogLine(TypedDict):
    """One line that an instance wrote."""

    at: str  # RFC 3339 in UTC with milliseconds, so that text order is time order
    service: str
    instance: str
    stream: str  # "stdout" or "stderr"
    text: str
