"""
The routing table: all that the gateway needs to know, as plain data.

The node makes it (from the store and from what it sees of its instances) and the gateway follows it.
A table is whole, never a difference, and bears a version that only rises; the gateway refuses an older
one. The engine reads the same shape (``engine/src/table``); JSON is its form on the wire and
on the gateway's disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Balance = Literal[
    "fastest",  # one queue, bound late: the free place where the answer is expected first
    "least_requests",
    "round_robin",
    "weighted",
    "random",
    "p2c_ewma",
    "ring_hash",
    "maglev",
    "prequal",
]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Requests at a listener whose host and path match go to ``service``; longest path first."""

    service: str  # "application/service"
    path: str = "/"
    host: str | None = None
    priority: Literal["high", "normal", "low"] = "normal"


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """PEM files of one certificate, read by the gateway itself and again when they change."""

    certificate: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Tls:
    """What a listener shows of itself; the first certificate is for names that no other is for."""

    certificates: tuple[Certificate, ...]
    client_ca: str | None = None  # PEM file of authorities; None: clients need no certificate


@dataclass(frozen=True, kw_only=True)
class Listener:
    """An address at which the gateway answers: public with many rules, or one service's own."""

    address: str  # "127.0.0.1:8080"
    rules: tuple[Rule, ...]
    mode: Literal["http", "tcp"] = "http"  # tcp: exactly one rule
    tls: Tls | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """One ready instance. The gateway watches (pid, start_time) itself and drops it at its exit."""

    id: str
    generation: int  # rises with each start of this instance: a reused port is not mistaken
    address: str  # "127.0.0.1:21034"
    pid: int | None = None  # None: not a process of this machine
    start_time: int | None = None  # clock ticks since boot, /proc/PID/stat field 22
    revision: str = ""
    weight: int = 100  # requests it should get, compared with the others


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Further tries of requests that may be sent again."""

    attempts: int = 3  # tries of one request in all, at least 1
    budget: float = 0.2  # share of requests that may be further tries, 0 to 1
    floor_per_s: float = 10.0  # allowed in any case
    statuses: tuple[int, ...] = (502, 503, 504)  # answers that count as failed, each 400 to 599
    backoff_ms: int = 25  # the first pause is up to this, each one after it up to twice the last
    backoff_max_ms: int = 250


@dataclass(frozen=True, kw_only=True)
class Hedge:
    """A second try beside the first, when that takes long."""

    after_ms: int | None = None  # None: measured, the larger of p99 and twice p50
    budget: float = 0.02  # share of requests, 0 to 1


@dataclass(frozen=True, kw_only=True)
class HashOn:
    """What requests have in common that are to meet at one target; ``name`` of a header or cookie."""

    of: Literal["header", "cookie", "path", "client"]
    name: str = ""

    def to_json(self) -> str | dict[str, str]:
        """As the engine reads it."""
        return {self.of: self.name} if self.name else self.of


@dataclass(frozen=True, kw_only=True)
class Sticky:
    """Requests with this cookie go on to the target that they had first."""

    cookie: str


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """Copies of requests to another service of the table, whose answers nobody sees."""

    service: str  # "application/service"
    percent: float = 100.0


@dataclass(frozen=True, kw_only=True)
class HeaderMatch:
    """Requests that have a header; with ``value`` None whatever it says."""

    name: str
    value: str | None = None


@dataclass(frozen=True, kw_only=True)
class Share:
    """A revision's share of the requests; revisions not named share what is left."""

    revision: str
    weight: float  # of each hundred requests so many
    header: HeaderMatch | None = None  # requests with it go to the revision in any case


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A service as the gateway sees it."""

    targets: tuple[Target, ...] = ()
    concurrency: int | Literal["auto"] | None = None  # requests at a time per target; None: not limited
    protocol: Literal["http1", "h2"] = "http1"  # h2: clear text by prior knowledge
    balance: Balance = "fastest"
    hash_on: HashOn | None = None  # needed by ring_hash and maglev
    hash_load: float | None = 1.25  # no target gets more than so many times the mean; None: not bounded
    hold: bool = False  # wait for a much faster target rather than go to a slow one at once
    timeout_ms: int | None = 60_000  # arrival of a request to the head of its answer; None: no limit
    wait_ms: int = 10_000  # longest wait for a target, then 503
    queue_max: int | None = None  # requests waiting at once; None: 50 for each place, 128 to 10 000
    queue_bytes_max: int = 64 * 1024 * 1024
    retry: Retry = Retry()
    hedge: Hedge | None = None
    eject: bool = True  # a target that fails again and again gets no requests for a while
    slow_start_ms: int = 10_000  # how long a new target's limit rises
    sticky: Sticky | None = None
    mirror: Mirror | None = None
    split: tuple[Share, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As the engine reads it."""
        return {
            **vars(self),
            "targets": [dict(vars(target)) for target in self.targets],
            "hash_on": self.hash_on and self.hash_on.to_json(),
            "retry": dict(vars(self.retry)),
            "hedge": _plain(self.hedge),
            "sticky": _plain(self.sticky),
            "mirror": _plain(self.mirror),
            "split": [{**vars(share), "header": _plain(share.header)} for share in self.split],
        }


@dataclass(frozen=True, kw_only=True)
class AccessLog:
    """A line for each request, written by the gateway, which also rotates the file."""

    format: Literal["json", "combined"]
    path: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Everything the gateway follows, at one version."""

    version: int
    listeners: tuple[Listener, ...] = ()
    services: dict[str, Backend] | None = None  # by "application/service"
    access_log: AccessLog | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, as the engine reads it; by hand, as asdict() takes ten times as long."""
        return {
            "version": self.version,
            "listeners": [
                {
                    **vars(listener),
                    "rules": [dict(vars(rule)) for rule in listener.rules],
                    "tls": listener.tls
                    and {
                        "certificates": [dict(vars(one)) for one in listener.tls.certificates],
                        "client_ca": listener.tls.client_ca,
                    },
                }
                for listener in self.listeners
            ],
            "services": {name: backend.to_json() for name, backend in (self.services or {}).items()},
            "access_log": _plain(self.access_log),
        }


def _plain(record: object | None) -> dict[str, Any] | None:
    return None if record is None else dict(vars(record))
