"""
What should run: the resolved form of an application, and of each of its services.

Here live plain, frozen dataclasses that check themselves when made, so that none is invalid; they
are what every other room sees. Reading files, Compose's many spellings and interpolation are not
here: :mod:`unisono.spec.load` turns a file into these.

Durations are seconds, sizes are bytes. ``None`` means "no limit" unless a field says otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Literal

from unisono.spec.access import Access
from unisono.spec.outside import Outside
from unisono.spec.requests import (
    TOKEN,
    Balance,
    Canary,
    Certificate,
    Hedging,
    Mirror,
    Queue,
    Retries,
    Tls,
    Urgency,
)
from unisono.spec.shared import Table


class Condition(StrEnum):
    """What a service waits for in one it depends on; the words are Compose's."""

    STARTED = "service_started"
    HEALTHY = "service_healthy"
    COMPLETED = "service_completed_successfully"


@dataclass(frozen=True, kw_only=True)
class Dependency:
    """One entry of ``depends_on``."""

    service: str
    condition: Condition = Condition.STARTED
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """
    How readiness and health of an instance are found out.

    ``kind`` "none" switches probing off (an instance is ready once its process runs), "listen" waits
    until the instance's port accepts connections and does not probe after that.
    """

    kind: Literal["http", "tcp", "command", "listen", "none"] = "listen"
    path: str = "/"  # http
    port: int | None = None  # http; None: the instance's own
    command: tuple[str, ...] = ()  # command
    interval: float = 1.0
    timeout: float = 1.0
    retries: int = 3  # failures in a row after which a ready instance counts as unhealthy
    start_period: float = 0.0  # failures in it do not count
    start_interval: float = 0.05  # between probes until the first success


@dataclass(frozen=True, kw_only=True)
class UpdateConfig:
    """How a new revision replaces the old one; Compose's ``deploy.update_config``."""

    order: Literal["start-first", "stop-first"] = "start-first"
    parallelism: int = 1  # instances replaced at a time; 0 means all at once
    delay: float = 0.0  # between two batches
    failure_action: Literal["rollback", "pause", "continue"] = "rollback"
    monitor: float = 5.0  # time after the last replacement during which a failure still counts
    max_failure_ratio: float = 0.0  # failed instances / replicas that is tolerated, 0 to 1
    progress_deadline: float = 600.0  # no instance of the new revision became ready for this long: failed
    release_command: tuple[str, ...] = ()  # runs once, to its end, before the first instance is replaced
    canary: tuple[Canary, ...] = ()  # steps before the first instance is replaced, one after the other


@dataclass(frozen=True, kw_only=True)
class Restart:
    """What happens when an instance's process ends by itself."""

    policy: Literal["always", "on-failure", "no"] = "always"
    max_attempts: int | None = None  # restarts in a row; None: no limit


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Limits of one instance."""

    cpus: float | None = None
    memory: int | None = None  # bytes


@dataclass(frozen=True, kw_only=True)
class Route:
    """Requests at the gateway's public address that belong to a service; the longest path wins."""

    path: str = "/"
    host: str | None = None  # lower case, without a port; None: any
    priority: Urgency = "normal"  # which requests are served first when not all can be at once


@dataclass(frozen=True, kw_only=True)
class PublishedPort:
    """A port of its own at which the gateway answers for the service."""

    port: int
    host_ip: str = "127.0.0.1"
    tls: Tls | None = None  # None: clear text


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """
    One service, all defaults filled in.

    A change of what :meth:`revision_hash` covers needs new instances; every other change takes effect
    on the running ones.
    """

    name: str
    driver: Literal["process", "container"] = "process"
    image: str | None = None
    command: tuple[str, ...] = ()  # argument vector; "{port}" in it stands for the instance's port
    working_dir: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)  # "{port}" as in command
    inherited: Mapping[str, str] = field(default_factory=dict)  # PATH and the like of who applied it
    user: str | None = None  # name or uid, with :group or :gid if wanted
    port: int | None = None  # the port that the program insists on; only for one instance
    serves: bool = True  # False: a worker that no one is expected to call
    replicas: int = 1
    max_replicas: int | None = None
    depends_on: tuple[Dependency, ...] = ()
    healthcheck: HealthCheck = field(default_factory=HealthCheck)
    restart: Restart = field(default_factory=Restart)
    stop_signal: str = "SIGTERM"
    stop_grace_period: float = 10.0  # from stop_signal to SIGKILL
    drain_period: float = 30.0  # longest wait for running requests before stop_signal
    resources: Resources = field(default_factory=Resources)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    routes: tuple[Route, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    tls: tuple[Certificate, ...] = ()  # of the public address, where its routes are
    mode: Literal["http", "tcp"] = "http"  # tcp: connections are carried as they are
    protocol: Literal["http1", "h2", "grpc"] = "http1"  # what the program speaks; h2, grpc: in clear text
    priority: Literal["realtime", "balanced", "consistent"] = "balanced"  # whose defaults were filled in
    concurrency: int | Literal["auto"] | None = None  # requests at a time per instance; None: not limited
    balance: Balance = field(default_factory=Balance)
    hold: bool = False  # a request waits for a much faster instance rather than go to a slow one at once
    timeout: float | None = 60.0  # from the request's arrival to its answer's head
    queue: Queue = field(default_factory=Queue)
    retries: Retries = field(default_factory=Retries)
    hedge: Hedging | None = None
    eject: bool = True  # one that fails again and again gets no requests for a while
    slow_start: float = 10.0  # how long the limit of a new instance rises; 0: it has it at once
    sticky: str | None = None  # a cookie; requests with it go on to the instance that they had first
    mirror: Mirror | None = None
    access: Access | None = None  # to shared state; None: everything of its application
    shared: tuple[Table, ...] = ()  # of the application's tables in memory, those that it may read

    def __post_init__(self) -> None:
        if isinstance(self.concurrency, int) and self.concurrency < 1:
            raise ValueError(f"concurrency is {self.concurrency}, want 1 or more")
        if self.sticky is not None and not TOKEN.fullmatch(self.sticky):
            raise ValueError(f"sticky is {self.sticky!r}, want the name of a cookie")
        if self.slow_start < 0:
            raise ValueError(f"slow_start is {self.slow_start:g}, want 0 or more")

    def revision_hash(self) -> str:
        """A digest of all that a running instance was started with; equal digests need no rollout."""
        started_with = {
            "driver": self.driver,
            "image": self.image,
            "command": self.command,
            "working_dir": self.working_dir,
            "environment": dict(sorted(self.environment.items())),
            "user": self.user,
            "port": self.port,
            "serves": self.serves,
            # A word that came later leaves the digests of those who do not use it as they were.
            "healthcheck": {k: v for k, v in asdict(self.healthcheck).items() if (k, v) != ("port", None)},
            "stop_signal": self.stop_signal,
            "resources": asdict(self.resources),
            "depends_on": sorted(d.service for d in self.depends_on),
        }
        if self.protocol != "http1" or self.mode != "http":
            started_with["speaks"] = [self.mode, self.protocol]
        if self.shared:  # it is told where they are when it starts; what they hold at most may change
            started_with["shared"] = sorted(table.prefix for table in self.shared)
        text = json.dumps(started_with, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class ApplicationSpec:
    """A file of services, resolved: names are unique, dependencies exist and have no cycle."""

    name: str
    services: Mapping[str, ServiceSpec]
    source: str = ""  # the file it came from, for messages
    transactions: Outside = field(default_factory=Outside)  # what they may call beside the services
