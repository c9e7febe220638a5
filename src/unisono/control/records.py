"""
What the control plane writes down: the store's keys, and the records under them.

Who may write what is fixed here and nowhere else:

=============================  ====================================  =======================
key                            record                                written by
=============================  ====================================  =======================
application/APP                Application                           API commands, controller
service/APP/SERVICE            Service (wanted state, rollout)       API commands, controller
revision/APP/SERVICE/N         Revision (a resolved spec)            API commands
instance/APP/SERVICE/ID        Instance (what one should do)         controller alone, fenced
status/APP/SERVICE/ID          Status (what one does)                the agent of its node
event/TIME-UNIQUE              Happening                             all
leader                         Leader, under a lease                 leader election
apply                          nothing: rewritten by each command    API commands
node/ID                        NodeRecord                            that node's agent
=============================  ====================================  =======================

Times are seconds since the epoch, so that they mean the same after a restart. Other rooms keep theirs under
:data:`ELSEWHERE`, and write far more often: who follows these records leaves that out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import TypeAdapter

from unisono.spec.model import ServiceSpec
from unisono.spec.outside import Outside

R = TypeVar("R")

ELSEWHERE = ("state/", "transaction/", "coordinator")
"""What the keys of shared state and of transactions begin with."""


class Phase(StrEnum):
    """Where an instance is in its life; the agent's machine in node/lifecycle.py moves it on."""

    PENDING = "pending"  # recorded; no process yet
    STARTING = "starting"  # its process runs, it was not ready yet
    READY = "ready"
    UNHEALTHY = "unhealthy"  # was ready; now fails its health check
    DRAINING = "draining"  # out of the routing table, finishing its requests
    STOPPING = "stopping"  # has been signalled
    BACKOFF = "backoff"  # ended; is started again at retry_at
    COMPLETED = "completed"  # ended with 0 and is not started again
    FAILED = "failed"  # ended otherwise and is not started again
    STOPPED = "stopped"  # ended because it should; its record may go


class Goal(StrEnum):
    """What the controller wants of an instance."""

    RUN = "run"
    STOP = "stop"  # leave the table, drain, signal, kill: in this order
    KILL = "kill"  # leave the table and signal at once: it hangs, waiting for its requests is in vain


class RolloutPhase(StrEnum):
    """Where the change to a new revision stands."""

    RELEASING = "releasing"  # the release command runs
    CANARY = "canary"  # the new revision gets a share of the requests, and is judged by it
    ROLLING = "rolling"
    MONITORING = "monitoring"  # all replaced; a failure still counts
    ROLLING_BACK = "rolling-back"
    DONE = "done"
    ROLLED_BACK = "rolled-back"
    PAUSED = "paused"  # failed, and left as it is for an operator


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a gateway has counted of a revision since the gateway was started."""

    requests: int = 0  # tries that were sent to its instances and have ended
    failures: int = 0  # of them: no answer, or one from 500 on but 501 and 505
    latency: tuple[tuple[float, int], ...] = ()  # answers by the upper end of their bucket, in seconds


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """
    A change from one revision to another; ``reason`` says in words why it ended as it did.

    ``source`` is 0 when there was no stable revision to come from: a first deployment, which keeps
    trying and is never rolled back.
    """

    source: int
    target: int
    phase: RolloutPhase
    started_at: float
    progressed_at: float  # last time that an instance of the target became ready
    replaced_at: float | None = None  # when the last old instance was gone: monitoring began
    failures: int = 0  # instances that failed in it, both ways
    reason: str = ""
    serial: int = 0  # rises with each rollout of the service; instances name the one that made them
    failed: tuple[str, ...] = ()  # ids of instances that failed in the present direction
    step: int = 0  # the canary's, from 0
    stepped_at: float | None = None  # when the step's instances were ready: its watch began
    base: Figures | None = None  # what the gateway had counted before the step; None: it has not begun


@dataclass(frozen=True, kw_only=True)
class Application:
    """An application that should run, or with ``removing`` one on its way out."""

    name: str
    source: str
    services: tuple[str, ...]
    removing: bool = False
    transactions: Outside = field(default_factory=Outside)  # what they may call beside the services


@dataclass(frozen=True, kw_only=True)
class Service:
    """What is wanted of a service."""

    application: str
    name: str
    revision: int  # the one that should run; its spec is the Revision record
    stable: int | None  # the last one that passed its rollout; None before the first
    replicas: int
    internal_port: int  # the gateway's own address for it, on loopback
    removing: bool = False
    rollout: Rollout | None = None  # the last one, also after it has ended
    history: tuple[int, ...] = ()  # revisions that were stable before, oldest first
    unhealthy: tuple[float, ...] = ()  # when instances that were killed for it had turned unhealthy
    braked_at: float | None = None  # since when most are unhealthy at once and replaced one by one


@dataclass(frozen=True, kw_only=True)
class Revision:
    """A version of a service's spec. ``digest`` is its revision hash; ``nonce`` sets restarts apart."""

    application: str
    service: str
    number: int
    digest: str
    spec: ServiceSpec
    created_at: float
    nonce: str = ""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """What one instance should do."""

    application: str
    service: str
    id: str  # "orders-k3f9x", unique in its application
    revision: int
    node: str
    goal: Goal = Goal.RUN
    job: bool = False  # a release command: runs once, never restarted, never routed to
    created_at: float = 0.0
    command: tuple[str, ...] = ()  # of a job, as it was decided; a later file changes only later jobs
    rollout: int = 0  # serial of the rollout that made it


@dataclass(frozen=True, kw_only=True)
class Status:
    """What one instance does, as its agent saw it last."""

    phase: Phase
    since: float  # when it entered the phase
    generation: int = 0  # starts of its process so far
    pid: int | None = None
    start_time: int | None = None  # clock ticks since boot, with pid the identity of the process
    boot_id: str = ""
    port: int | None = None
    restarts: int = 0
    failures: int = 0  # ends in a row without 10 s of health between them
    ready_at: float | None = None  # when this process became ready
    retry_at: float | None = None  # in BACKOFF
    exit_code: int | None = None  # of the last process; negative: the signal that ended it
    reason: str = ""  # why it is not ready, in words for `unisono ps`


@dataclass(frozen=True, kw_only=True)
class NodeRecord:
    """A machine that runs instances."""

    id: str
    host: str
    version: str
    started_at: float


@dataclass(frozen=True, kw_only=True)
class Leader:
    """The node whose controller decides; the revision at which this was written is its fencing token."""

    node: str
    since: float


@dataclass(frozen=True, kw_only=True)
class Happening:
    """Something a user would want to know of: one line of `unisono events`."""

    at: float
    kind: str  # a word of docs/reference/events.md, such as "instance-exited"
    application: str = ""
    service: str = ""
    instance: str = ""
    message: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def application_key(application: str) -> str:
    """Key of an Application."""
    return f"application/{application}"


def service_key(application: str, service: str) -> str:
    """Key of a Service."""
    return f"service/{application}/{service}"


def revision_key(application: str, service: str, number: int) -> str:
    """Key of a Revision; numbers are padded so that keys sort as they do."""
    return f"revision/{application}/{service}/{number:08d}"


def instance_key(application: str, service: str, id: str) -> str:
    """Key of an Instance."""
    return f"instance/{application}/{service}/{id}"


def status_key(application: str, service: str, id: str) -> str:
    """Key of a Status."""
    return f"status/{application}/{service}/{id}"


def node_key(id: str) -> str:
    """Key of a NodeRecord."""
    return f"node/{id}"


def event_key(at: float, unique: str) -> str:
    """Key of a Happening: keys sort by time (microseconds), ``unique`` sets equal times apart."""
    return f"event/{int(at * 1_000_000):017d}-{unique}"


LEADER_KEY = "leader"

APPLY_KEY = "apply"
"""Rewritten by each command that changes applications, which makes them follow one another."""


_adapters: dict[Any, TypeAdapter[Any]] = {}  # making one costs a thousand times what using it does


def _adapter(kind: Any) -> TypeAdapter[Any]:
    adapter = _adapters.get(kind)
    if adapter is None:
        adapter = _adapters[kind] = TypeAdapter(kind)
    return adapter


def encode(record: object) -> bytes:
    """A record as the store keeps it."""
    return _adapter(type(record)).dump_json(record)


def decode(kind: type[R], value: bytes) -> R:
    """
    The record of ``kind`` in ``value``.

    Raises:
        pydantic.ValidationError: The value is not such a record.
    """
    record: R = _adapter(kind).validate_json(value)
    return record
