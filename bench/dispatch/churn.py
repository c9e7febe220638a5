"""
Claim S8: an instance comes or goes every two seconds under requests of five seconds, and none fails.

What is asserted at the instances: nothing arrives at one after the table without it was acknowledged. Peers
are not beside it: they change their servers by reloading.
"""

from __future__ import annotations

import json
import sys
import time

from bench.dispatch.instances import Instances
from bench.dispatch.rounds import available, mode, say
from bench.harness import Finding, report
from bench.peers import UNISONO, Gateway, Setting
from unisono._engine import Load

PLACES = 8
INSTANCES = 6
RATE = 4.0  # 20 requests are under way at a time
EVERY_SECONDS = 2.0


def main() -> int:
    """Measure and report; the exit code."""
    how = mode()
    changes = 12 if how.quick else 60
    assert available(UNISONO)
    late = 0
    with Instances(places=PLACES, service="constant:5000", speeds=(1.0,) * INSTANCES) as instances:
        setting = Setting(ports=instances.ports, places=PLACES)
        with (
            UNISONO.start(setting) as running,
            Load(f"http://127.0.0.1:{running.port}/", connections=512, rate=RATE) as load,
        ):
            assert isinstance(running, Gateway)
            generations = dict.fromkeys(range(INSTANCES), 1)
            for number in range(changes):
                out = number // 2 % INSTANCES
                if number % 2 == 0:
                    running.put([index for index in range(INSTANCES) if index != out], generations)
                    time.sleep(0.05)  # what was sent before the answer may still be on its way
                    before = instances.log()[out]["arrived"]
                    time.sleep(EVERY_SECONDS - 0.05)
                    late += instances.log()[out]["arrived"] - before
                else:
                    generations[out] += 1
                    running.put(range(INSTANCES), generations)
                    time.sleep(EVERY_SECONDS)
        peaks = [one["peak"] for one in instances.log()]
    seen = json.loads(load.report())
    say(f"S8: {seen['requests']} requests, statuses {seen['statuses']}, peaks {peaks}")
    details = {"requests": seen["requests"], "changes": changes, "failures": seen["failures"]}
    findings = [
        Finding(claim="S8: failed requests", figure=seen["failed"], unit="requests", goal=0, details=details),
        Finding(
            claim="S8: arrived at an instance after it was taken out",
            figure=late,
            unit="requests",
            goal=0,
            details={},
        ),
        Finding(
            claim="S8: requests at a time at an instance",
            figure=max(peaks),
            unit="requests",
            goal=PLACES,
            details={},
        ),
    ]
    return report("dispatch_churn", findings)


if __name__ == "__main__":
    sys.exit(main())
