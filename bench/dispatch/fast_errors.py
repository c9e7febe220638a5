"""
Claim S6: an instance that answers 500 in 0.1 ms attracts no requests, and is used again soon once healed.

Who only looks for the instance that is free, or fast, sends nearly everything there.
"""

from __future__ import annotations

import itertools
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass

from bench.dispatch.instances import Instances
from bench.dispatch.rounds import Machine, available, mode, samples_of, say
from bench.harness import Finding, report
from bench.peers import ENVOY_TUNED, HAPROXY_TUNED, UNISONO, Peer, Setting
from unisono._engine import Load

INSTANCES = 8
RATE = 0.5 * INSTANCES / 0.010
FAIL_AT, HEAL_AT, SECONDS = 3.0, 10.0, 22.0
LOOK_SECONDS = 0.25
FAIR_SHARE = 1.0 / INSTANCES


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One round."""

    requests: int
    failed: int
    share: float  # of what arrived anywhere, from a second after the first error to the healing
    back: float  # seconds from healing to half of its fair share; infinite if never
    foreign: float


def measure(peer: Peer, seed: int) -> Seen:
    """One round."""
    with ExitStack() as stack:
        made = Instances(places=1, service="lognormal:10:1", speeds=(1.0,) * INSTANCES, seed=seed)
        instances = stack.enter_context(made)
        running = stack.enter_context(peer.start(Setting(ports=instances.ports, places=1)))
        load = Load(f"http://127.0.0.1:{running.port}/", connections=1024, rate=RATE, samples=True, seed=seed)
        machine, cpu = Machine(), running.cpu_seconds()
        began = time.monotonic()
        looks: list[tuple[float, list[int]]] = []
        with load:
            mode_now = "serve"
            while (now := time.monotonic() - began) < SECONDS:
                wanted = "fail" if FAIL_AT <= now < HEAL_AT else "serve"
                if wanted != mode_now:
                    instances.tell("mode", 0, wanted)
                    mode_now = wanted
                looks.append((now, [one["arrived"] for one in instances.log()]))
                time.sleep(LOOK_SECONDS)
        foreign = machine.foreign(running.cpu_seconds() - cpu + instances.cpu_seconds())
    samples, _ = samples_of(load.report())
    first = next(at for at, _ in looks if at >= FAIL_AT)
    shares = [(later[0], share_of(earlier[1], later[1])) for earlier, later in itertools.pairwise(looks)]
    return Seen(
        requests=len(samples),
        failed=sum(not sample.is_good for sample in samples),
        share=share_of(at_or_after(looks, first + 1.0), at_or_after(looks, HEAL_AT - LOOK_SECONDS)),
        back=next(
            (at - HEAL_AT for at, share in shares if at > HEAL_AT + 0.1 and share >= FAIR_SHARE / 2),
            float("inf"),
        ),
        foreign=foreign,
    )


def at_or_after(looks: list[tuple[float, list[int]]], moment: float) -> list[int]:
    """What had arrived at a moment."""
    return next(arrived for at, arrived in looks if at >= moment)


def share_of(earlier: list[int], later: list[int]) -> float:
    """The first instance's share of what arrived between two looks."""
    return (later[0] - earlier[0]) / max(1, sum(later) - sum(earlier))


def main() -> int:
    """Measure and report; the exit code."""
    how = mode()
    findings: list[Finding] = []
    for peer in available(UNISONO, HAPROXY_TUNED, ENVOY_TUNED):
        seen = [measure(peer, 1000 + number) for number in range(2 if how.quick else 5)]
        failed = sum(one.failed for one in seen) / sum(one.requests for one in seen)
        details = {
            "requests": sum(one.requests for one in seen),
            "failed": [one.failed for one in seen],
            "share": [f"{one.share:.2%}" for one in seen],
            "back after s": [round(one.back, 1) for one in seen],
            "foreign CPU": f"{max(one.foreign for one in seen):.0%} at most",
        }
        if peer is not UNISONO:
            say(f"beside it, {peer.name}: {details}")
            continue
        worst_share, worst_back = max(one.share for one in seen), max(one.back for one in seen)
        findings += [
            Finding(
                claim="S6: failed GETs", figure=round(failed * 100, 4), unit="%", goal=0.1, details=details
            ),
            Finding(
                claim="S6: the failing instance's share after 1 s, worst round",
                figure=round(worst_share * 100, 2),
                unit="%",
                goal=1.0,
                details={},
            ),
            Finding(
                claim="S6: healed to used again, worst round",
                figure=round(worst_back, 2),
                unit="s",
                goal=10.0,
                details={"used again": "half of its fair share"},
            ),
        ]
    return report("dispatch_fast_errors", findings)


if __name__ == "__main__":
    sys.exit(main())
