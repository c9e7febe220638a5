"""
Claim S7: more requests than can be served, each with a deadline of a second, leave the useful ones served.

Goodput is what was answered well within its second, counted from when it was to go out, as a share of what
the instances can serve. Clients give up after a second. When the load falls to half of the capacity, the tail
must be normal again within two seconds.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from dataclasses import dataclass

from bench.dispatch.instances import Instances
from bench.dispatch.rounds import Case, Machine, Sample, available, mode, samples_of, say
from bench.harness import Finding, quantile, report
from bench.peers import HAPROXY_TUNED, NGINX_TUNED, UNISONO, Peer, Setting
from unisono._engine import Load

DEADLINE_MS = 1000.0
GOALS = {1.2: 0.95, 1.5: 0.95, 3.0: 0.90}
CALM_SECONDS = 4.0  # at half the capacity, before and after
SETTLE_SECONDS = 2.0  # the beginning of the overload is left out
RECOVERY_SECONDS_MAX = 2.0
WINDOW_SECONDS = 0.25
CASE = Case()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One round."""

    goodput: float
    recovery: float  # seconds
    p50: float  # ms, of what was answered well in the overload
    statuses: dict[int, int]
    foreign: float


def measure(peer: Peer, factor: float, seconds: float, seed: int) -> Seen:
    """One round."""
    options = {"wait_ms": 10_000}
    with Instances(places=CASE.places, service=CASE.service, speeds=CASE.speeds, seed=seed) as instances:
        setting = Setting(ports=instances.ports, places=CASE.places, options=options)
        with peer.start(setting) as running:
            url = f"http://127.0.0.1:{running.port}/"
            machine, cpu = Machine(), running.cpu_seconds()
            before = put(url, 0.5, CALM_SECONDS, seed)
            surge = Load(
                url, connections=8192, rate=factor * CASE.capacity, duration=seconds,
                timeout=DEADLINE_MS / 1e3,
                headers=[("x-request-timeout", "1")], samples=True, seed=seed + 1,
            )  # fmt: skip
            with_surge = threading.Thread(target=surge.run)
            with_surge.start()
            time.sleep(seconds)
            after = put(url, 0.5, CALM_SECONDS + 2 * RECOVERY_SECONDS_MAX, seed + 2)
            with_surge.join()
            foreign = machine.foreign(running.cpu_seconds() - cpu + instances.cpu_seconds())
    during, unsent = samples_of(surge.report(), SETTLE_SECONDS)
    good = [sample.ms for sample in during if sample.is_good and sample.ms <= DEADLINE_MS]
    statuses: dict[int, int] = {-1: unsent} if unsent else {}
    for sample in during:
        statuses[sample.status] = statuses.get(sample.status, 0) + 1
    return Seen(
        goodput=len(good) / (seconds - SETTLE_SECONDS) / CASE.capacity,
        recovery=recovery(before, after),
        p50=quantile(good, 0.5) if good else float("inf"),
        statuses=dict(sorted(statuses.items())),
        foreign=foreign,
    )


def put(url: str, utilisation: float, seconds: float, seed: int) -> list[Sample]:
    """A calm load; its requests."""
    load = Load(
        url, connections=4096, rate=utilisation * CASE.capacity, duration=seconds, samples=True, seed=seed
    )
    return samples_of(load.run())[0]


def recovery(before: list[Sample], after: list[Sample]) -> float:
    """Seconds to the end of the last window with a p90 above twice what is normal, or with failures."""
    normal = quantile([sample.ms for sample in before if sample.at >= 1.0], 0.9)
    last = 0.0
    windows: dict[int, list[float]] = {}
    for sample in after:
        ms = sample.ms if sample.is_good else float("inf")
        windows.setdefault(int(sample.at / WINDOW_SECONDS), []).append(ms)
    for number, found in windows.items():
        if quantile(found, 0.9) > 2 * normal:
            last = max(last, (number + 1) * WINDOW_SECONDS)
    return last


def main() -> int:
    """Measure and report; the exit code."""
    how = mode()
    findings: list[Finding] = []
    seconds = how.seconds(8, 20)
    for factor, goal in GOALS.items():
        for peer in available(UNISONO, HAPROXY_TUNED, NGINX_TUNED):
            if peer is NGINX_TUNED and how.quick:
                continue
            seen = [
                measure(peer, factor, seconds, 1000 + 10 * number) for number in range(2 if how.quick else 5)
            ]
            details = {
                "goodput": [round(one.goodput, 3) for one in seen],
                "p50 of the good ms": [round(one.p50, 1) for one in seen],
                "recovery s": [one.recovery for one in seen],
                "statuses": seen[0].statuses,
                "foreign CPU": f"{max(one.foreign for one in seen):.0%} at most",
            }
            if peer is not UNISONO:
                say(f"beside it at {factor}, {peer.name}: {details}")
                continue
            findings += [
                Finding(
                    claim=f"S7 {factor} x: goodput as a share of the capacity, median",
                    figure=round(statistics.median(one.goodput for one in seen), 3),
                    unit="",
                    goal=goal,
                    at_least=True,
                    details=details,
                ),
                Finding(
                    claim=f"S7 {factor} x: back to normal, median",
                    figure=statistics.median(one.recovery for one in seen),
                    unit="s",
                    goal=RECOVERY_SECONDS_MAX,
                    details={"normal": "p90 of each quarter of a second within twice the p90 before"},
                ),
            ]
    return report("dispatch_overload", findings)


if __name__ == "__main__":
    sys.exit(main())
