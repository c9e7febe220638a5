"""
Claim S5: instances that freeze, die or refuse connections cost no GET and delay no more than their places.

Eight instances with two places each, every one a process of its own: the first is frozen for five seconds
(SIGSTOP), later the second is killed and started again, later the third refuses connections for two seconds.
Nobody tells the gateway, but for the new process of the second, as the node would.
"""

from __future__ import annotations

import signal
import sys
import time
from contextlib import ExitStack

from bench.dispatch.instances import Instances
from bench.dispatch.rounds import Machine, Sample, available, mode, samples_of, say
from bench.harness import Finding, quantile, report
from bench.peers import HAPROXY_TUNED, UNISONO, UNISONO_HEDGED, Gateway, Peer, Setting
from unisono._engine import Load

PLACES = 2
INSTANCES = 8
RATE = 0.5 * INSTANCES * PLACES / 0.010
FREEZE_AT, FREEZE_SECONDS = 3.0, 5.0
KILL_AT, DOWN_SECONDS = 11.0, 1.0
REFUSE_AT, REFUSE_SECONDS = 15.0, 2.0
SECONDS = 20.0
DELAYED_MS = 500.0  # five times what the slowest of a thousand takes otherwise


def measure(peer: Peer, seed: int) -> tuple[list[Sample], float]:
    """One round: all requests, and how much others used of the machine."""
    with ExitStack() as stack:
        instances = [stack.enter_context(_one(seed + number)) for number in range(INSTANCES)]
        setting = Setting(
            ports=[one.ports[0] for one in instances], places=PLACES, pids=[one.pid for one in instances]
        )
        running = stack.enter_context(peer.start(setting))
        load = Load(f"http://127.0.0.1:{running.port}/", connections=2048, rate=RATE, samples=True, seed=seed)
        machine, cpu = Machine(), running.cpu_seconds()
        began = time.monotonic()

        def wait(seconds: float) -> None:
            time.sleep(max(0.0, began + seconds - time.monotonic()))

        with load:
            wait(FREEZE_AT)
            instances[0].signal(signal.SIGSTOP)
            wait(FREEZE_AT + FREEZE_SECONDS)
            instances[0].signal(signal.SIGCONT)
            wait(KILL_AT)
            instances[1].stop()
            wait(KILL_AT + DOWN_SECONDS)
            instances[1] = stack.enter_context(_one(seed + 100, instances[1].ports))
            if isinstance(running, Gateway):
                running.setting = Setting(**{**vars(running.setting), "pids": [one.pid for one in instances]})
                running.put(range(INSTANCES), {1: 2})
            wait(REFUSE_AT)
            instances[2].tell("mode", 0, "refuse")
            wait(REFUSE_AT + REFUSE_SECONDS)
            instances[2].tell("mode", 0, "serve")
            wait(SECONDS)
        ours = running.cpu_seconds() - cpu + sum(one.cpu_seconds() for one in instances)
        return samples_of(load.report())[0], machine.foreign(ours)


def _one(seed: int, ports: list[int] | None = None) -> Instances:
    return Instances(places=PLACES, service="lognormal:10:1", speeds=(1.0,), seed=seed, ports=ports or ())


def delayed(samples: list[Sample], begin: float, end: float) -> int:
    """Requests of a span of time that took far longer than any does otherwise."""
    return sum(sample.ms > DELAYED_MS for sample in samples if begin - 0.5 <= sample.at < end)


def main() -> int:
    """Measure and report; the exit code."""
    how = mode()
    findings: list[Finding] = []
    for peer in available(UNISONO, UNISONO_HEDGED, HAPROXY_TUNED):
        rounds = [measure(peer, 1000 + number) for number in range(2 if how.quick else 5)]
        each = [samples for samples, _ in rounds]
        failed = [sum(not sample.is_good for sample in samples) for samples in each]
        frozen = [delayed(samples, FREEZE_AT, FREEZE_AT + FREEZE_SECONDS) for samples in each]
        others = [delayed(samples, KILL_AT, SECONDS) for samples in each]
        details = {
            "requests": sum(map(len, each)),
            "failed in rounds": failed,
            "delayed by the freeze": frozen,
            "delayed by death and refusal": others,
            "p99 ms": [round(quantile([sample.ms for sample in samples], 0.99), 1) for samples in each],
            "longest ms": [round(max(sample.ms for sample in samples)) for samples in each],
            "foreign CPU": f"{max(foreign for _, foreign in rounds):.0%} at most",
        }
        if peer is HAPROXY_TUNED:
            say(f"beside it, {peer.name}: {details}")
            continue
        findings += [
            Finding(
                claim=f"S5: failed GETs of {peer.name}",
                figure=sum(failed),
                unit="requests",
                goal=0,
                details=details,
            ),
            Finding(
                claim=f"S5: requests of {peer.name} delayed by the freeze, worst round",
                figure=max(frozen),
                unit="requests",
                goal=PLACES,
                details={"places": PLACES},
            ),
            Finding(
                claim=f"S5: requests of {peer.name} delayed by death and refusal, worst round",
                figure=max(others),
                unit="requests",
                goal=PLACES,
                details={"places": PLACES},
            ),
        ]
    return report("dispatch_faults", findings)


if __name__ == "__main__":
    sys.exit(main())
