"""
How requests are treated, in the words of a file again; :mod:`unisono.spec.printing` has the rest.
"""

from __future__ import annotations

from typing import Any

from unisono.spec.model import ServiceSpec
from unisono.spec.requests import Balance, Canary, Hedging, Retries, Tls
from unisono.spec.units import format_duration, format_size


def requests(spec: ServiceSpec) -> dict[str, Any]:
    """What a service says of its requests, with nothing left to a default."""
    found: dict[str, Any] = {"mode": spec.mode, "protocol": spec.protocol} if spec.serves else {}
    found["priority"] = spec.priority
    if spec.concurrency is not None:
        found["concurrency"] = spec.concurrency
    found["balance"] = _balance(spec.balance)
    found["hold"] = spec.hold
    found["timeout"] = "none" if spec.timeout is None else format_duration(spec.timeout)
    queue = spec.queue
    found["queue"] = {} if queue.max is None else {"max": queue.max}
    found["queue"] |= {"bytes": format_size(queue.bytes), "wait": format_duration(queue.wait)}
    found["retries"] = _retries(spec.retries)
    found["hedge"] = False if spec.hedge is None else _hedge(spec.hedge)
    found["eject"] = spec.eject
    found["slow_start"] = format_duration(spec.slow_start)
    if spec.sticky is not None:
        found["sticky"] = spec.sticky
    if spec.mirror is not None:
        found["mirror"] = {"service": spec.mirror.service, "percent": percent(spec.mirror.share)}
    return found


def secured(tls: Tls) -> dict[str, Any]:
    """Certificates by their paths."""
    found: dict[str, Any] = {"certificates": [dict(vars(one)) for one in tls.certificates]}
    return found if tls.client_ca is None else {**found, "client_ca": tls.client_ca}


def canary(step: Canary) -> dict[str, Any]:
    """A step of a rollout's canary."""
    found: dict[str, Any] = {"weight": percent(step.share), "monitor": format_duration(step.monitor)}
    if step.header is not None:
        found["header"] = {k: v for k, v in vars(step.header).items() if v is not None}
    success: dict[str, Any] = {"ratio": percent(step.success.ratio)}
    if step.success.p99 is not None:
        success["p99"] = format_duration(step.success.p99)
    return {**found, "success": {**success, "min_requests": step.success.min_requests}}


def percent(share: float) -> str:
    """A share from 0 to 1 with at most six decimals of a percent: ``5%``."""
    return f"{round(share * 100, 6):.6f}".rstrip("0").rstrip(".") + "%"


def _balance(balance: Balance) -> dict[str, Any]:
    found: dict[str, Any] = {"policy": balance.policy}
    if balance.hash_on is not None:
        on = balance.hash_on
        found["hash_on"] = {on.of: on.name} if on.name else on.of
        found["hash_load"] = "none" if balance.hash_load is None else balance.hash_load
    return found


def _retries(retries: Retries) -> dict[str, Any]:
    return {
        "attempts": retries.attempts,
        "budget": percent(retries.budget),
        "statuses": list(retries.statuses),
        "backoff": format_duration(retries.backoff),
        "backoff_max": format_duration(retries.backoff_max),
    }


def _hedge(hedge: Hedging) -> dict[str, Any]:
    after = "measured" if hedge.after is None else format_duration(hedge.after)
    return {"after": after, "budget": percent(hedge.budget)}
