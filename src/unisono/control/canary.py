"""
The verdict on a canary: what the requests of a new revision say, and what they can't say yet.

Only figures are looked at here, pure; when a step begins and what follows from the verdict is
:mod:`unisono.control.rollout`'s.

Rules:

* A step is judged once it was watched for ``monitor`` and has had ``min_requests``. While it has had fewer it
  goes on, for ``patience`` at most: a verdict on nothing would be a guess, and so it fails then.
* It fails earlier when there is no doubt: at least :data:`SURE_FAILURES` requests failed, and even the upper
  end of Wilson's interval for the share that succeeds is below the ratio. A revision that answers nothing but
  500 is seen through after a few requests; one failure among many is not enough to end it early.

Sources: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927; the
steps are those of Argo Rollouts and Flagger, whose analysis also reads the proxy's own figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from unisono.control.records import Figures
from unisono.spec.requests import Canary

SURE_FAILURES = 3
"""Failed requests below which a step is not ended early."""

SURE_DEVIATIONS = 3.0
"""Standard deviations that the interval spans to each side: less than 2 of 1000 end early without cause."""

LOOK_SECONDS = 1.0
"""Time between two looks at the figures, of which nobody is told when they change."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the figures say, and the words for it."""

    kind: Literal["passed", "failed", "open"]
    words: str


def instances_of(step: Canary, replicas: int) -> int:
    """Instances that a step needs, at least one: the share of the replicas that it has of the requests."""
    return max(1, math.ceil(step.share * replicas - 1e-9))


def since(before: Figures, now: Figures) -> Figures:
    """
    What came in between.

    A count that is lower than before belongs to a gateway that was started anew, and began at 0.
    """
    if now.requests < before.requests or now.failures < before.failures:
        return now
    old = dict(before.latency)
    return Figures(
        requests=now.requests - before.requests,
        failures=now.failures - before.failures,
        latency=tuple((upper, max(0, count - old.get(upper, 0))) for upper, count in now.latency),
    )


def percentile(figures: Figures, share: float) -> float | None:
    """
    Seconds within which ``share`` of the requests were answered; None when there were none.

    The upper end of the bucket that it lies in, so never too low.
    """
    total = sum(count for _, count in figures.latency)
    if not total:
        return None
    seen = 0
    for upper, count in sorted(figures.latency):
        seen += count
        if seen >= share * total:
            return upper
    return max(upper for upper, _ in figures.latency)


def judge(step: Canary, seen: Figures, elapsed: float, patience: float) -> Verdict:
    """What ``seen`` says of a step ``elapsed`` seconds after its instances were ready."""
    success = step.success
    succeeded = seen.requests - seen.failures
    ratio = succeeded / seen.requests if seen.requests else 1.0
    found = f"{succeeded} of {seen.requests} requests succeeded"
    if seen.requests:
        found += f" ({_percent(ratio)})"
    is_sure = seen.failures >= SURE_FAILURES and _at_best(succeeded, seen.requests) < success.ratio
    if is_sure:
        return Verdict(kind="failed", words=f"{found}, want {_percent(success.ratio)}")
    if elapsed < step.monitor:
        return Verdict(kind="open", words=found)
    if seen.requests < success.min_requests:
        words = f"{seen.requests} requests in {elapsed:.0f} s, want {success.min_requests} to judge by"
        return Verdict(kind="failed" if elapsed >= step.monitor + patience else "open", words=words)
    if ratio < success.ratio:
        return Verdict(kind="failed", words=f"{found}, want {_percent(success.ratio)}")
    p99 = percentile(seen, 0.99)
    if p99 is not None:
        found += f", p99 {_ms(p99)}"
    if success.p99 is not None and p99 is not None and p99 > success.p99:
        return Verdict(kind="failed", words=f"{found}, want at most {_ms(success.p99)}")
    return Verdict(kind="passed", words=found)


def _at_best(succeeded: int, total: int) -> float:
    """The upper end of Wilson's score interval for the share that succeeds."""
    z2 = SURE_DEVIATIONS**2
    share = succeeded / total
    middle = share + z2 / (2 * total)
    spread = SURE_DEVIATIONS * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return (middle + spread) / (1 + z2 / total)


def _percent(share: float) -> str:
    """With as many digits as it takes not to show a share below 1 as 100 %."""
    return f"{math.floor(share * 100_000 + 1e-6) / 1000:g} %"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"
