"""
The state of an instance's life, what must hold of it, and what the store is to know of it.

Plain data, without input or output; what changes it is :mod:`unisono.node.lifecycle`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

from unisono.control.records import Goal, Phase, Status
from unisono.node.drivers.base import Running
from unisono.spec.model import ServiceSpec


class Stage(StrEnum):
    """Where the machine is; finer than a Phase by the moment in which a start is under way."""

    PENDING = "pending"
    SPAWNING = "spawning"
    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


ALIVE = frozenset({Stage.STARTING, Stage.READY, Stage.UNHEALTHY, Stage.DRAINING, Stage.STOPPING})


@dataclass(frozen=True, kw_only=True)
class Life:
    """The state of the machine. Times are seconds since the epoch."""

    stage: Stage = Stage.PENDING
    since: float = 0.0
    goal: Goal = Goal.RUN
    generation: int = 0  # of the run that is, or was last
    running: Running | None = None
    token: int = 0  # of the last timer or drain; older ones are void
    published: bool = False  # this run may have had requests sent to it
    killed: bool = False  # SIGKILL was sent to this run
    spawned_at: float = 0.0
    listening_at: float | None = None
    ready_at: float | None = None  # of this run, or of the last one while none is
    healthy_since: float | None = None
    probe_failures: int = 0  # in a row
    failures: int = 0  # ends in a row without health between them
    restarts: int = 0
    retry_at: float | None = None
    exit_code: int | None = None
    reason: str = ""
    aside: str = ""  # why the gateway sends this run no requests
    last_end: str = ""  # how the last run ended, for the reason while the next one starts
    ended_generation: int = 0  # the run that last_end is of


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a step may know beside state and event."""

    now: float
    rng: Random
    spec: ServiceSpec
    job: bool = False

    @property
    def checked(self) -> bool:
        """Whether health is probed."""
        return not self.job and self.spec.healthcheck.kind in {"http", "tcp", "command"}

    @property
    def routed(self) -> bool:
        """Whether the gateway sends requests to it."""
        return not self.job and self.spec.serves


class InvalidLife(AssertionError):
    """The machine has broken one of its own rules: a fault in this module."""


def check_invariants(life: Life) -> None:
    """
    Check what must hold between two steps.

    Raises:
        InvalidLife: It does not; the message holds the whole state.
    """
    rules = {
        "a process is there exactly in the stages that have one": (
            (life.running is not None) == (life.stage in ALIVE)
        ),
        "the process is the one of this generation": (
            life.running is None or life.running.generation == life.generation
        ),
        "retry_at is known exactly in backoff": (life.retry_at is not None) == (life.stage is Stage.BACKOFF),
        "one that is ready knows since when": life.stage is not Stage.READY or life.ready_at is not None,
        "one that should not run is on its way out": (
            life.goal is Goal.RUN
            or life.stage in {Stage.SPAWNING, Stage.DRAINING, Stage.STOPPING, Stage.STOPPED}
        ),
    }
    for rule, holds in rules.items():
        if not holds:
            raise InvalidLife(f"{rule}: {life}")


def status_of(life: Life, boot_id: str) -> Status:
    """What the store is to know of it."""
    running = life.running
    phase = Phase.PENDING if life.stage is Stage.SPAWNING else Phase(life.stage.value)
    return Status(
        phase=phase,
        since=life.since,
        generation=life.generation,
        pid=running.pid if running else None,
        start_time=running.start_time if running else None,
        boot_id=running.boot_id if running else boot_id,
        port=running.port if running else None,
        restarts=life.restarts,
        failures=life.failures,
        ready_at=life.ready_at,
        retry_at=life.retry_at,
        exit_code=life.exit_code,
        reason="; ".join(filter(None, (life.aside, life.reason))) if phase is Phase.READY else life.reason,
    )
