"""
How requests of a service are treated: from what is written to the spec, with the defaults that its
``priority`` stands for, and what these words must not say together.

The other words of a service are :mod:`unisono.spec.convert`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from unisono.spec import written as words
from unisono.spec.draft import Draft, given_or
from unisono.spec.fields import TRUTH
from unisono.spec.model import ServiceSpec
from unisono.spec.nodes import Scalar
from unisono.spec.requests import (
    HASHING,
    Balance,
    Canary,
    HeaderMatch,
    Hedging,
    Mirror,
    Queue,
    Retries,
    Success,
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The defaults that a ``priority`` stands for."""

    concurrency: Any = None
    timeout: float = 60.0
    queue: Queue = field(default_factory=Queue)
    retries: Retries = field(default_factory=Retries)
    hedge: Hedging | None = None


# A late answer is as good as none: learn how much an instance takes, don't let requests wait for long,
# try again soon, and beside the first try where that may be done.
PRESETS: Mapping[str, Preset] = {
    "balanced": Preset(),
    "consistent": Preset(),
    "realtime": Preset(
        concurrency="auto",
        timeout=5.0,
        queue=Queue(wait=0.5),
        retries=Retries(backoff=0.01, backoff_max=0.1),
        hedge=Hedging(),
    ),
}


def treatment(draft: Draft) -> dict[str, Any]:
    """The fields of :class:`ServiceSpec` that say how requests are treated; problems go to the report."""
    service = draft.written
    priority = service.priority or "balanced"
    preset = PRESETS[priority]
    _check_tcp(draft)
    _check_probe(draft)
    if priority == "consistent":
        draft.warn("says nothing of requests in this version: they are treated as balanced", "priority")
    return {
        "mode": service.mode or "http",
        "protocol": service.protocol or "http1",
        "priority": priority,
        "concurrency": given_or(service.concurrency, preset.concurrency),
        "balance": _balance(draft),
        "hold": bool(service.hold),
        "timeout": None if service.timeout == math.inf else given_or(service.timeout, preset.timeout),
        "queue": _over(preset.queue, service.queue),
        "retries": _retries(draft, preset.retries),
        "hedge": _hedge(draft, preset.hedge),
        "eject": given_or(service.eject, ServiceSpec.eject),
        "slow_start": given_or(service.slow_start, ServiceSpec.slow_start),
        "sticky": service.sticky,
        "mirror": None
        if service.mirror is None
        else Mirror(service=service.mirror.service, share=given_or(service.mirror.percent, 1.0)),
    }


def canaries(steps: list[words.Canary] | None) -> tuple[Canary, ...]:
    """The steps of a rollout's canary."""
    found = []
    for step in steps or ():
        success = {} if step.success is None else _given(step.success)
        header = step.header
        canary = Canary(
            share=given_or(step.weight, Canary.share),
            header=None if header is None else HeaderMatch(name=header.name, value=header.value),
            monitor=given_or(step.monitor, Canary.monitor),
            success=Success(**success),
        )
        found.append(canary)
    return tuple(found)


def _given(written: Any) -> dict[str, Any]:
    return {key: value for key, value in dict(written).items() if value is not None}


def _over(default: T, written: Any) -> T:
    """``default`` with what is written in its place."""
    return default if written is None else type(default)(**(vars(default) | _given(written)))


def _balance(draft: Draft) -> Balance:
    written = draft.written.balance
    if written is None:
        return Balance()
    policy = cast(Any, written.policy)
    if policy in HASHING and written.hash_on is None:
        message = f"{policy} has nothing to go by, want hash_on"
        hint = f"such as balance: {{policy: {policy}, hash_on: {{header: x-user}}}}"
        draft.error(message, "balance", hint=hint)
        return Balance()
    for key in ("hash_on", "hash_load"):
        if policy not in HASHING and getattr(written, key) is not None:
            draft.warn(f"has no effect: {policy} does not hash", "balance", key)
    load = Balance.hash_load if written.hash_load is None else written.hash_load
    return Balance(policy=policy, hash_on=written.hash_on, hash_load=None if load == math.inf else load)


def _retries(draft: Draft, default: Retries) -> Retries:
    written = draft.written.retries
    if written is None:
        return default
    values = vars(default) | _given(written)
    if values["backoff_max"] < values["backoff"]:
        if written.backoff_max is not None:
            longest, shortest = values["backoff_max"], values["backoff"]
            draft.error(f"found {longest:g}s below backoff, which is {shortest:g}s", "retries", "backoff_max")
        values["backoff_max"] = values["backoff"]
    return Retries(**values)


def _hedge(draft: Draft, default: Hedging | None) -> Hedging | None:
    written, node = draft.written.hedge, draft.at("hedge")
    if written is None:
        return default
    if isinstance(node, Scalar) and not TRUTH[node.text.lower()]:
        return None
    return Hedging(after=written.after, budget=given_or(written.budget, Hedging.budget))


def _check_tcp(draft: Draft) -> None:
    """What has no meaning where the gateway sees no requests."""
    service = draft.written
    if service.mode != "tcp":
        return
    if service.routes:
        message = "a tcp service has no paths, want one of ports, at which it is alone"
        draft.error(message, "routes", hint="take routes out, or mode: tcp")
    for key in ("protocol", "hedge", "sticky", "mirror"):
        if getattr(service, key) is not None:
            draft.warn("has no effect: with mode: tcp the gateway sees connections, not requests", key)
    hash_on = service.balance.hash_on if service.balance else None
    if hash_on is not None and hash_on.of != "client":
        draft.error("with mode: tcp only the client is known, want client", "balance", "hash_on")


def _check_probe(draft: Draft) -> None:
    service = draft.written
    probe = service.healthcheck.http if service.healthcheck else None
    if probe is not None and probe.port is None and service.protocol in ("h2", "grpc"):
        draft.warn(
            f"asks over HTTP/1.1, which a program that speaks {service.protocol} may not answer: "
            "give it a port that does, or write tcp: true",
            "healthcheck",
            "http",
        )
