"""
What stands inside a service, as it is written: one model for each mapping, but for those of
:mod:`unisono.spec.written`, which say how requests are treated.

The service itself, and the file of them, are :mod:`unisono.spec.schema`'s; what the values mean together is
:mod:`unisono.spec.convert`'s.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unisono.spec import compose
from unisono.spec.base import Model, text_as
from unisono.spec.fields import (
    ANYTHING,
    FLAG,
    SIZE,
    TEXT,
    Also,
    duration,
    number,
    one_of,
    whole,
)
from unisono.spec.kinds import ADDRESSES, COMMAND, PATH, PREFIXES
from unisono.spec.nodes import Node
from unisono.spec.written import Canary, Tls, steps

MAX_REPLICAS = 1000


class Dependency(Model):
    """What a service waits for in one that it depends on."""

    condition: Annotated[
        str, one_of("service_started", "service_healthy", "service_completed_successfully")
    ] = Field("service_started", description="What to wait for before starting.")
    required: Annotated[bool, FLAG] = Field(
        True, description="false: go on without it if it is not there or its profile is not active."
    )
    restart: Annotated[bool, FLAG] = Field(
        False, description="Compose's; has no effect: the gateway follows a service that restarts."
    )


class HttpProbe(Model):
    """A GET that a healthy instance answers with a status below 400."""

    path: Annotated[str, PATH] = Field("/", description="Where to ask.")
    port: Annotated[int, whole(1, 65535)] | None = Field(
        None, description="At which port to ask; the instance's own by default."
    )


class HealthCheck(Model):
    """
    How an instance is known to be ready and healthy. At most one of http, tcp, command, test and disable.

    Without one, a service that serves is ready once its port listens, any other once its process runs.
    """

    http: Annotated[HttpProbe, Also(text_as("path"), {"type": "string", "pattern": r"^/|\$"})] | None = Field(
        None, description="Ask over HTTP: a path, such as /healthz."
    )
    tcp: Annotated[bool, FLAG] | None = Field(None, description="true: connect to the instance's port.")
    command: Annotated[tuple[str, ...], COMMAND] | None = Field(
        None, description="Run a program; 0 means healthy. {port} is the instance's port."
    )
    test: Annotated[Node, ANYTHING] | None = Field(
        None, description="Compose's: a text for a shell, or a list that begins with CMD, CMD-SHELL or NONE."
    )
    disable: Annotated[bool, FLAG] = Field(False, description="true: no probes; ready once the process runs.")
    interval: Annotated[float, duration(positive=True)] | None = Field(
        None, description="Time between probes of a ready instance; 1s by default."
    )
    timeout: Annotated[float, duration(positive=True)] | None = Field(
        None, description="A probe that takes longer has failed; 1s by default."
    )
    retries: Annotated[int, whole(1, 1000)] | None = Field(
        None, description="Failures in a row after which an instance is unhealthy; 3 by default."
    )
    start_period: Annotated[float, duration()] | None = Field(
        None, description="Failures this soon after the start do not count; 0s by default."
    )
    start_interval: Annotated[float, duration(positive=True)] | None = Field(
        None, description="Time between probes until the first success; 50ms by default."
    )


class Wait(Model):
    """A bound on the time that requests wait; for a later version."""

    p: Annotated[float, number(0, 1, above=True)] = Field(description="The share of requests, such as 0.99.")
    below: Annotated[float, duration(positive=True)] = Field(description="What they wait at most.")


class Scale(Model):
    """How many instances a service may have."""

    min: Annotated[int, whole(0, MAX_REPLICAS)] = Field(1, description="At least; the number at the start.")
    max: Annotated[int, whole(0, MAX_REPLICAS)] | None = Field(
        None, description="At most. `unisono scale` moves between the two."
    )
    wait: Wait | None = Field(None, description="The goal of automatic scaling; not yet honoured.")


class Limits(Model):
    """What one instance may use at most."""

    not_honoured = compose.LIMITS
    cpus: Annotated[float, number(0, 100_000, above=True)] | None = Field(
        None, description="Processors, such as 0.5."
    )
    memory: Annotated[int, SIZE] | None = Field(
        None, description="Memory, such as 512m; k, m, g are powers of 1024."
    )


class ResourcesSection(Model):
    """Limits of each instance."""

    not_honoured = compose.RESOURCES
    limits: Limits | None = Field(None, description="At most this.")


class Access(Model):
    """
    What the service may do with the state that its application shares: keys, locks, elections, semaphores,
    barriers and quotas, by the beginning of their names. Without it everything; with it what it names.
    """

    read: Annotated[tuple[str, ...], PREFIXES] = Field(
        (), description="Prefixes of what it may read, such as [prices/], or all; nothing by default."
    )
    write: Annotated[tuple[str, ...], PREFIXES] = Field(
        (), description="Prefixes of what it may write, and read too; or all; nothing by default."
    )


class Transactions(Model):
    """
    What transactions of the application may call. Its services, always; what else, and nothing that a name
    leads to on this machine, or on the link to its neighbours, unless the address itself is written here.
    """

    allow: Annotated[tuple[str, ...], ADDRESSES] = Field(
        (),
        description="Beginnings of further addresses, such as [https://pay.example.com/]; none by default.",
    )


_Canary = Annotated[Canary, Also(text_as("weight"), {"type": "string"})]


class UpdateSection(Model):
    """How a new revision replaces the old one."""

    order: Annotated[str, one_of("start-first", "stop-first")] | None = Field(
        None,
        description="start-first (the default; Compose's is stop-first): the new instance is ready "
        "before the old one goes.",
    )
    parallelism: Annotated[int, whole(0, MAX_REPLICAS)] | None = Field(
        None, description="Instances replaced at a time; 1 by default, 0 means all."
    )
    delay: Annotated[float, duration()] | None = Field(
        None, description="Pause between two batches; 0s by default."
    )
    failure_action: Annotated[str, one_of("rollback", "pause", "continue")] | None = Field(
        None, description="What to do when it fails; rollback by default (Compose's is pause)."
    )
    monitor: Annotated[float, duration()] | None = Field(
        None, description="How long after the last replacement a failure still counts; 5s by default."
    )
    max_failure_ratio: Annotated[float, number(0, 1)] | None = Field(
        None, description="Share of failed instances that is tolerated; 0 by default."
    )
    progress_deadline: Annotated[float, duration(positive=True)] | None = Field(
        None, description="It has failed when no new instance becomes ready for this long; 10m by default."
    )
    release_command: Annotated[tuple[str, ...], COMMAND] | None = Field(
        None, description="Runs once, to its end, before the first instance is replaced: a migration."
    )
    canary: Annotated[list[_Canary], Also(steps, {"type": "string"})] | None = Field(
        None,
        description="First the new revision gets a share of the requests and is judged by it: "
        "one step, or a list of them.",
    )


class RestartPolicy(Model):
    """Compose's longer form of restart; it wins over the short one."""

    not_honoured = compose.RESTART_POLICY
    condition: Annotated[str, one_of("none", "on-failure", "any")] = Field(
        "any", description="When to restart: none, on-failure or any."
    )
    max_attempts: Annotated[int, whole(1, 1_000_000)] | None = Field(
        None, description="Restarts in a row before giving up; no limit by default."
    )


class Deploy(Model):
    """How instances are placed, limited and replaced."""

    not_honoured = compose.DEPLOY
    mode: Annotated[str, one_of("replicated", "global", "replicated-job", "global-job")] | None = Field(
        None, description="replicated; the others have no effect."
    )
    replicas: Annotated[int, whole(0, MAX_REPLICAS)] | None = Field(
        None, description="Number of instances; the same as scale."
    )
    resources: ResourcesSection | None = Field(None, description="Limits of each instance.")
    update_config: UpdateSection | None = Field(None, description="How a new revision replaces the old one.")
    restart_policy: RestartPolicy | None = Field(None, description="What happens when an instance ends.")


class Port(Model):
    """A port at which the gateway answers for the service: "8000:8000", or its parts."""

    target: Annotated[str, TEXT] = Field(
        description="The port inside a container; a process is told its own by {port}."
    )
    published: Annotated[str, TEXT] | None = Field(None, description="The port at which the gateway listens.")
    host_ip: Annotated[str, TEXT] | None = Field(
        None, description="The address at which it listens; 127.0.0.1 by default (Compose's is all of them)."
    )
    protocol: Annotated[str, TEXT] | None = Field(None, description="tcp; others can't be published.")
    app_protocol: Annotated[str, TEXT] | None = Field(None, description="http; has no effect.")
    mode: Annotated[str, TEXT] | None = Field(None, description="Compose's; has no effect.")
    tls: Tls | None = Field(None, description="The gateway speaks TLS there; clear text by default.")
    name: Annotated[str, TEXT] | None = Field(None, description="For people; has no effect.")


class EnvFile(Model):
    """A file of variables."""

    path: Annotated[Node, ANYTHING] = Field(description="The file, from the folder of this one.")
    required: Annotated[bool, FLAG] = Field(True, description="false: go on if there is no such file.")
    format: Annotated[str, one_of("raw")] | None = Field(
        None, description="raw: lines are taken as they are, with quotes and dollar signs."
    )
