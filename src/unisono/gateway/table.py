"""
The routing table: all that the gateway needs to know, as plain data.

The node makes it (from the store and from what it sees of its instances) and the gateway follows it.
A table is whole, never a difference, and bears a version that only rises; the gateway refuses an older
one. The engine reads the same shape (``engine/src/control/table.rs``); JSON is its form on the wire and
on the gateway's disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Requests at a listener whose host and path match go to ``service``; longest path first."""

    service: str  # "application/service"
    path: str = "/"
    host: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listener:
    """An address at which the gateway answers: public with many rules, or one service's own."""

    address: str  # "127.0.0.1:8080"
    rules: tuple[Rule, ...]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One ready instance. The gateway watches (pid, start_time) itself and drops it at its exit."""

    id: str
    generation: int  # rises with each start of this instance: a reused port is not mistaken
    address: str  # "127.0.0.1:21034"
    pid: int | None = None  # None: not a process of this machine
    start_time: int | None = None  # clock ticks since boot, /proc/PID/stat field 22


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A service as the gateway sees it."""

    targets: tuple[Target, ...] = ()
    concurrency: int | None = None  # requests at a time per target; None: not limited
    timeout_ms: int | None = 60_000  # arrival of a request to the head of its answer; None: no limit
    wait_ms: int = 10_000  # longest wait for a target, then 503
    attempts: int = 3  # tries of a request that may be sent again
    queue_max: int = 10_000  # requests waiting at once, then 503


@dataclass(frozen=True, kw_only=True)
class Table:
    """Everything the gateway follows, at one version."""

    version: int
    listeners: tuple[Listener, ...] = ()
    services: dict[str, Backend] | None = None  # by "application/service"

    def to_json(self) -> dict[str, Any]:
        """Plain data, as the engine reads it; by hand, as asdict() takes ten times as long."""
        return {
            "version": self.version,
            "listeners": [
                {"address": listener.address, "rules": [dict(vars(rule)) for rule in listener.rules]}
                for listener in self.listeners
            ],
            "services": {
                name: {**vars(backend), "targets": [dict(vars(target)) for target in backend.targets]}
                for name, backend in (self.services or {}).items()
            },
        }
