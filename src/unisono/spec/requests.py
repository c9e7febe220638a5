"""
How a service's requests are treated: the resolved form of what the file says of it.

Plain, frozen dataclasses that check themselves when made, as in :mod:`unisono.spec.model`, whose parts
they are. Durations are seconds, shares go from 0 to 1. What the words do is the gateway's; reading them
from a file is :mod:`unisono.spec.treatment`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Policy = Literal[
    "fastest",
    "least_requests",
    "round_robin",
    "weighted",
    "random",
    "p2c_ewma",
    "ring_hash",
    "maglev",
    "prequal",
]
POLICIES: tuple[Policy, ...] = (
    "fastest",
    "least_requests",
    "round_robin",
    "weighted",
    "random",
    "p2c_ewma",
    "ring_hash",
    "maglev",
    "prequal",
)
HASHING: frozenset[Policy] = frozenset({"ring_hash", "maglev"})
"""Policies for which ``hash_on`` decides."""

Urgency = Literal["high", "normal", "low"]

TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
"""A name of a header or cookie: RFC 9110 section 5.6.2."""


def _check(holds: bool, field: str, found: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{field} is {found!r}, want {wanted}")


@dataclass(frozen=True, kw_only=True)
class HashOn:
    """What requests have in common that are to meet at one instance; ``name`` of a header or cookie."""

    of: Literal["header", "cookie", "path", "client"]
    name: str = ""

    def __post_init__(self) -> None:
        if self.of in ("header", "cookie"):
            _check(bool(TOKEN.fullmatch(self.name)), f"hash_on.{self.of}", self.name, "a name without blanks")
        else:
            _check(not self.name, f"the name of hash_on {self.of}", self.name, "none")


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Which instance a request goes to."""

    policy: Policy = "fastest"
    hash_on: HashOn | None = None
    hash_load: float | None = 1.25  # no instance gets more than so many times the mean; None: not bounded

    def __post_init__(self) -> None:
        hashed = self.policy not in HASHING or self.hash_on is not None
        _check(hashed, "balance.hash_on", None, f"what {self.policy} goes by")
        within = self.hash_load is None or 1 <= self.hash_load <= 100
        _check(within, "balance.hash_load", self.hash_load, "1 to 100")


@dataclass(frozen=True, kw_only=True)
class Retries:
    """Further tries of requests that may be sent again."""

    attempts: int = 3  # tries of one request in all, at least 1
    budget: float = 0.2  # share of requests that may be further tries
    statuses: tuple[int, ...] = (502, 503, 504)  # answers that count as failed
    backoff: float = 0.025  # the first pause is up to this, each one after it up to twice the last
    backoff_max: float = 0.25

    def __post_init__(self) -> None:
        _check(1 <= self.attempts <= 100, "retries.attempts", self.attempts, "1 to 100")
        _check(0 <= self.budget <= 1, "retries.budget", self.budget, "0 to 1")
        fits = all(400 <= status <= 599 for status in self.statuses)
        _check(fits, "retries.statuses", self.statuses, "400 to 599")
        _check(self.backoff >= 0, "retries.backoff", self.backoff, "0 or more")
        fits = self.backoff_max >= self.backoff
        _check(fits, "retries.backoff_max", self.backoff_max, f"at least backoff, {self.backoff:g} s")


@dataclass(frozen=True, kw_only=True)
class Hedging:
    """A second try beside the first, when that takes long."""

    after: float | None = None  # None: measured, the larger of p99 and twice p50
    budget: float = 0.02  # share of requests that may be such tries

    def __post_init__(self) -> None:
        _check(self.after is None or self.after >= 0.001, "hedge.after", self.after, "1 ms or more")
        _check(0 <= self.budget <= 1, "hedge.budget", self.budget, "0 to 1")


@dataclass(frozen=True, kw_only=True)
class Queue:
    """Requests that wait for an instance."""

    max: int | None = None  # at once; None: 50 for each place of an instance, from 128 to 10 000
    bytes: int = 64 * 1024 * 1024  # of their heads and bodies
    wait: float = 10.0  # longest wait of one

    def __post_init__(self) -> None:
        _check(self.max is None or 0 <= self.max <= 1_000_000, "queue.max", self.max, "0 to 1000000")
        _check(self.bytes >= 0, "queue.bytes", self.bytes, "0 or more")
        _check(self.wait >= 0, "queue.wait", self.wait, "0 or more")


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """Copies of requests to another service of the application, whose answers nobody sees."""

    service: str
    share: float = 1.0

    def __post_init__(self) -> None:
        _check(0 <= self.share <= 1, "mirror.percent", self.share, "0 to 1")


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """PEM files of one certificate, by absolute paths."""

    certificate: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Tls:
    """What the gateway shows at an address; the first certificate is for names that no other is for."""

    certificates: tuple[Certificate, ...]
    client_ca: str | None = None  # PEM file of authorities; None: clients need no certificate

    def __post_init__(self) -> None:
        _check(bool(self.certificates), "tls.certificates", (), "at least one")


@dataclass(frozen=True, kw_only=True)
class HeaderMatch:
    """Requests that have a header; with ``value`` None whatever it says."""

    name: str
    value: str | None = None

    def __post_init__(self) -> None:
        _check(bool(TOKEN.fullmatch(self.name)), "header.name", self.name, "a name without blanks")


@dataclass(frozen=True, kw_only=True)
class Success:
    """What a canary must show to go on."""

    ratio: float = 0.99  # of its requests, so many must succeed
    p99: float | None = None  # and this share of 99 % be answered within; None: not judged
    min_requests: int = 20  # fewer say nothing

    def __post_init__(self) -> None:
        _check(0 <= self.ratio <= 1, "success.ratio", self.ratio, "0 to 1")
        _check(self.p99 is None or self.p99 > 0, "success.p99", self.p99, "above 0")
        _check(self.min_requests >= 0, "success.min_requests", self.min_requests, "0 or more")


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A step of a rollout in which the new revision gets a share of the requests and is judged by it."""

    share: float = 0.05
    header: HeaderMatch | None = None  # requests with it go to the new revision in any case
    monitor: float = 30.0  # how long it is watched, from when its instances are ready
    success: Success = Success()

    def __post_init__(self) -> None:
        _check(0 <= self.share <= 1, "canary.weight", self.share, "0 to 1")
        _check(self.monitor >= 0, "canary.monitor", self.monitor, "0 or more")
