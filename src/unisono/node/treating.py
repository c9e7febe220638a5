"""
How a service's requests are to be treated, from its spec to the words of the routing table.

Which addresses lead to it is :mod:`unisono.node.routing`'s. Pure.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from unisono.control.records import RolloutPhase, Service
from unisono.gateway.table import Backend, HashOn, HeaderMatch, Hedge, Mirror, Retry, Share, Sticky, Target
from unisono.spec.model import ServiceSpec


@dataclass(frozen=True, kw_only=True)
class Routed:
    """A service as routing needs it: its record, and the spec of the revision that should run."""

    service: Service
    spec: ServiceSpec

    @property
    def name(self) -> str:
        """Its name in the table."""
        return f"{self.service.application}/{self.service.name}"


def backend(routed: Routed, targets: tuple[Target, ...], serving: Container[str]) -> Backend:
    """
    The service as the gateway is to see it; ``serving`` are the services of the same table.

    A mirror that is not among them is left out: the gateway would refuse the whole table for it.
    """
    spec = routed.spec
    balance, retries, hedge, mirror = spec.balance, spec.retries, spec.hedge, spec.mirror
    copies_to = mirror and f"{routed.service.application}/{mirror.service}"
    return Backend(
        targets=targets,
        concurrency=spec.concurrency,
        protocol="http1" if spec.protocol == "http1" else "h2",
        balance=balance.policy,
        hash_on=None if balance.hash_on is None else HashOn(of=balance.hash_on.of, name=balance.hash_on.name),
        hash_load=balance.hash_load,
        hold=spec.hold,
        timeout_ms=None if spec.timeout is None else max(1, _ms(spec.timeout)),
        wait_ms=_ms(spec.queue.wait),
        queue_max=spec.queue.max,
        queue_bytes_max=spec.queue.bytes,
        retry=Retry(
            attempts=retries.attempts,
            budget=retries.budget,
            statuses=retries.statuses,
            backoff_ms=_ms(retries.backoff),
            backoff_max_ms=_ms(retries.backoff_max),
        ),
        hedge=None
        if hedge is None
        else Hedge(after_ms=None if hedge.after is None else max(1, _ms(hedge.after)), budget=hedge.budget),
        eject=spec.eject,
        slow_start_ms=_ms(spec.slow_start),
        sticky=None if spec.sticky is None else Sticky(cookie=spec.sticky),
        mirror=Mirror(service=copies_to, percent=100 * mirror.share)
        if mirror and copies_to and copies_to in serving and copies_to != routed.name
        else None,
        split=_split(routed),
    )


def _split(routed: Routed) -> tuple[Share, ...]:
    """The share of a revision that is tried; else all instances are alike."""
    rollout = routed.service.rollout
    if rollout is None or rollout.phase is not RolloutPhase.CANARY:
        return ()
    return tuple(
        Share(
            revision=str(rollout.target),
            weight=100 * step.share,
            header=None
            if step.header is None
            else HeaderMatch(name=step.header.name, value=step.header.value),
        )
        for step in routed.spec.update.canary[rollout.step : rollout.step + 1]
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
