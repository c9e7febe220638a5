"""
Claim T1: requests/s of one worker with kept connections and small answers, and the CPU time of each request.

The peer has one core to itself, load and instances have the other; a peer that does not use up its core was
not what held the requests back, and the details say how much of it was used.
"""

from __future__ import annotations

import os
import sys

from bench.dispatch.instances import Instances
from bench.dispatch.rounds import Case, Outcome, available, compare, facts, median, mode, put_load, ratio
from bench.harness import Finding, report
from bench.peers import ENVOY_TUNED, HAPROXY_TUNED, NGINX_TUNED, RAY_SERVE, Peer, Setting, unisono

UNLIMITED = unisono("unisono", concurrency=None)
PLACES = 1000  # never all taken: what is measured is the peer
CORES = range(os.cpu_count() or 1)


def measure(peer: Peer, case: Case, seed: int) -> Outcome:
    """One round. Ray Serve is several processes and gets the whole machine."""
    with Instances(places=PLACES, service=case.service, speeds=case.speeds, seed=seed) as instances:
        setting = Setting(ports=instances.ports, places=PLACES, service=case.service, speeds=case.speeds)
        with peer.start(setting) as running:
            if peer is not RAY_SERVE:
                os.sched_setaffinity(instances.pid, CORES[-1:])
                for process in running.processes():
                    for thread in process.threads():
                        os.sched_setaffinity(thread.id, CORES[:1])
                os.sched_setaffinity(0, CORES[-1:])  # the load's thread inherits it
            try:
                return put_load(running, instances, case, seed)
            finally:
                os.sched_setaffinity(0, CORES)


def main() -> int:
    """Measure and report; the exit code."""
    how = mode(is_real_time=False)
    case = Case(
        service="constant:0",
        speeds=(1.0,) * 4,
        is_closed=True,
        connections=64,
        warm_up=1.0,
        seconds=how.seconds(4, 10),
    )
    peers = available(UNLIMITED, NGINX_TUNED, HAPROXY_TUNED, ENVOY_TUNED)
    found = compare("T1", case, peers, how, by=measure)
    found |= compare("T1", case, available(RAY_SERVE), how, by=measure)

    def per_second(outcome: Outcome) -> float:
        return len(outcome.samples) / case.seconds

    def busy(name: str) -> str:
        share = median(found, name, lambda outcome: outcome.cpu_us * per_second(outcome) / 1e6)
        cost = median(found, name, lambda outcome: outcome.cpu_us)
        return f"{median(found, name, per_second):.0f}/s, {cost:.1f} us each, {share:.0%} of a core"

    # nginx and HAProxy separately: at least 0.9 of both is at least 0.9 of the best.
    goals = {"nginx tuned": 0.9, "haproxy tuned": 0.9, "envoy tuned": 2.2, "ray serve": 60.0}
    findings = [
        Finding(
            claim=f"T1: requests/s of unisono / {name}",
            figure=round(ratio(found, "unisono", name, per_second), 2),
            unit="x",
            goal=goal,
            at_least=True,
            details={"unisono": busy("unisono"), name: busy(name), **facts(found, ("unisono", name), 0.99)},
        )
        for name, goal in goals.items()
        if name in found
    ]
    if "nginx tuned" in found:
        findings.append(
            Finding(
                claim="T1: CPU time per request of unisono / nginx tuned",
                figure=round(ratio(found, "unisono", "nginx tuned", lambda outcome: outcome.cpu_us), 2),
                unit="x",
                goal=1.1,
                details={"unisono": busy("unisono"), "nginx tuned": busy("nginx tuned")},
            )
        )
    return report("dispatch_throughput", findings)


if __name__ == "__main__":
    sys.exit(main())
